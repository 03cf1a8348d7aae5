"""File URLs are the paths that they name, for roots, manifests, files and audio; secrets of URLs are not shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from echo_targets.jobs.cli import app
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.storage import is_url, open_storage, split
from echo_targets.schemas.dataset.urls import local_path, without_secrets
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.dataset import EchoTargetDataset
from tests.schemas.samples import Root, samples

NAME = "a b%#?ü"


def test_a_job_by_file_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent-decoded in every place, with a host that is empty or localhost, in any case."""
    folder = tmp_path / NAME
    folder.mkdir()
    soundfile.write(folder / f"{NAME}.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    url = (folder / f"{NAME}.wav").as_uri()
    (folder / f"{NAME}.jsonl").write_text(json.dumps({"id": "a", "audio": url}))
    monkeypatch.chdir(tmp_path)
    root = (folder / "root").as_uri().replace("file://", "FILE://localhost")
    source = {"kind": "manifest", "corpus": "c", "manifest": (folder / f"{NAME}.jsonl").as_uri()}
    (tmp_path / "c.yaml").write_text(json.dumps({"root": root, "stages": {"ingest": {"sources": [source]}}}))
    for arguments in (["run", "c.yaml"], ["status", root], ["check", root]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    (row,) = Dataset(str(folder / "root")).read("utterances").to_pylist()
    assert row["audio"]["path"] == f"{NAME}.wav"
    (entry,) = Dataset(root).read("entries").to_pylist()
    assert entry["where"] is None and entry["locator"] == str(folder / f"{NAME}.wav")
    (shard,) = (folder / "root" / "utterances").rglob("*.parquet")
    assert CliRunner().invoke(app, ["check", shard.as_uri()]).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "c.yaml"]


def test_a_trainer_by_a_file_url(tmp_path: Path) -> None:
    Root(tmp_path / NAME).put("training/echo", samples("training/echo", 3))
    assert sum(map(len, EchoTargetDataset((tmp_path / NAME).as_uri()))) == 3


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file://server/a", "on the host 'server'"),
        ("file:a", "is not a file URL"),
        ("file:///a?b", "is not a file URL; write file:///PATH, with # as %23"),
        ("file:///a%ff", "is not UTF-8"),
        ("file:///a%00b", "holds a NUL"),
        ("file://[a/b", "is not a URL"),
    ],
)
def test_what_names_no_local_file(url: str, says: str) -> None:
    for use in (local_path, open_storage, Dataset, split):
        with pytest.raises(UserError, match=says):
            use(url)
    result = CliRunner().invoke(app, ["status", url])
    assert result.exit_code != 0 and isinstance(result.exception, UserError)


def test_a_file_url_is_a_local_path() -> None:
    assert not is_url("file:///a") and not is_url("FILE:/a") and is_url("s3://a")
    assert local_path("file:/a%20b") == local_path("file://LOCALHOST/a%20b") == "/a b"
    assert split("file:///a%20b/c%2Fd") == ("/a b/c", "d")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pa@ss@host/a?b=c&d", "https://…@host/a?…"),
        ("see 'https://h/a.wav?sig=x', s3://key:secret@bucket/a", "see 'https://h/a.wav?…', s3://…@bucket/a"),
        ("HTTP://h/?a b?c", "HTTP://h/?… b?c"),
        ("https://h/a@b", "https://h/a@b"),
        ("a@b.c, s3://bucket/a?b", "a@b.c, s3://bucket/a?b"),
    ],
)
def test_secrets_of_urls(text: str, shown: str) -> None:
    assert without_secrets(text) == shown

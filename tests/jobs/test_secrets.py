"""Values of environment variables are not written to a root, by a run of a configuration that uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import yaml

from echo_targets.jobs.commands.run import run_command
from echo_targets.jobs.config import ConfigError, load
from echo_targets.schemas import UTTERANCES
from echo_targets.schemas.tables.base import KEY, Table, column
from echo_targets.transforms.base import Output, Parameters, Transform, table_of
from tests.pipeline.stand_ins import files

SECRET = "hunter2-and-more"
OWN = Table("own", "1.0.0", pa.schema([column(KEY, pa.string())]), {})


class OwnParameters(Parameters):
    token: str
    options: dict[str, Any] = {}


class Own(Transform):
    """A stage that needs a token, and records all of its parameters."""

    name, version, reads, writes = "own", 1, (UTTERANCES,), OWN
    Parameters = OwnParameters

    def __call__(self, batch: pa.Table) -> Output:
        assert self.parameters.token == SECRET
        return Output(table_of(({KEY: key} for key in batch[KEY].to_pylist()), OWN))


class Discreet(Own):
    """The same, without the token in what it records."""

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"token"})


class Renamed(Own):
    """The same, with the token under another name."""

    def fingerprint_parameters(self) -> dict[str, Any]:
        return {"login": f"token {self.parameters.token}"}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder named by a secret, with a manifest and its audio."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("SHORT", "en")
    folder = tmp_path / SECRET
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(folder / "a.wav", noise, 16_000)
    (folder / "m.jsonl").write_text('{"id": "a", "audio": "a.wav"}\n')
    return folder


def written(tmp_path: Path, source: dict[str, Any], stages: dict[str, Any], **top: Any) -> str:
    """A configuration's path."""
    source = {"kind": "manifest", "corpus": "c", "manifest": f"{tmp_path}/${{oc.env:SECRET}}/m.jsonl"} | source
    values = {"root": str(tmp_path / "root"), "stages": {"ingest": {"sources": [source]}} | stages} | top
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    return str(tmp_path / "c.yaml")


def test_paths_and_what_a_stage_keeps_to_itself_are_not_written(corpus: Path, tmp_path: Path) -> None:
    config = written(tmp_path, {}, {f"{__name__}:Discreet": {"token": "${oc.env:SECRET}"}})
    assert run_command(config, [], False) == 0
    found = files(tmp_path / "root")
    assert any(name.startswith("own/") for name in found) and not any(
        SECRET.encode() in data for data in found.values()
    )


@pytest.mark.parametrize(
    ("source", "stages", "top", "key"),
    [
        ({"corpus": "${oc.env:SECRET}"}, {}, {}, "stages.ingest.sources.0.corpus"),
        ({"license": "of ${oc.env:SHORT}"}, {}, {}, "stages.ingest.sources.0.license"),
        ({"corpus": "${name}"}, {}, {"name": "${oc.env:SECRET}"}, "stages.ingest.sources.0.corpus"),
        ({"language": "${oc.env:NOT_SET,en}"}, {}, {}, "stages.ingest.sources.0.language"),
        ({}, {"Own": {"token": "${oc.env:SECRET}"}}, {}, "Own.token"),
        ({}, {}, {"shard_hours": "${oc.env:NOT_SET,2}"}, "shard_hours"),
        ({}, {"Own": {"token": "a", "options": {"deep": ["${oc.env:SHORT}"]}}}, {}, "Own.options.deep.0"),
        ({}, {"Renamed": {"token": "${oc.env:SECRET}"}}, {}, "Renamed.token"),
        ({}, {"transcribe": {"best_of": "${oc.decode:${oc.env:NOT_SET,2}}"}}, {}, "stages.transcribe.best_of"),
    ],
    ids=str,
)
def test_what_would_be_written_is_an_error_that_names_the_key(
    source: dict[str, Any], stages: dict[str, Any], top: dict[str, Any], key: str, corpus: Path, tmp_path: Path
) -> None:
    own = {f"{__name__}:{name}" if name[0].isupper() else name: value for name, value in stages.items()}
    config = written(tmp_path, source, own, **top)
    with pytest.raises(ConfigError) as raised:
        run_command(config, [], False)
    assert f"{key}: comes from an environment variable" in str(raised.value) and SECRET not in str(raised.value)
    assert not (tmp_path / "root").exists()


def test_on_the_command_line_too(corpus: Path, tmp_path: Path) -> None:
    config = written(tmp_path, {}, {})
    with pytest.raises(ConfigError, match=r"'stages.ingest.min_seconds=\S+' on the command line: .* is written"):
        load(config, ["stages.ingest.min_seconds=${oc.env:NOT_SET,0.1}"])
    assert load(config, ["stages.ingest.min_seconds=0.1", "device=${oc.env:NOT_SET,cpu}"]).device == "cpu"

"""A bucket that does not exist is one sentence within seconds, whatever is asked of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from echo_targets.jobs.cli import app
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.dataset import EchoTargetDataset
from echo_targets.transforms.sources.base import SourceError
from tests.storage.object_store import Network, Store
from tests.transforms.rows import rejects, run_stages

ROOT = "s3://no-such-bucket/calls"


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "a", "audio": "a.wav"}))
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "m.jsonl")}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"root": ROOT, "stages": {"ingest": {"sources": [source]}}}))
    return str(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["run", "run --dry-run", "status", "check", "check --level metadata", "gc", "plan"])
def test_commands(command: str, config: str, network: Network) -> None:
    name, *options = command.split()
    began = time.monotonic()
    result = CliRunner().invoke(app, [name, config if name in ("run", "plan") else ROOT, *options])
    assert result.exit_code != 0 and isinstance(result.exception, UserError), (result.output, result.exception)
    assert "s3://no-such-bucket: there is no such bucket; create it, or correct the URL" in str(result.exception)
    assert time.monotonic() - began < 10 and len(network.seen) <= 5


def test_a_trainer(network: Network) -> None:
    with pytest.raises(UserError, match="there is no such bucket"):
        EchoTargetDataset(ROOT)


def test_a_line_s_bucket_costs_that_line(network: Network, server: Store, bucket: str, tmp_path: Path) -> None:
    """A manifest's own bucket is the configuration's mistake; a bucket in a line is the line's."""
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "a", "audio": "s3://no-such-bucket/a.wav", "duration": 1}))
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    (reject,) = rejects(dataset, "utterances").values()
    assert reject["error_class"] == "missing_file" and "there is no such bucket" in reject["message"]
    with pytest.raises(SourceError, match="there is no such bucket"):
        run_stages(tmp_path / "other", {"ingest": {"sources": [source | {"manifest": "s3://no-such-bucket/m.jsonl"}]}})

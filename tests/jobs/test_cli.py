"""The command line as a person meets it: help, exit codes, messages without a trace, the demo."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from echo_targets.jobs.cli import COMMANDS, app, load
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import files

REPOSITORY = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "echo_targets.jobs.cli", *arguments]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment, timeout=500)


@pytest.fixture
def manifest(speech: list[dict], tmp_path: Path) -> Path:
    lines = [json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"]}) for row in speech[:4]]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_help_teaches() -> None:
    shown = run("--help").stdout
    assert "Exit codes" in shown and "fit-codebook" in shown
    assert "echo-targets run folder manifest=" in run("run", "--help").stdout.replace("\n", " ")


def test_help_fills_its_lines() -> None:
    """A line of help breaks where it is full, not where the source does."""
    for command in ([], ["train"], *(name.split() for name in COMMANDS)):
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"}).output
        assert "Usage:" in shown, command
        lines = [line.strip() for line in shown.splitlines()]
        prose = [line for line in lines if not line.startswith(("Usage:", "│", "╭", "╰"))]
        for line, following in itertools.pairwise(prose):
            assert not line or not following or len(line) + 1 + len(following.split()[0]) > 78, line


def test_the_summary_of_a_command_is_the_first_paragraph_of_its_help() -> None:
    for name, summary in COMMANDS.items():
        assert " ".join(load(name).help.partition("\n\n")[0].split()) == summary


def test_bad_usage_is_2_and_has_no_trace(tmp_path: Path) -> None:
    for arguments in (
        ("run", "nowhere.yaml"),
        ("run", "folder", "root=x"),
        ("run", "folder", f"manifest={tmp_path}/gone.jsonl", f"root={tmp_path}/out"),
        ("check", str(tmp_path)),
        ("check", "--against", str(tmp_path)),
        ("check", str(tmp_path), "--level", "thorough"),
        ("status", str(tmp_path)),
        ("gc", str(tmp_path), "--yes"),
        ("diff", str(tmp_path), str(tmp_path)),
        ("retry", "folder", f"manifest={tmp_path}/m.jsonl", f"root={tmp_path}/out"),
        ("train", "t2c", str(tmp_path), str(tmp_path / "m")),
        ("fly",),
    ):
        result = run(*arguments)
        assert result.returncode == 2, (arguments, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr and result.stderr.strip(), arguments


def test_dry_run_writes_nothing(manifest: Path, tmp_path: Path) -> None:
    result = run("run", "folder", f"manifest={manifest}", f"root={tmp_path}/out", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "4 items" in result.stdout and "transcribe: transcripts/" in result.stdout
    assert not (tmp_path / "out").exists()


def test_dry_run_foretells_what_is_too_long(manifest: Path, tmp_path: Path) -> None:
    limit = "stages.publish_s2t.max_seconds=0.5"
    result = run("run", "folder", f"manifest={manifest}", f"root={tmp_path}/out", limit, "--dry-run")
    assert "publish_s2t: 4 items are longer than max_seconds=0.5 and will be dropped" in result.stdout, result.stdout


def test_keys_that_are_ignored_are_listed(manifest: Path, tmp_path: Path) -> None:
    """A misspelled key would else be missed in silence."""
    first, *rest = manifest.read_text().splitlines()
    rows = [json.loads(first) | {"emotion": "calm", "speeker": "anna"}, *map(json.loads, rest)]
    rows[1] |= {"emotion": "calm", "speeker": None, "speaker": "ben"}
    manifest.write_text("\n".join(map(json.dumps, rows)))
    said = "m.jsonl: these keys are ignored: emotion (2 lines), speeker (1 line); docs/MANIFESTS.md lists"
    where = (f"manifest={manifest}", f"root={tmp_path}/out")
    for arguments in (("run", "folder", *where, "--dry-run"), ("plan", "folder", *where)):
        result = run(*arguments)
        assert said in result.stdout.replace("\n", " "), result.stdout + result.stderr
    ingest = tmp_path / "ingest.yaml"
    ingest.write_text(
        f"root: {tmp_path}/out\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {manifest}, ignore: [emotion]}}\n"
    )
    result = run("run", str(ingest))
    assert "m.jsonl: this key is ignored: speeker (1 line);" in result.stdout.replace("\n", " ")


def test_a_folder_without_a_manifest(speech: list[dict[str, Any]], tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    for row in speech[:3]:
        (calls / row["audio"].name).write_bytes(row["audio"].read_bytes())
    (calls / "cover.jpg").write_bytes(b"x")
    result = run("run", "audio", f"folder={calls}", f"root={tmp_path}/out", "--dry-run")
    assert "3 items (0 of them unreadable lines)" in result.stdout, result.stdout + result.stderr
    assert f"{calls}: skipped files without an ending of audio: 1 (.jpg 1)" in result.stdout.replace("\n", " ")
    result = run("run", "folder", f"manifest={calls}", f"root={tmp_path}/out", "--dry-run")
    assert result.returncode == 2 and "is not a file; for a folder of audio, use kind: folder" in result.stderr


def test_too_many_rejects_is_1_and_nothing_is_lost(manifest: Path, tmp_path: Path) -> None:
    manifest.write_text(manifest.read_text() + "not JSON\n" * 3)
    few = tmp_path / "few.yaml"
    few.write_text(
        f"root: {tmp_path}/out\nmax_reject_fraction: 0.2\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {manifest}}}\n"
    )
    result = run("run", str(few))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "3 of 7 rows were rejected (3 bad_line)" in result.stdout.replace("\n", " ")
    again = run("run", str(few), "max_reject_fraction=0.5")
    assert again.returncode == 0, again.stdout + again.stderr
    assert Dataset(f"{tmp_path}/out").read("utterances").num_rows == 4


def test_check_finds_a_changed_shard(manifest: Path, tmp_path: Path) -> None:
    ingest = tmp_path / "ingest.yaml"
    ingest.write_text(
        f"root: {tmp_path}/out\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {manifest}}}\n"
    )
    assert run("run", str(ingest)).returncode == 0
    assert run("check", f"{tmp_path}/out").returncode == 0
    (shard,) = (tmp_path / "out" / "utterances").rglob("*.parquet")
    assert run("check", str(shard)).returncode == 0
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    result = run("check", f"{tmp_path}/out", "--format", "github")
    assert result.returncode == 1 and result.stdout.startswith("::error ") and "digest" in result.stdout
    assert (
        run("check", f"{tmp_path}/out", "--level", "metadata", "--against", f"{REPOSITORY}/schemas/contract").returncode
        == 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "a scheduler's stop"])
def test_a_stopped_job_leaves_nothing_half_written(manifest: Path, tmp_path: Path, stop: signal.Signals) -> None:
    root = tmp_path / "out"
    arguments = command("run", "folder", f"manifest={manifest}", f"root={root}")
    process = subprocess.Popen(
        arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(root.rglob("transcripts/*/*.attempt.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, stop)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Run the same command again to resume" in stdout
    assert [path for path in root.rglob("*") if ".tmp-" in path.name or ".attempt" in path.name] == []
    assert list((root / "lease").iterdir()) == []


def test_two_drivers_at_once(manifest: Path, tmp_path: Path) -> None:
    """Of two that start together on one root, one works and one refuses; or one waits, and finds nothing to do."""
    ingest = tmp_path / "ingest.yaml"
    ingest.write_text(
        f"shard_hours: 0.001\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {manifest}}}\n"
    )
    for when_busy in ("refuse", "wait"):
        root = tmp_path / when_busy
        drivers = [
            subprocess.Popen(
                command("run", str(ingest), f"root={root}", f"when_busy={when_busy}"),
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(2)
        ]
        said = [driver.communicate(timeout=120)[0] for driver in drivers]
        codes = [driver.returncode for driver in drivers]
        if when_busy == "refuse" and codes != [0, 0]:  # both may do, one after the other
            assert sorted(codes) == [0, 2], said
            assert "another driver is running here (process" in said[codes.index(2)]
        else:
            assert codes == [0, 0], said
            assert sum("nothing to do" in text for text in said) == 1, said
        assert run("check", str(root)).returncode == 0
    assert {path: data for path, data in files(tmp_path / "refuse").items() if path != "README.md"} == {
        path: data for path, data in files(tmp_path / "wait").items() if path != "README.md"
    }


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    result = run("demo", "--root", str(tmp_path / "demo"))
    assert result.returncode == 0, result.stdout + result.stderr
    for shown in ("►", "Funnel", "truncated.flac", "duplicate_id", "Shards are in", "of 20 replies", "0 findings"):
        assert shown in result.stdout, result.stdout
    assert Dataset(str(tmp_path / "demo")).read("training/echo").num_rows >= 18
    assert "## Filter funnel" in (tmp_path / "demo" / "README.md").read_text()


def test_a_library_that_is_missing_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text("raise ModuleNotFoundError('none', name='soundfile')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run(
        command("demo", "--root", "out"), capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=500
    )
    assert (done.returncode, done.stderr) == (2, "soundfile is not installed: pip install 'echo-targets[ingest]'\n")


def test_the_version() -> None:
    assert run("--version").stdout.startswith("echo-targets 0.")

"""Estimates against what is counted by hand, and against what a run leaves on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.arguments import ReportFormat
from echo_targets.jobs.commands.plan import load_throughputs, measured_densities, plan_command
from echo_targets.jobs.config import ConfigError
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import Double, Inline, files, job, stage

HOUR = 3600.0


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two corpora of two hours: a dialogue of four turns, and two items read aloud; one line is not JSON."""
    turns = [{"id": f"t{turn}", "audio": "t.wav", "dialogue_id": "d", "turn": turn} for turn in range(4)]
    read = [{"id": f"r{number}", "audio": "r.wav"} for number in range(2)]
    for name, rows, seconds in (("calls", turns, HOUR / 2), ("books", read, HOUR)):
        lines = [json.dumps(row | {"duration": seconds}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*lines, "{"] if name == "books" else lines) + "\n")
    path = tmp_path / "c.yaml"
    path.write_text(
        f"root: {tmp_path}/out\nshard_hours: 2\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: calls, manifest: {tmp_path}/calls.jsonl}}\n"
        f"      - {{kind: manifest, corpus: books, manifest: {tmp_path}/books.jsonl}}\n"
        "  transcribe:\n  echo:\n  publish_s2t:\n    roles: [narrator]\n"
    )
    return path


def planned(capsys: pytest.CaptureFixture[str], config: Path, throughputs: Path | None = None) -> dict[str, Any]:
    given = None if throughputs is None else str(throughputs)
    assert plan_command(str(config), [], given, format=ReportFormat.JSON) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_by_stage_and_corpus(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, config)
    assert (found["items"], found["unreadable"], found["hours"], found["shards"]) == (7, 1, 4.0, 2)
    costs = {(cost["stage"], cost["corpus"]): cost for cost in found["costs"]}
    assert [key for key in costs if key[0] != "plan"] == [
        ("ingest", "books"),
        ("ingest", "calls"),
        ("transcribe", "books"),
        ("transcribe", "calls"),
        ("echo", "calls"),
        ("publish_s2t", "books"),
    ]
    heard = costs["transcribe", "calls"]
    assert (heard["rows"], heard["hours"], heard["shards"], heard["bytes"]) == (4, 2.0, 1, 4 * 341)
    assert heard["gpu_hours"] == pytest.approx(2 / 68.56) and heard["core_hours"] == 0
    assert costs["ingest", "books"]["core_hours"] == pytest.approx(2 / 1818)
    assert costs["ingest", "books"]["bytes"] == 2 * 175 + 2 * 3600 * 17_500
    answered = costs["echo", "calls"]
    assert (answered["rows"], answered["hours"]) == (2, 1.0), "the user's turns"
    assert found["gpu_hours"] == pytest.approx(4 / 68.56 + 1 / 208, abs=1e-4)
    assert found["throughputs"]["transcribe"]["source"] and not files(config.parent / "out")


def test_given_throughputs(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "stages:\n  transcribe: {times_real_time: 4, device: core, source: my laptop}\n"
        "tables:\n  transcripts: {second: 2}\n"
    )
    found = planned(capsys, config, mine)
    costs = {(cost["stage"], cost["corpus"]): cost for cost in found["costs"]}
    heard = costs["transcribe", "calls"]
    assert (heard["gpu_hours"], heard["core_hours"], heard["bytes"]) == (0, 0.5, 14_400)
    assert costs["echo", "calls"]["gpu_hours"] == pytest.approx(1 / 208), "the others are as they were"
    assert plan_command(str(config), [], str(mine)) == 0
    shown = capsys.readouterr().out
    assert "4 times real time on a core: my laptop" in shown and "1 of 7 items are unreadable" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {transcribe: {times_real_time: 0, device: GPU, source: x}}", "stages.transcribe.times_real_time"),
        ("stages: {transcribe: {times_real_time: 1, device: TPU, source: x}}", "stages.transcribe.device"),
        (
            "stages: {translate: {times_real_time: 1, device: GPU, source: x}}",
            "unknown stage. Stages are segment, ingest",
        ),
        ("tables: {units: {rows: 1}}", "tables.units.rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_throughputs(str(tmp_path / "mine.yaml"))


def test_what_the_root_holds_is_measured(tmp_path: Path) -> None:
    list(job(tmp_path, stage(Double)).run(Inline()))
    dataset = Dataset(str(tmp_path))
    found = measured_densities(dataset)
    assert found.keys() == {"entries", "utterances", "transcripts"}
    shards = [path for path in (tmp_path / "transcripts").rglob("*.parquet")]
    seconds = sum(1.0 + number % 3 for number in range(12))
    assert found["transcripts"].second * seconds == pytest.approx(sum(path.stat().st_size for path in shards))
    assert measured_densities(Dataset(str(tmp_path / "nowhere"))) == {}

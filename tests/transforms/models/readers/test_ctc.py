"""The reader of units: its files, its reading, its training on a language that a small network learns in seconds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.readers.ctc import (
    UnitReader,
    character_error_rate,
    readable,
    spelled_out,
    target_cer,
)
from echo_targets.transforms.models.readers.ctc_config import ALPHABET, BLANK, UnitReaderConfig
from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule, padded
from echo_targets.transforms.training import reader as unit_reader_training
from echo_targets.transforms.training.loop import Batches
from echo_targets.transforms.training.reader import ReaderRecipe, Row, reading_error_rate, train_unit_reader

ROOT = Path(__file__).parents[4]
RECORDED = Path(__file__).parents[2] / "data" / "recorded_units.jsonl"  # the embedded voice, the embedded codebook
SHAPE = UnitReaderConfig(
    codebook_id="letters",
    codebook_size=60,
    hidden_size=34,
    ffn_size=46,
    num_layers=3,
    reach=5,
    frames_per_unit=4,
)
"""No two sizes are equal or a default."""
CONFIG = UnitReaderConfig(codebook_id="letters", codebook_size=60, hidden_size=32, ffn_size=64, num_layers=2, reach=2)
RECIPE = ReaderRecipe(steps=12, batch_tokens=400, warmup_steps=2, decay_steps=4, log_every=5, save_every=6)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(seed: int = 0) -> UnitReader:
    """A random reader that says something at every unit."""
    torch.manual_seed(seed)
    module = UnitReaderModule(SHAPE).eval()
    with torch.no_grad():
        module.head.weight.normal_(std=1)
    return UnitReader(SHAPE, module)


def units_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(CONFIG.codebook_size) for _ in range(length)] for length in lengths]


def said(text: str) -> list[int]:
    """Units of a text: letter n of the alphabet says 2n and then 2n + 1."""
    return [unit for letter in readable(text) for unit in (2 * ALPHABET.index(letter), 2 * ALPHABET.index(letter) + 1)]


def spoken(count: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    texts = ["".join(rng.choice("aeionst ") for _ in range(rng.randint(4, 14))).strip() or "a" for _ in range(count)]
    return [(text, said(text)) for text in texts]


def test_readable() -> None:
    assert readable("  It's Zoë’s CAFÉ — well-known, isn't it?!") == "it's zoe's cafe well known isn't it"
    assert readable("'Quoted,' said the dogs' owner.") == "quoted said the dogs owner"
    assert readable("今天 OK") == readable("Die Straße") == readable("Say привет") == ""
    assert readable("At 5 o'clock") == readable("Привет!") == readable("?!") == readable("") == ""
    assert set(readable("".join(map(chr, range(32, 48))) + "The quick brown fox")) <= set(ALPHABET)


def test_character_error_rate() -> None:
    assert character_error_rate("Isn't it?", "isn't it") == 0
    assert character_error_rate("Good morning.", "good mourning") == pytest.approx(1 / 12)
    assert character_error_rate("Hi", "") == 1
    assert character_error_rate("Hi", "hi there") == 3
    assert character_error_rate("...", "hi") is character_error_rate("It is 5.", "it is five") is None


def test_frames_become_letters() -> None:
    a, b, space = (ALPHABET.index(letter) for letter in "ab ")
    assert spelled_out([]) == spelled_out([BLANK, BLANK]) == spelled_out([space, BLANK, space]) == ""
    assert spelled_out([a, a, BLANK, a, b, b]) == "aab"
    assert spelled_out([BLANK, space, a, BLANK, space, space, BLANK, space, b, space]) == "a b"


def test_a_row_reads_alike_alone_and_in_any_batch() -> None:
    reader = tiny()
    rows = units_of([7, 0, 31, 1, 18, 2, 50, 0])
    alone = [reader.read([row])[0] for row in rows]
    assert reader.read(rows) == alone and reader.read(rows[::-1]) == alone[::-1]
    assert alone[1] == alone[7] == "" and len(set(alone)) == 7
    units, lengths = padded([row for row in rows if row])
    with torch.inference_mode():
        together = reader.module(units, lengths)
        for place, row in enumerate(row for row in rows if row):
            one = reader.module(*padded([row]))[0]
            assert one.shape == (4 * len(row), len(ALPHABET) + 1)
            torch.testing.assert_close(together[place, : len(one)], one, rtol=0, atol=1e-5)
            filled = units.clone()
            filled[place, len(row) :] = 59  # what a row is padded with is not seen
            assert torch.equal(reader.module(filled, lengths)[place, : len(one)], together[place, : len(one)])


def test_many_rows_are_read_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, rows = tiny(), units_of([3, 9, 0, 40, 9, 5])
    whole = reader.read(rows)
    sizes = []
    forward = reader.module.forward

    def counted(units: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        sizes.append(units.numel())
        return forward(units, lengths)

    monkeypatch.setattr("echo_targets.transforms.models.readers.ctc.BATCH_UNITS", 20)
    monkeypatch.setattr(reader.module, "forward", counted)
    assert reader.read(rows) == whole and reader.read([]) == []
    assert sizes == [10, 18, 40]  # 3 and 5 together, 9 and 9, and a row that is more than a batch by itself


def test_a_unit_outside_the_codebook_is_an_error() -> None:
    for unit in (-1, 60):
        with pytest.raises(ValueError, match=r"not all in \[0, 60\)"):
            tiny().read([[1, 2], [3, unit]])


def test_another_codebook_is_an_error() -> None:
    tiny().check_codebook("letters", 60)
    with pytest.raises(ModelError, match="is for units of letters, not whisper-tiny"):
        tiny().check_codebook("whisper-tiny.en-l3-k100-e21812ec", 60)


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_reader_reads_the_same(tmp_path: Path, half: bool) -> None:
    reader = tiny()
    reader.save(tmp_path, half=half)
    loaded = UnitReader.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert loaded.config == reader.config and not loaded.module.training
    assert {tensor.dtype for tensor in loaded.module.state_dict().values()} == {torch.float32}
    stored = {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()}
    assert stored == {torch.float16 if half else torch.float32}
    units, lengths = padded(units_of([30, 12]))
    with torch.inference_mode():
        pair = loaded.module(units, lengths), reader.module(units, lengths)
    torch.testing.assert_close(*pair, rtol=0, atol=0.05 if half else 0)


def test_a_damaged_reader_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json: not a unit reader"):
        UnitReader.load(tmp_path)
    tiny().save(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    state = load_file(weights)
    bad = {"extra.weight": torch.zeros(2), "norm.bias": torch.zeros(3)}
    save_file({name: tensor for name, tensor in state.items() if name != "head.weight"} | bad, weights)
    with pytest.raises(
        ModelError, match=r"missing head\.weight, surplus extra\.weight, norm\.bias is \(3,\), expected \(34,\)"
    ):
        UnitReader.load(tmp_path)
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(ModelError, match="damaged"):
        UnitReader.load(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        UnitReader.load(tmp_path)
    tiny().save(tmp_path)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"reach": 0}))
    with pytest.raises(ModelError, match="reach"):
        UnitReader.load(tmp_path)


def test_importing_the_model_files_does_not_import_torch() -> None:
    modules = ", ".join(
        f"echo_targets.transforms.{name}" for name in ("models.readers.ctc", "training.reader", "training.loop")
    )
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_it_learns_to_read(tmp_path: Path) -> None:
    recipe = ReaderRecipe(
        steps=150, batch_tokens=600, learning_rate=1e-2, warmup_steps=10, decay_steps=80, log_every=50, dropout=0
    )
    rows, held_out = spoken(400, seed=0), spoken(40, seed=1)
    rows += [("at 5", [1, 2, 3]), ("much more than its units say", [1, 2, 3])]
    report = train_unit_reader(rows, held_out, CONFIG, tmp_path, recipe)
    assert report["rows"] == 400 and report["rows_left_out"] == 2
    assert report["held_out_character_error_rate"] < 0.03
    assert json.loads((tmp_path / "report.json").read_text()) == report
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == [50, 100, 150]
    assert curve[-1]["loss"] == report["final_loss"] < curve[0]["loss"] / 4

    reader = UnitReader.load(tmp_path)
    assert reading_error_rate(reader, held_out) == report["held_out_character_error_rate"]
    assert reading_error_rate(reader, [("5 o'clock", said("six"))]) is None
    segments = [[said("no tea is")], [said("a stain")], [[]]]
    exact, swapped, nothing, unspelt = target_cer(
        reader,
        ["No tea is a stain!", "A stain, no tea is?", "Tea.", "5"],
        [segments, segments[1::-1], [[[]]], segments],
    )
    assert exact == swapped == 0 and nothing == 1 and unspelt is None
    assert target_cer(reader, [], []) == []


def test_it_reads_recorded_speech_that_it_has_seen(tmp_path: Path) -> None:
    rows = [(row["text"], row["units"]) for row in map(json.loads, RECORDED.read_text().splitlines())]
    config = CONFIG.model_copy(update={"codebook_size": 100, "hidden_size": 64, "reach": 4})
    recipe = ReaderRecipe(steps=120, learning_rate=1e-2, warmup_steps=10, decay_steps=60, dropout=0, edited_units=0)
    report = train_unit_reader(rows, rows, config, tmp_path, recipe)
    assert report["held_out_character_error_rate"] < 0.02
    assert len(set(UnitReader.load(tmp_path).read([units for _, units in rows]))) == len(rows)


def test_a_part_of_the_units_is_edited() -> None:
    rng = np.random.default_rng(0)
    recipe = replace(RECIPE, edited_units=0.3)
    units = np.array(said("no one is at east nation " * 40))
    edited = unit_reader_training._edited(units, recipe, CONFIG, rng)
    assert edited.dtype == np.int64 and all(one != next_ for one, next_ in pairwise(edited.tolist()))
    assert 0.1 < sum(unit not in said("noei sat") for unit in edited.tolist()) / len(units) < 0.3
    assert abs(len(edited) - len(units)) < 0.05 * len(units)
    assert np.array_equal(unit_reader_training._edited(units, replace(recipe, edited_units=0), CONFIG, rng), units)
    assert len(unit_reader_training._edited(np.array([3]), replace(recipe, edited_units=1.0), CONFIG, rng)) >= 1


@pytest.mark.parametrize("killed_at", [4, 9])
def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    rows = spoken(60, seed=0)
    train_unit_reader(rows, rows[:4], CONFIG, tmp_path / "whole", RECIPE)

    loss = unit_reader_training._loss
    calls = 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(unit_reader_training, "_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_unit_reader(rows, rows[:4], CONFIG, tmp_path / "cut", RECIPE)
    assert calls == killed_at and not (tmp_path / "cut" / "model.safetensors").exists()
    monkeypatch.undo()
    train_unit_reader(rows, rows[:4], CONFIG, tmp_path / "cut", RECIPE)

    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    for name in ("curve.jsonl", "report.json"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "cut" / name).read_text()
    assert len((tmp_path / "whole" / "curve.jsonl").read_text().splitlines()) == 3


def test_another_seed_is_another_reader_and_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    rows = spoken(30, seed=0)
    short = replace(RECIPE, steps=2)
    train_unit_reader(rows, rows[:2], CONFIG, tmp_path / "a", short)
    train_unit_reader(rows, rows[:2], CONFIG, tmp_path / "b", replace(short, seed=1))
    a, b = (load_file(tmp_path / name / "model.safetensors")["head.weight"] for name in "ab")
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="another recipe"):
        train_unit_reader(rows, rows[:2], CONFIG, tmp_path / "a", replace(short, seed=1))


def test_rows_that_cannot_be_trained_on_are_errors(tmp_path: Path) -> None:
    for rows, complaint in (([], "no rows"), ([("5", [1])], "no rows"), ([("hi", [1, 60])], "not all in")):
        with pytest.raises(ValueError, match=complaint):
            train_unit_reader(rows, [], CONFIG, tmp_path, RECIPE)


def test_every_row_is_in_one_batch_of_an_epoch_within_the_budget() -> None:
    lengths = [len(units) for _, units in spoken(100, seed=0)]
    batches = Batches(lengths, RECIPE)
    count = len(batches.batches)
    epoch = [batches.at(step) for step in range(count)]
    assert sorted(row for batch in epoch for row in batch) == list(range(100))
    assert all(max(lengths[row] for row in batch) * len(batch) <= RECIPE.batch_tokens for batch in epoch)
    later = 3 * count + 1
    assert Batches(lengths, RECIPE).at(later) == batches.at(later) != epoch[1]

"""Rates of nothing are None; a start from another model; a training without rows is an error of the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.assets import asset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.training.echo import EchoMeasures, EchoRecipe, echo_measures, train_echo
from echo_targets.transforms.training.loop import Batches, RunRecipe, TrainingError, share_of
from echo_targets.transforms.training.reader import reading_error_rate, train_unit_reader
from echo_targets.transforms.training.s2t import S2TRecipe, held_out_replies, train_s2t
from echo_targets.transforms.training.shared import tokenizer_of
from echo_targets.transforms.training.t2c import UnitErrors, train_t2c
from tests.transforms.models.readers import test_ctc as readers
from tests.transforms.training import test_t2c as decoders

MODEL = asset("embedded:echox-nano")


@pytest.fixture(scope="module")
def echox() -> EchoX:
    return EchoX.load(MODEL)


@pytest.fixture(scope="module")
def prompt(echox: EchoX) -> PromptTemplate:
    return PromptTemplate.load(asset("embedded:prompts/nano.json"), tokenizer_of(echox))


def test_a_rate_of_nothing_is_none(echox: EchoX, prompt: PromptTemplate) -> None:
    assert share_of(1, 3) == 0.3333 and share_of(0, 3) == 0 and share_of(0, 0) is None
    assert UnitErrors(0, 0).rate is None and UnitErrors(0, 5).rate == 0
    assert echo_measures(echox, []) == EchoMeasures(None, None)
    assert set(held_out_replies(echox, [], prompt).values()) == {None}


def test_a_report_without_held_out_rows(tmp_path: Path) -> None:
    recipe = replace(decoders.RECIPE, steps=2)
    report = train_t2c(
        decoders.spoken(9, seed=0), [], decoders.CONFIG, decoders.TOKENIZER, tmp_path / "decoder", recipe
    )
    assert report["held_out_rows"] == 0 and report["held_out_unit_error_rate"] is None
    assert '"held_out_unit_error_rate": null' in (tmp_path / "decoder" / "report.json").read_text()
    read = replace(readers.RECIPE, steps=2)
    report = train_unit_reader(readers.spoken(9, seed=0), [], readers.CONFIG, tmp_path / "reader", read)
    assert report["held_out_rows"] == 0 and report["held_out_character_error_rate"] is None
    assert reading_error_rate(readers.tiny(), [("5", [1])]) is None


def test_a_training_starts_from_the_weights_of_a_model(tmp_path: Path) -> None:
    short, still = replace(decoders.RECIPE, steps=2), replace(decoders.RECIPE, steps=1, seed=5, learning_rate=0.0)
    read, read_still = replace(readers.RECIPE, steps=2), replace(readers.RECIPE, steps=1, seed=5, learning_rate=0.0)
    sizes = decoders.CONFIG, decoders.TOKENIZER
    rows, read_rows = decoders.spoken(9, seed=0), readers.spoken(9, seed=0)
    train_t2c(rows, [], *sizes, tmp_path / "decoder", short)
    train_t2c(rows, [], *sizes, tmp_path / "decoder-again", still, start=tmp_path / "decoder")
    train_unit_reader(read_rows, [], readers.CONFIG, tmp_path / "reader", read)
    train_unit_reader(read_rows, [], readers.CONFIG, tmp_path / "again", read_still, start=tmp_path / "reader")
    for one, other in (("decoder", "decoder-again"), ("reader", "again")):
        begun, again = (load_file(tmp_path / name / "model.safetensors") for name in (one, other))
        assert begun.keys() == again.keys() and all(torch.equal(begun[key], again[key]) for key in begun)
    with pytest.raises(TrainingError, match="another recipe"):  # random weights are another start
        train_t2c(rows, [], *sizes, tmp_path / "decoder-again", still)


def test_a_model_of_other_sizes_is_no_start(tmp_path: Path) -> None:
    rows = decoders.spoken(9, seed=0)
    with pytest.raises(ModelError, match=r"surplus .*set `model` to the sizes in its config\.json"):
        train_t2c(
            rows,
            [],
            decoders.CONFIG,
            decoders.TOKENIZER,
            tmp_path,
            decoders.RECIPE,
            start=asset("embedded:english-t2c"),
        )
    with pytest.raises(ModelError, match="nowhere"):
        train_unit_reader(
            readers.spoken(9, seed=0), [], readers.CONFIG, tmp_path, readers.RECIPE, start=tmp_path / "nowhere"
        )
    assert not list(tmp_path.iterdir())


def test_no_rows_to_train_on(echox: EchoX, prompt: PromptTemplate, tmp_path: Path) -> None:
    trainings = [
        lambda: Batches([], RunRecipe()),
        lambda: train_t2c([], [], decoders.CONFIG, decoders.TOKENIZER, tmp_path, decoders.RECIPE),
        lambda: train_unit_reader([], [], readers.CONFIG, tmp_path, readers.RECIPE),
        lambda: train_echo([], [], echox, tmp_path, EchoRecipe()),
        lambda: train_s2t([], [], echox.config, tokenizer_of(echox), prompt, tmp_path, S2TRecipe()),
    ]
    for train in trainings:
        with pytest.raises(UserError, match="no rows to train on: publish rows of another split than test"):
            train()

"""Rates of nothing are None, and a training without rows is an error of the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.training.echo import EchoMeasures, EchoRecipe, echo_measures, train_echo
from echo_targets.transforms.training.loop import Batches, RunRecipe, share_of
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

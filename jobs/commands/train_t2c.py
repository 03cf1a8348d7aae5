"""`echo-targets train t2c`: train a text-to-codec decoder, of its own or of an EchoX model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from echo_targets.jobs.arguments import ModelOut, Overrides, Root
from echo_targets.jobs.config import ConfigError, find
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.train_inputs import (
    TEMPLATE,
    RecipeConfig,
    TrainConfig,
    chosen_config,
    counted_with_borders,
    load_echox,
    t2c_rows,
)
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.models.t2c.config import T2CConfig
from echo_targets.transforms.models.t2c.model import character_tokenizer
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.training.echo import TranslatorRecipe, train_unit_translator
from echo_targets.transforms.training.t2c import Recipe, train_t2c


class TranslatorTrainConfig(RecipeConfig[TranslatorRecipe]):
    """Configuration of stage II.

    Attributes:
        segments: rule that cuts replies into training segments, as in the echo stage; null trains on whole replies.
    """

    segments: SegmentRule | None = SegmentRule()


def train_t2c_command(
    root: Root,
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Model sizes and recipe: a YAML file or the name of a shipped configuration. Default: train-t2c, or "
            "train-unit-translator with --language-model."
        ),
    ] = None,
    language_model: Annotated[
        str | None,
        typer.Option(help="EchoX directory of stage I (`train s2t`): provides tokenizer, embeddings and sizes."),
    ] = None,
) -> int:
    """Train a text-to-codec decoder on `training/t2c`; rows of the `test` split are held out and evaluated.

    With --language-model, train stage II of an EchoX model: OUT gets the language model with the trained decoder.

    Example: echo-targets train t2c out/nano out/nano-t2c recipe.steps=9000

    Example: echo-targets train t2c out/nano-corpus out/nano-stage2 --language-model out/nano-s2t
    """
    if language_model:
        return _train_unit_translator(root, out, overrides or [], config or "train-unit-translator", language_model)
    path = find(config or "train-t2c")
    chosen = chosen_config(TrainConfig[Recipe], path, overrides or [])
    rows, held_out, _, size = t2c_rows(Dataset(root))
    tokenizer = character_tokenizer()
    ids = {name: [tokenizer.token_to_id(token) for token in TEMPLATE[name]] for name in ("prefix", "middle")}
    try:
        sizes = T2CConfig(
            text_vocab_size=tokenizer.get_vocab_size(),
            unit_vocab_size=size,
            prefix_ids=ids["prefix"],
            middle_ids=ids["middle"],
            end_id=tokenizer.token_to_id(str(TEMPLATE["end"])),
            **chosen.model,
        )
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: model: {error}") from None
    console = open_console()
    console.print(counted_with_borders(rows, held_out))
    report = train_t2c(
        rows, held_out, sizes, tokenizer, Path(out), chosen.recipe, chosen.half_precision, chosen.start_dir
    )
    console.print_json(json.dumps(report))
    return 0


def _train_unit_translator(root: str, out: str, overrides: list[str], config: str, language_model: str) -> int:
    """Train stage II on a stage I directory, evaluate it on the held-out rows, and print the report."""
    path = find(config)
    chosen = chosen_config(TranslatorTrainConfig, path, overrides)
    echox = load_echox(language_model)
    rows, held_out, _, size = t2c_rows(Dataset(root))
    if size > echox.config.unit_vocab_size:
        raise ConfigError(
            f"{root}: the codebook has {size} units, but {language_model} has unit_vocab_size "
            f"{echox.config.unit_vocab_size}. Run `train s2t` with model.unit_vocab_size={size} model.units={size}."
        )
    console = open_console()
    console.print(counted_with_borders(rows, held_out))
    report = train_unit_translator(
        rows, held_out, echox, Path(out), chosen.recipe, chosen.half_precision, chosen.segments
    )
    console.print_json(json.dumps(report))
    return 0

"""`echo-targets train s2t`: stage I of training an EchoX model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from echo_targets.jobs.arguments import ModelOut, Overrides, Root
from echo_targets.jobs.config import ConfigError, find
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.train_inputs import TEMPLATE, TrainConfig, chosen_config, counted, split_rows, table_of
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.echox.tokenizer import AUDIO_PATCH, END, PAD, byte_level_tokenizer
from echo_targets.transforms.training.s2t import S2TRecipe, S2TRow, train_s2t


class S2TTrainConfig(TrainConfig[S2TRecipe]):
    """Configuration of stage I; `model` takes the keys of an EchoX checkpoint's `config.json`.

    Attributes:
        vocab_size: maximum vocabulary size of the tokenizer to train.
        prompt: prompt template file, or `embedded:NAME`.
    """

    vocab_size: int
    prompt: str


def train_s2t_command(
    root: Root,
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(help="Model sizes and recipe: a YAML file or the name of a shipped configuration.")
    ] = "train-s2t",
) -> int:
    """Train stage I of an EchoX model, speech-to-text, on `training/s2t`; rows of the `test` split are held out.

    Each row is a one-turn dialogue: the audio and text of the user turn, and the reply. The model gets its own
    tokenizer and an untrained unit decoder; continue with `train t2c --language-model` and `train echo`.

    Example: echo-targets train s2t out/nano-corpus out/nano-s2t recipe.steps=11000
    """
    path = find(config)
    chosen = chosen_config(S2TTrainConfig, path, overrides or [])
    columns = [KEY, "audio", "num_samples", "text", "response_text", "system_text", "split"]
    table = table_of(Dataset(root), "training/s2t", columns, "publish_s2t")
    with_reply = table.filter(table["response_text"].is_valid())
    if not len(with_reply):
        raise ConfigError(f"{root}: no row of training/s2t has a reply. Ingest dialogues with assistant turns.")
    rows, held_out = split_rows(with_reply, _s2t_row)
    tokenizer = byte_level_tokenizer(
        (text for row in rows for text in (row.text, row.response_text, row.system_text) if text), chosen.vocab_size
    )
    numbers = {name: tokenizer.token_to_id(name) for name in tokenizer.get_vocab()}
    try:
        sizes = EchoXConfig.model_validate(
            {
                "vocab_size": tokenizer.get_vocab_size(),
                "eos_token_id": numbers[END],
                "pad_token_id": numbers[PAD],
                "audio_patch_id": numbers[AUDIO_PATCH],
                "period_id": numbers["."],
                "unit_prefix_ids": [numbers[token] for token in TEMPLATE["prefix"]],
                "unit_middle_ids": [numbers[token] for token in TEMPLATE["middle"]],
                "unit_end_id": numbers[str(TEMPLATE["end"])],
                **chosen.model,
            }
        )
        _ = sizes.unit_decoder
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: model: {error}") from None
    prompt = PromptTemplate.load(asset(chosen.prompt), tokenizer)
    console = open_console()
    left_out = len(table) - len(with_reply)
    console.print(f"{counted(rows, held_out)}, {left_out} without a reply skipped")
    report = train_s2t(rows, held_out, sizes, tokenizer, prompt, Path(out), chosen.recipe, chosen.half_precision)
    console.print_json(json.dumps(report))
    return 0


def _s2t_row(row: dict[str, Any]) -> S2TRow:
    return S2TRow(
        row[KEY], row["audio"]["bytes"], row["num_samples"], row["text"], row["response_text"], row["system_text"]
    )

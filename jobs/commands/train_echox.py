"""`echo-targets train s2t`, `train t2c --language-model` and `train echo`: the three stages of training an EchoX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from echo_targets.jobs.commands.train import (
    HELD_OUT,
    TEMPLATE,
    RecipeConfig,
    TrainConfig,
    chosen_config,
    counted,
    split_rows,
    t2c_rows,
    table_of,
)
from echo_targets.jobs.config import ConfigError, find
from echo_targets.jobs.screen import open_console
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.echox.collate import KDRow, single_codebook
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.echox.tokenizer import AUDIO_PATCH, END, PAD, byte_level_tokenizer
from echo_targets.transforms.models.t2c.config import SPELLED
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.training.echo import (
    EchoRecipe,
    EchoRow,
    TranslatorRecipe,
    train_echo,
    train_unit_translator,
)
from echo_targets.transforms.training.s2t import S2TRecipe, S2TRow, train_s2t
from echo_targets.transforms.training.shared import tokenizer_of


class S2TTrainConfig(TrainConfig[S2TRecipe]):
    """Configuration of stage I; `model` takes the keys of an EchoX checkpoint's `config.json`.

    Attributes:
        vocab_size: maximum vocabulary size of the tokenizer to train.
        prompt: prompt template file, or `embedded:NAME`.
    """

    vocab_size: int
    prompt: str


class TranslatorTrainConfig(RecipeConfig[TranslatorRecipe]):
    """Configuration of stage II.

    Attributes:
        segments: rule that cuts replies into training segments, as in the echo stage; null trains on whole replies.
    """

    segments: SegmentRule | None = SegmentRule()


class EchoTrainConfig(RecipeConfig[EchoRecipe]):
    """Configuration of stage III.

    Attributes:
        prompt: prompt template file, or `embedded:NAME`; must be the one that the rows were made with.
    """

    prompt: str


def train_s2t_command(root: str, out: str, config: str, overrides: list[str]) -> int:
    """Train stage I, evaluate it on the held-out rows, and print the report."""
    path = find(config)
    chosen = chosen_config(S2TTrainConfig, path, overrides)
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
    console.print(
        f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out, "
        f"{left_out} without a reply skipped"
    )
    report = train_s2t(rows, held_out, sizes, tokenizer, prompt, Path(out), chosen.recipe, chosen.half_precision)
    console.print_json(json.dumps(report))
    return 0


def train_unit_translator_command(root: str, out: str, config: str, overrides: list[str], language_model: str) -> int:
    """Train stage II on a stage I directory, evaluate it on the held-out rows, and print the report."""
    path = find(config)
    chosen = chosen_config(TranslatorTrainConfig, path, overrides)
    echox = _echox(language_model)
    rows, held_out, _, size = t2c_rows(Dataset(root))
    if size > echox.config.unit_vocab_size:
        raise ConfigError(
            f"{root}: the codebook has {size} units, but {language_model} has unit_vocab_size "
            f"{echox.config.unit_vocab_size}. Run `train s2t` with model.unit_vocab_size={size} model.units={size}."
        )
    console = open_console()
    console.print(counted(rows, held_out))
    report = train_unit_translator(
        rows, held_out, echox, Path(out), chosen.recipe, chosen.half_precision, chosen.segments
    )
    console.print_json(json.dumps(report))
    return 0


def train_echo_command(root: str, model: str, out: str, config: str, overrides: list[str]) -> int:
    """Train stage III, evaluate it on the held-out rows, and print the report."""
    path = find(config)
    chosen = chosen_config(EchoTrainConfig, path, overrides)
    echox = _echox(model)
    prompt = PromptTemplate.load(asset(chosen.prompt), tokenizer_of(echox))
    names = "audio num_samples split user_audio_ids asr_target_ids prompt_template_id tokenizer_id response_token_ids"
    columns = [KEY, *names.split(), "system_text", "sub_lengths", "num_codebooks", "unit_targets"]
    table = table_of(Dataset(root), "training/echo", columns, "publish_echo")
    expected = {
        "tokenizer_id": f"tokenizer-{sha256_of(Path(model) / 'tokenizer.json')[:8]}",
        "prompt_template_id": prompt.id,
    }
    for name, value in expected.items():
        if others := set(table[name].to_pylist()) - {value}:
            raise ConfigError(
                f"{root}: training/echo was made with {name} {', '.join(sorted(others))}, but {model} with prompt "
                f"{chosen.prompt} has {value}. Run the echo stage with this model and prompt."
            )
    tokenizer = tokenizer_of(echox)
    rows, held_out = split_rows(table, lambda row: _echo_row(row, prompt.around_audio(tokenizer, row["system_text"])))
    console = open_console()
    console.print(f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out")
    report = train_echo(rows, held_out, echox, Path(out), chosen.recipe, chosen.half_precision)
    console.print_json(json.dumps(report))
    return 0


def _echox(path: str) -> EchoX:
    """Load a checkpoint that can be trained on rows of single units."""
    if EchoXConfig.read(Path(path)).unit_spellings is not None:
        raise ConfigError(f"{path}: {SPELLED}")
    echox = EchoX.load(Path(path))
    if echox.tokenizer is None:
        raise ConfigError(f"{path}: no tokenizer.json. Name a directory that `train s2t` wrote.")
    return echox


def _echo_row(row: dict[str, Any], prompt: tuple[list[int], list[int]]) -> EchoRow:
    if len(row["user_audio_ids"]) != 1:
        raise ConfigError(
            f"training/echo: {row[KEY]} has {len(row['user_audio_ids'])} user turns of audio; the trainer supports one"
        )
    kd = KDRow(prompt, [row["asr_target_ids"]], row["response_token_ids"], row["sub_lengths"], single_codebook(row))
    return EchoRow(row[KEY], row["audio"]["bytes"], row["num_samples"], kd)


def _s2t_row(row: dict[str, Any]) -> S2TRow:
    return S2TRow(
        row[KEY], row["audio"]["bytes"], row["num_samples"], row["text"], row["response_text"], row["system_text"]
    )

"""`echo-targets train echo`: stage III of training an EchoX model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from echo_targets.jobs.arguments import ModelOut, Overrides, Root
from echo_targets.jobs.config import ConfigError, find
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.train_inputs import RecipeConfig, chosen_config, counted, load_echox, split_rows, table_of
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.echox.collate import KDRow, single_codebook
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.training.echo import EchoRecipe, EchoRow, train_echo
from echo_targets.transforms.training.shared import tokenizer_of


class EchoTrainConfig(RecipeConfig[EchoRecipe]):
    """Configuration of stage III.

    Attributes:
        prompt: prompt template file, or `embedded:NAME`; must be the one that the rows were made with.
    """

    prompt: str


def train_echo_command(
    root: Root,
    model: Annotated[
        str, typer.Argument(help="EchoX directory after stages I and II; the model that the echo stage ran with.")
    ],
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(help="Recipe: a YAML file or the name of a shipped configuration.")
    ] = "train-echo",
) -> int:
    """Train stage III of an EchoX model on `training/echo`: predict the unit targets from hidden states.

    Rows of the `test` split are held out; units and hidden states are evaluated on them before and after training.

    Example: echo-targets train echo out/nano-corpus out/nano-stage2 out/nano-echox recipe.steps=3000
    """
    path = find(config)
    chosen = chosen_config(EchoTrainConfig, path, overrides or [])
    echox = load_echox(model)
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
    console.print(counted(rows, held_out))
    report = train_echo(rows, held_out, echox, Path(out), chosen.recipe, chosen.half_precision)
    console.print_json(json.dumps(report))
    return 0


def _echo_row(row: dict[str, Any], prompt: tuple[list[int], list[int]]) -> EchoRow:
    if len(row["user_audio_ids"]) != 1:
        raise ConfigError(
            f"training/echo: {row[KEY]} has {len(row['user_audio_ids'])} user turns of audio; the trainer supports one"
        )
    kd = KDRow(prompt, [row["asr_target_ids"]], row["response_token_ids"], row["sub_lengths"], single_codebook(row))
    return EchoRow(row[KEY], row["audio"]["bytes"], row["num_samples"], kd)

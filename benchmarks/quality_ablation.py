"""Compare echo decoders trained with the same recipe and steps on different targets, by reading their units back.

python -m benchmarks.quality_ablation ROOT --model DIR --reader DIR --out DIR [--steps 1000] [--limit N]

The targets are the recorded units of the reply, T2C's units for the reply's text, and T2C's units for the text that the
hidden states spell. A reply is one segment in all three cases, so that only the units differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.dialogues import ONE_SEGMENT, Dialogues, Row, error_rate, joined_units, segments_of, spoken_error_rate
from echo_targets.jobs.commands.train_echo import EchoTrainConfig
from echo_targets.jobs.config import find
from echo_targets.jobs.train_inputs import chosen_config
from echo_targets.schemas import KEY
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.collate import KDRow
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.readers.ctc import UnitReader
from echo_targets.transforms.training.echo import EchoRow, train_echo

Targets = Mapping[str, Mapping[str, Row]]
"""Rows of echo_targets by kind of target and key."""


def targets_of(model: str, dialogues: Dialogues) -> Targets:
    """Return the three kinds of targets for the same dialogues."""
    made = {
        f"T2C on {text} text": dialogues.echoed(model=model, text=said, segments=ONE_SEGMENT)
        for text, said in (("reference", "response"), ("hidden-state", "hidden"))
    }
    recorded = {key: row | row["recorded"] for key, row in made["T2C on reference text"].items() if row["recorded"]}
    found = {"recorded units": recorded, **made}
    keys = set.intersection(*(set(rows) for rows in found.values()))
    return {name: {key: row for key, row in rows.items() if key in keys} for name, rows in found.items()}


def trained(
    model: str, dialogues: Dialogues, targets: Mapping[str, Row], out: Path, settings: EchoTrainConfig
) -> dict[str, Any]:
    """Train an echo decoder on the dialogues' targets with the shipped recipe, except for its steps."""
    echox = EchoX.load(Path(model))
    tokenizer = echox.tokenizer
    assert tokenizer is not None
    template = PromptTemplate.load(asset(settings.prompt), tokenizer)
    prompt = template.around_audio(tokenizer)
    rows = []
    for question, audio in zip(dialogues.questions, dialogues.audio(), strict=True):
        if row := targets.get(question[KEY]):
            tokens, lengths = row["response_token_ids"], row["sub_lengths"]
            kd = KDRow(prompt, [row["asr_target_ids"]], tokens, lengths, segments_of(row))
            rows.append(EchoRow(question[KEY], audio, question["num_samples"], kd))
    return train_echo(rows, [], echox, out, settings.recipe)


def table(root: str, model: str, reader: UnitReader, out: Path, steps: int, limit: int | None) -> Iterator[str]:
    """Train on and evaluate each kind of target, and yield a table line for each."""
    changes = [f"recipe.steps={steps}", f"recipe.decay_steps={max(1, steps // 2)}"]
    settings = chosen_config(EchoTrainConfig, find("train-echo"), changes)
    train, test = (Dialogues.read(root, split, limit) for split in ("train", "test"))
    to_train_on, held_out = targets_of(model, train), targets_of(model, test)
    recorded = {question[KEY]: question["units"] for question in test.questions}
    for name, targets in to_train_on.items():
        folder = out / name.replace(" ", "-")
        loss = trained(model, train, targets, folder, settings)["final_loss"]
        said = test.echoed(model=str(folder), text="hidden", origin="echo", segments=ONE_SEGMENT)
        pairs = [(joined_units(said[key]), recorded[key]) for key in said if recorded.get(key)]
        values = spoken(reader, held_out[name]), spoken(reader, said), error_rate(pairs)
        shown = (f"{value:.1%}" if value is not None else "" for value in values)
        yield f"| {name} | {len(targets):,} | {loss:.3f} | {len(said):,} | {' | '.join(shown)} |"


def spoken(reader: UnitReader, rows: Mapping[str, Row]) -> float | None:
    """Return the target_cer of rows of echo_targets."""
    return spoken_error_rate(reader, [(row["response_text"], segments_of(row)) for row in rows.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", help="root of a nano corpus with utterances and units")
    parser.add_argument("--model", required=True, help="an EchoX checkpoint before stage III")
    parser.add_argument("--reader", required=True, help="a unit reader")
    parser.add_argument("--out", required=True, help="folder for the three models")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--limit", type=int, help="use only the first N dialogues of each split")
    chosen = parser.parse_args()
    print(f"{chosen.steps} steps each\n")
    print(
        "| trained on | rows | loss | held out | target_cer of such targets | of the echo decoder | its unit errors |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    reader = UnitReader.load(Path(chosen.reader))
    for line in table(chosen.root, chosen.model, reader, Path(chosen.out), chosen.steps, chosen.limit):
        print(line, flush=True)


if __name__ == "__main__":
    main()

"""The batch of EchoX's trainer (`finetune_kd`), made from the rows that shards hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from echo_targets.schemas import KEY
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.t2c.config import SPELLED

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
NO_SEGMENT = -1


@dataclass(frozen=True)
class KDRow:
    """A dialogue up to one reply.

    Attributes:
        prompt: tokens around the audio: before the first turn's, between turns', and after the last turn's.
        asr_targets: tokens of each turn's transcript.
        response_ids: tokens of the reply, without the end.
        sub_lengths: text tokens of each segment of the reply; their sum is the reply's length.
        unit_targets: raw unit ids of each segment.
        audios: log-mel of each turn, (mels, frames) of equal length; None if the audio is added elsewhere.
    """

    prompt: Sequence[Sequence[int]]
    asr_targets: Sequence[Sequence[int]]
    response_ids: Sequence[int]
    sub_lengths: Sequence[int]
    unit_targets: Sequence[Sequence[int]]
    audios: Sequence[Tensor] | None = None


def single_codebook(row: Mapping[str, Any]) -> list[Sequence[int]]:
    """Return the units of each segment of a row of training/echo.

    Raises:
        ValueError: the row has several codebooks, and EchoX's trainer learns one.
    """
    if row["num_codebooks"] != 1:
        raise ValueError(
            f"{row[KEY]} has units of {row['num_codebooks']} codebooks, but EchoX learns one: run publish_echo with a "
            "target of one codebook"
        )
    return [segment[0] for segment in row["unit_targets"]]


def collate_kd(rows: Sequence[KDRow], config: EchoXConfig) -> dict[str, Tensor]:
    """Return rows as a batch of int64 tensors.

    Returns:
        `input_ids` and `labels` (B, T): the prompt with one placeholder per turn, the reply and its end; only the
        reply's tokens are labels. `asr_targets` (B, turns, A). `sub_lengths` (B, S), padded with -1.
        `unit_targets` (B, S, L): the header of a turn of units, `vocab_size` + unit, and the end.
        `assistant_after_audio_shifts` (B,): from the last placeholder to the prompt's last token. `audios`
        (B, turns, mels, frames), float, if the rows have them; zero for missing turns.
        All else is padded with -100, and `input_ids` with the padding token.

    Raises:
        ValueError: a row's turns, prompt and segments do not match, or the model's unit decoder decodes words of units.
    """
    end = config.end_ids[0]
    header, first_unit = config.unit_middle_ids[1:], config.vocab_size
    for row in rows:
        _check(row, config)
    prompts = [_joined(row.prompt, config.audio_patch_id) for row in rows]
    inputs = [[*prompt, *row.response_ids, end] for prompt, row in zip(prompts, rows, strict=True)]
    labels = [[*[IGNORED] * len(prompt), *row.response_ids] for prompt, row in zip(prompts, rows, strict=True)]
    units = [
        [[*header, *(first_unit + int(unit) for unit in units), config.unit_end_id] for units in row.unit_targets]
        for row in rows
    ]
    longest = max(map(len, inputs))
    batch = {
        "input_ids": _padded(inputs, end if config.pad_token_id is None else config.pad_token_id),
        "labels": _padded(labels, IGNORED, longest),
        "asr_targets": _padded_twice([row.asr_targets for row in rows]),
        "sub_lengths": _padded([row.sub_lengths for row in rows], NO_SEGMENT),
        "unit_targets": _padded_twice(units),
        "assistant_after_audio_shifts": _padded([[len(row.prompt[-1])] for row in rows], IGNORED)[:, 0],
    }
    audios = [row.audios for row in rows if row.audios is not None]
    if audios:
        if len(audios) != len(rows):
            raise ValueError("some rows have audio and some do not")
        batch["audios"] = _stacked(audios)
    return batch


def _check(row: KDRow, config: EchoXConfig) -> None:
    if config.unit_spellings is not None:
        raise ValueError(SPELLED)
    turns = len(row.asr_targets)
    if len(row.prompt) != turns + 1 or (row.audios is not None and len(row.audios) != turns):
        raise ValueError(f"{turns} turns need {turns + 1} parts of a prompt, and {turns} audios if any")
    if sum(row.sub_lengths) != len(row.response_ids) or len(row.sub_lengths) != len(row.unit_targets):
        raise ValueError(
            f"segments of {list(row.sub_lengths)} tokens with {len(row.unit_targets)} lists of units do not match "
            f"a reply of {len(row.response_ids)} tokens"
        )
    units = list(chain.from_iterable(row.unit_targets))
    if units and not 0 <= min(units) <= max(units) < config.unit_vocab_size:
        raise ValueError(f"units must be in [0, {config.unit_vocab_size}): raw ids, without the trainer's offset")


def _joined(parts: Sequence[Sequence[int]], placeholder: int) -> list[int]:
    ids = list(parts[0])
    for part in parts[1:]:
        ids += [placeholder, *part]
    return ids


def _padded(rows: Sequence[Sequence[int]], padding: int, length: int = 0) -> Tensor:
    import torch

    length = max([length, *map(len, rows)])
    return torch.tensor([[*row, *[padding] * (length - len(row))] for row in rows], dtype=torch.long)


def _padded_twice(rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    most = max(map(len, rows))
    filled = [[*row, *[[]] * (most - len(row))] for row in rows]
    flat = _padded([part for row in filled for part in row], IGNORED)
    return flat.reshape(len(rows), most, flat.shape[1])


def _stacked(audios: Sequence[Sequence[Tensor]]) -> Tensor:
    import torch

    most = max(map(len, audios))
    rows = [torch.stack(list(turns)) for turns in audios]
    return torch.stack([torch.cat([row, row.new_zeros(most - len(row), *row.shape[1:])]) for row in rows])

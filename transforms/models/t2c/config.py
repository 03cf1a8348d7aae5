"""Sizes of a text-to-codec model, and the result of decoding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, field_validator, model_validator

from echo_targets.transforms.models.checkpoints.llama_config import Activation, check_heads, checked_rope_scaling
from echo_targets.transforms.segments.rule import SegmentRule

StopReason = Literal["end", "length", "repetition"]
LOOP_WINDOW, LOOP_PERIOD = 32, 8
SPELLED = (
    "the unit decoder's ids are words of units, such as `<|unit_837_81_194|>`, and training rows hold single units. "
    "Take a model in which id k is unit k (`spellings: null`), such as one that `echo-targets train s2t` makes"
)


class T2CConfig(BaseModel):
    """Sizes, and the template around a text: `prefix_ids`, text, `middle_ids`, units, `end_id`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_vocab_size: PositiveInt
    unit_vocab_size: PositiveInt
    units: PositiveInt | None = None  # how many of them are decoded; null for all
    text_embedding_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    ffn_size: PositiveInt
    head_dim: PositiveInt | None = None  # null for hidden_size / num_heads
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    max_positions: PositiveInt = 2048
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: dict[str, Any] | None = None  # as transformers' LlamaConfig takes it
    rms_norm_eps: PositiveFloat = 1e-6
    prefix_ids: list[int]
    middle_ids: list[int]
    end_id: int
    max_units_per_text_token: PositiveFloat = 40.0  # a longer output is a runaway
    units_per_text_token: PositiveFloat | None = None  # see T2CModule.positions
    segments: SegmentRule | None = None  # rule that cut texts in training and cuts them in echo; null if unknown
    spellings: dict[int, str] | None = None  # by id, such as "_837_81_194"; null: unit k is text_vocab_size + k
    frames: bool = False  # decodes a unit for each frame; false: runs of equal frames are one unit
    max_duration: PositiveInt | None = None  # predicts how many frames each collapsed unit lasts, at most this; or null

    _rope_scaling = field_validator("rope_scaling")(checked_rope_scaling)

    @model_validator(mode="after")
    def _heads(self) -> T2CConfig:
        check_heads(self.hidden_size, self.num_heads, self.num_kv_heads, self.head_dim)
        return self

    @model_validator(mode="after")
    def _one_way_to_durations(self) -> T2CConfig:
        if (self.frames or self.max_duration) and self.spellings is not None:
            raise ValueError("a decoder of words of units has neither frames nor max_duration")
        if self.frames and self.max_duration:
            raise ValueError("frames have no durations to predict: set one of frames and max_duration")
        return self

    @property
    def repeats(self) -> bool:
        """True if an id may follow itself: a frame or a word of units may, a collapsed unit may not."""
        return self.frames or self.spellings is not None

    @property
    def num_units(self) -> int:
        """Number of units; decoded units are below it."""
        if self.spellings is None:
            return min(self.units or self.unit_vocab_size, self.unit_vocab_size)
        numbers = (int(number) for spelling in self.spellings.values() for number in re.findall("[0-9]+", spelling))
        return 1 + max((number for number in numbers if self.units is None or number < self.units), default=0)

    @property
    def decodable(self) -> list[int]:
        """Ids of the whole vocabulary that may be decoded, in addition to `end_id`."""
        if self.spellings is not None:
            return sorted(self.spellings)
        first = self.text_vocab_size
        return list(range(first, first + self.num_units))

    def spelled(self, ids: Sequence[int]) -> list[int]:
        """Return ids of the whole vocabulary as units. If ids are unit words, equal neighbors are merged."""
        if self.spellings is None:
            return [number - self.text_vocab_size for number in ids]
        # Joined before parsing, as in the release: a number may span several ids.
        numbers = map(int, re.findall("[0-9]+", "".join(self.spellings[number] for number in ids)))
        return [unit for unit, _ in groupby(unit for unit in numbers if self.units is None or unit < self.units)]

    def prompt(self, text_ids: list[int]) -> list[int]:
        """Return the ids before the first unit."""
        return [*self.prefix_ids, *text_ids, *self.middle_ids]


class Chosen(NamedTuple):
    """A decoded row: ids of the whole vocabulary without the end, and the log-probability of every choice.

    `durations` are the frames of each id, if the model predicts them.
    """

    ids: list[int]
    logprobs: list[float]
    stop_reason: StopReason
    durations: list[int] | None = None


class Decoded(NamedTuple):
    """Units of one text without equal neighbors, and the mean log-probability of the choices, including the end's.

    `durations` are the frames of each unit, if the model decodes frames or predicts them.
    """

    units: list[int]
    mean_logprob: float
    stop_reason: StopReason
    durations: list[int] | None = None


def looping_frames(ids: list[int]) -> int:
    """Return how many frames at the end only repeat earlier ones, apart from how long each unit lasts."""
    runs = [(unit, len(list(frames))) for unit, frames in groupby(ids)]
    tail = looping_tail([unit for unit, _ in runs])
    return sum(count for _, count in runs[len(runs) - tail :])


def looping_tail(ids: list[int]) -> int:
    """Return how many ids at the end only repeat earlier ones; 0 if the last `LOOP_WINDOW` ids are not periodic."""
    window = ids[-LOOP_WINDOW:]
    if len(window) < LOOP_WINDOW:
        return 0
    periods = (period for period in range(1, LOOP_PERIOD + 1) if window[period:] == window[:-period])
    period = next(periods, 0)
    return LOOP_WINDOW - period if period else 0

"""The interface of a responder: it replies to user turns and decodes the units of replies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from echo_targets.transforms.assets import asset
from echo_targets.transforms.base import Reject
from echo_targets.transforms.models.t2c.config import Decoded, StopReason
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.stages.echo.parameters import EchoParameters, Origin

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor


@dataclass(frozen=True)
class UserTurn:
    """A user turn, and the dialogue before it.

    Attributes:
        key: the turn's key; it seeds sampling.
        audio: the user turns so far, this one last, (num_samples,) float32 at 16 kHz; empty for a responder without
            `wants_audio`.
        replies: the replies to all turns but this one.
        reply: the given reply; None if it is to be generated. All rows of a batch are alike in this.
        system_text: the dialogue's system text; None for that of the prompt template.
    """

    key: str
    audio: list[np.ndarray]
    replies: list[str]
    reply: str | None
    system_text: str | None = None


@dataclass(frozen=True)
class Answer:
    """A reply, token by token.

    Attributes:
        text: what the tokens spell.
        ids: tokens.
        char_ends: exclusive end of each token in `text`, in characters.
        scores: the streaming rule's score of each token.
        states: (len(ids), hidden_size) hidden states that predict the tokens; None without a language model.
        stop_reason: why the reply ended.
    """

    text: str
    ids: list[int]
    char_ends: list[int]
    scores: list[float]
    states: Tensor | None = None
    stop_reason: StopReason = "end"


@dataclass(frozen=True)
class Segment:
    """Tokens `start` to `end` of an answer."""

    answer: Answer
    start: int
    end: int

    @property
    def ids(self) -> list[int]:
        return self.answer.ids[self.start : self.end]


class Responder(ABC):
    """A model that replies to user turns and decodes the units of replies. Rows do not depend on their batch.

    Nothing is loaded before `setup`.

    Attributes:
        wants_audio: True if it encodes the audio of user turns.
        path: the model's directory.
        model_id: identifies the model; stored with every row. Set by `setup`, like the next two.
        tokenizer: tokenizer of the replies.
        num_units: number of units; decoded units are below it.
    """

    wants_audio: ClassVar[bool]
    model_id: str
    tokenizer: Tokenizer
    num_units: int

    def __init__(self, parameters: EchoParameters, device: str) -> None:
        """Check the parameters against the model's kind.

        Raises:
            ModelError: they ask for what this kind of model does not do.
        """
        self.parameters, self.device = parameters, device
        self.path = asset(parameters.model)

    @staticmethod
    @abstractmethod
    def can_load(path: Path) -> bool:
        """Return True if this class can load the model's directory. Reads only its config file."""

    @abstractmethod
    def weight_digests(self) -> dict[str, str]:
        """Return names and digests of the files that shape the model's output. Loads nothing."""

    @abstractmethod
    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: it is missing or damaged.
        """

    @property
    def segment_rule(self) -> SegmentRule:
        """The rule by which replies are cut into segments."""
        return self.parameters.segments or SegmentRule()

    def with_audio(self, users: pa.Table, window: pa.Table, audio_ids: list[list[str]]) -> pa.Table:
        """Add the encoded audio that the model needs to the rows.

        Args:
            users: user turns.
            window: utterances, with their audio if `wants_audio`.
            audio_ids: for each user turn, the keys of the turns that the model encodes.
        """
        return users

    def prepare(self, batch: pa.Table) -> pa.Table:
        """Decode the audio that `with_audio` added. Runs in a thread, ahead of the model."""
        return batch

    def waveforms(self, batch: pa.Table) -> tuple[pa.Table, list[list[np.ndarray]]]:
        """Return a prepared batch without its audio, and the audio of each row's turns."""
        return batch, [[] for _ in range(len(batch))]

    def audio_costs(self, rows: pa.Table) -> list[int]:
        """Return what encoding each row's audio costs, in 16 kHz samples."""
        return [0] * len(rows)

    def reject(self, turn: UserTurn) -> Reject | None:
        """Return why the model can't reply to a turn; None if it can."""
        return None

    def encode_audio(self, turns: Sequence[UserTurn]) -> list[list[Any]]:
        """Return each row's user turns as the model encodes them."""
        return [[] for _ in turns]

    def reject_prompt(self, turn: UserTurn, encoded: list[Any]) -> Reject | None:
        """Return why the dialogue is too much for the model, given its turns from `encode_audio`; None if it is not."""
        return None

    @abstractmethod
    def answer(self, turns: Sequence[UserTurn], encoded: Sequence[list[Any]]) -> list[Answer]:
        """Return the replies to user turns that `encode_audio` has encoded."""

    @abstractmethod
    def say(self, segments: Sequence[Segment], origin: Origin) -> list[Decoded]:
        """Return the units of each segment, as one of `DECODED` says them."""

    def agreement(self, answer: Answer) -> float | None:
        """Return the share of tokens that the hidden states spell too; None without hidden states."""
        return None

    def denoising_cosines(self, segments: Sequence[Segment]) -> list[float] | None:
        """Return each segment's mean cosine of denoised states with token embeddings; None without hidden states."""
        return None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

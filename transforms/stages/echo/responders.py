"""What answers a user's turn, and says the answer in units: a text-to-codec model alone, or EchoX from the speech."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.t2c.model import T2C, Decoded, StopReason, model_digest
from echo_targets.transforms.segments.rule import text_scores
from echo_targets.transforms.threads import side_by_side

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from echo_targets.transforms.models.echox.model import EchoX, Prompt
    from echo_targets.transforms.models.echox.network import Heard

Text = Literal["hidden", "response"]
Decoder = Literal["t2c", "echo"]


@dataclass(frozen=True)
class Asked:
    """A user's turn and the dialogue before it.

    Attributes:
        key: of the turn; random numbers are drawn from it.
        audio: the user's turns, this one last, float32 at 16 kHz; empty for who does not listen.
        replies: the replies to all turns but the last.
        reply: the reply that is given; None where one is to be generated, in all rows of a batch.
    """

    key: str
    audio: list[np.ndarray]
    replies: list[str]
    reply: str | None


@dataclass(frozen=True)
class Answer:
    """A reply, token by token.

    Attributes:
        text: what the tokens spell.
        ids: tokens.
        char_ends: exclusive end of each token in `text`, in characters.
        scores: the streaming cut's score of each token.
        states: (len(ids), hidden_size) hidden states that predict the tokens; None without a language model.
        stop_reason: how it came to its end.
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
        """Tokens."""
        return self.answer.ids[self.start : self.end]


@dataclass(frozen=True)
class Speech:
    """How segments become units.

    Attributes:
        text: whether T2C reads what the hidden states spell, or the reply's own text.
        decoder: T2C on text, or the echo decoder on hidden states.
        beams: hypotheses of the search; 1 is greedy.
        max_units: the most units of a segment.
    """

    text: Text
    decoder: Decoder
    beams: int
    max_units: int

    @property
    def id(self) -> str:
        """Stored with every row."""
        read = self.decoder if self.decoder == "echo" else f"{self.decoder}-{self.text}"
        return f"{read}-{'greedy' if self.beams == 1 else f'beam{self.beams}'}"


@dataclass(frozen=True)
class Sampling:
    """How the tokens of a generated reply are chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: tokens are sampled from the likeliest ones that have this probability together.
        seed: with a row's key it seeds what the row samples, so that no row depends on its batch.
    """

    temperature: float
    top_p: float
    seed: int

    def seed_of(self, key: str) -> int:
        """The seed of a row."""
        return zlib.crc32(f"{self.seed} {key}".encode())


class Responder(ABC):
    """Answers turns, and says segments of answers, in batches; no row depends on its neighbours.

    Attributes:
        id: of the model, stored with every row.
        tokenizer: of the replies.
        num_units: units that it says are below this.
    """

    id: str
    tokenizer: Tokenizer
    num_units: int

    def hear(self, turns: Sequence[Asked]) -> list[list[Heard]]:
        """The audio of user's turns as the model hears it; nothing for who does not listen."""
        return [[] for _ in turns]

    @abstractmethod
    def answer(self, turns: Sequence[Asked], heard: Sequence[list[Heard]]) -> list[Answer]:
        """The replies to user's turns that were heard."""

    @abstractmethod
    def say(self, segments: Sequence[Segment], speech: Speech) -> list[Decoded]:
        """Units of each segment."""

    def agreement(self, answer: Answer) -> float | None:
        """Share of tokens that the hidden states spell too."""
        return None

    def denoising_cosine(self, segment: Segment) -> float | None:
        """Mean cosine of the denoised states with the embeddings of the tokens."""
        return None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


class TextResponder(Responder):
    """A text-to-codec model: the reply is given, and cut by its text alone."""

    def __init__(self, path: Path, device: str) -> None:
        self._t2c = T2C.load(path, device)
        self.tokenizer = self._t2c.tokenizer
        self.num_units = self._t2c.config.num_units
        self.id = f"t2c-{model_digest(path)[:8]}"

    def answer(self, turns: Sequence[Asked], heard: Sequence[list[Heard]]) -> list[Answer]:
        return [self._given(turn.reply or "") for turn in turns]

    def _given(self, text: str) -> Answer:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        return Answer(text, list(encoding.ids), ends, text_scores(text, encoding.offsets))

    def say(self, segments: Sequence[Segment], speech: Speech) -> list[Decoded]:
        return self._t2c.generate([segment.ids for segment in segments], speech.max_units, speech.beams)


class EchoXResponder(Responder):
    """EchoX: hears the dialogue, predicts or writes the reply, and cuts it by its hidden states.

    Args:
        path: the checkpoint's directory.
        device: a torch device.
        dtype: what it computes in.
        prompt: file of the prompt template.
        max_tokens: the most tokens of a generated reply.
        sampling: how its tokens are chosen.
    """

    def __init__(self, path: Path, device: str, dtype: str, prompt: Path, max_tokens: int, sampling: Sampling) -> None:
        from echo_targets.transforms.models.checkpoints.files import digest
        from echo_targets.transforms.models.echox.model import EchoX

        self._device = device
        self._echox: EchoX = EchoX.load(path, device, dtype)
        if self._echox.tokenizer is None:
            raise ModelError(f"{path} has no tokenizer.json: put the language model's own beside its weights")
        self.tokenizer = self._echox.tokenizer
        self.num_units = self._echox.t2c.config.num_units
        self.id = f"echox-{digest(path)[:8]}"
        self._template = PromptTemplate.load(prompt, self.tokenizer)
        self._max_tokens, self._sampling = max_tokens, sampling

    @property
    def max_samples(self) -> int:
        """The longest turn it can hear, 16 kHz samples."""
        return self._echox.tower.max_samples

    def hear(self, turns: Sequence[Asked]) -> list[list[Heard]]:
        return side_by_side(self._echox.hear, [turn.audio for turn in turns], self._device)

    def answer(self, turns: Sequence[Asked], heard: Sequence[list[Heard]]) -> list[Answer]:
        if not turns:
            return []
        prompts = [self._echox.prompt(self._ids(turn), dialogue) for turn, dialogue in zip(turns, heard, strict=True)]
        generates = any(turn.reply is None for turn in turns)
        return self._generated(turns, prompts) if generates else self._given(turns, prompts)

    def _ids(self, turn: Asked) -> list[int]:
        ids = self._template.ids(self.tokenizer, [self.encode(reply) for reply in turn.replies])
        return [self._echox.config.audio_patch_id if token is None else token for token in ids]

    def _given(self, turns: Sequence[Asked], prompts: Sequence[Prompt]) -> list[Answer]:
        start = self._template.reply_start(self.tokenizer)
        encodings = [self.tokenizer.encode(turn.reply or "", add_special_tokens=False) for turn in turns]
        replies = [[*start, *encoding.ids] if encoding.ids else [] for encoding in encodings]
        ends = [[*[0] * len(start), *(end for _, end in encoding.offsets)] for encoding in encodings]
        states = self._echox.states(prompts, replies)
        return [
            Answer(turn.reply or "", ids, char_ends[: len(ids)], self._echox.trigger_scores(state), state)
            for turn, ids, char_ends, state in zip(turns, replies, ends, states, strict=True)
        ]

    def _generated(self, turns: Sequence[Asked], prompts: Sequence[Prompt]) -> list[Answer]:
        sampling = self._sampling
        seeds = [sampling.seed_of(turn.key) for turn in turns]
        answers = []
        for reply in self._echox.respond(prompts, self._max_tokens, sampling.temperature, sampling.top_p, seeds):
            ends = [len(self.tokenizer.decode(reply.ids[: count + 1])) for count in range(len(reply.ids))]
            scores = self._echox.trigger_scores(reply.states)
            text = self.tokenizer.decode(reply.ids)
            answers.append(Answer(text, reply.ids, ends, scores, reply.states, reply.stop_reason))
        return answers

    def say(self, segments: Sequence[Segment], speech: Speech) -> list[Decoded]:
        t2c = self._echox.t2c
        if speech.decoder == "echo":
            states = [self._echox.denoised(self._states(segment)) for segment in segments]
            return t2c.speak(states, speech.max_units, speech.beams)
        if speech.text == "response":
            return t2c.generate([segment.ids for segment in segments], speech.max_units, speech.beams)
        spelled = [self._echox.hidden_ids(self._states(segment)) for segment in segments]
        silent = {*self._echox.config.end_ids, self._echox.config.audio_patch_id}
        texts = [[token for token in ids if token not in silent] for ids in spelled]
        return t2c.generate(texts, speech.max_units, speech.beams)

    def agreement(self, answer: Answer) -> float | None:
        assert answer.states is not None
        spelled = self._echox.hidden_ids(answer.states)
        return sum(map(int.__eq__, spelled, answer.ids)) / len(answer.ids)

    def denoising_cosine(self, segment: Segment) -> float | None:
        cosines = self._echox.denoising_cosines(self._states(segment), segment.ids)
        return sum(cosines) / len(cosines)

    def _states(self, segment: Segment) -> Tensor:
        assert segment.answer.states is not None
        return segment.answer.states[segment.start : segment.end]

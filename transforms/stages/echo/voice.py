"""The origin `voice`: a voice speaks each segment of a reply, and a tokenizer encodes its speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from echo_targets.transforms.models.voices.base import NothingToSay, UnspeakableText
from echo_targets.transforms.models.voices.registry import EMBEDDED as EMBEDDED_VOICE
from echo_targets.transforms.models.voices.registry import open_voice
from echo_targets.transforms.stages.echo.targets import SegmentUnits, Target, target_of
from echo_targets.transforms.stages.tokenize import TokenizeParameters
from echo_targets.transforms.threads import encode_each, in_parallel
from echo_targets.transforms.units.codebook import collapse
from echo_targets.transforms.verbalize import verbalize


class VoiceParameters(TokenizeParameters):
    """Parameters of the origin `voice`, in addition to those of the tokenizer, which are as for tokenize.

    Attributes:
        name: the voice: a directory of a text-to-speech model, or `embedded:hibari`.
        speaker: the speaker, for a voice that has several.
        rate: pace; 1 is the voice's own.
    """

    name: str = EMBEDDED_VOICE
    speaker: str | None = None
    rate: float = 1.0
    unit_language: None = None  # echo has one for all targets


class Reply(NamedTuple):
    """A reply to speak.

    Attributes:
        texts: the text of each segment. One without a word gets no units.
        language: code of its language.
        seed: seeds what the voice samples.
    """

    texts: list[str]
    language: str
    seed: int

    @property
    def spoken(self) -> list[str]:
        """The texts as they are spoken."""
        return [verbalize(text, self.language) for text in self.texts]


class VoiceOrigin:
    """A voice and the tokenizer of its speech. Nothing is loaded before `setup`.

    Attributes:
        codebook: the tokenizer's `codebook_id` and `codebook_size`.
    """

    def __init__(self, parameters: VoiceParameters, device: str) -> None:
        self._parameters, self._device = parameters, device
        self._voice = open_voice(parameters.name, device)
        self._voice.check(parameters.speaker, parameters.rate)
        self._tokenizer = parameters.open()
        self.codebook = self._tokenizer.codebook_id, self._tokenizer.codebook_size

    def fingerprint_parameters(self) -> dict[str, Any]:
        """Return the parameters that no file's digest stands for."""
        return self._parameters.model_dump(mode="json", include={"speaker", "rate", "dtype"})

    def weight_digests(self) -> dict[str, str]:
        """Return names and digests of the files that shape the units. Loads nothing."""
        return {**self._voice.weight_digests(), **self._tokenizer.weight_digests()}

    def setup(self) -> None:
        """Load the voice and the tokenizer.

        Raises:
            ModelError: they are missing or damaged.
        """
        self._voice.setup()
        self._tokenizer.setup(self._device)

    def say(self, replies: Sequence[Reply]) -> list[Target | None]:
        """Return the targets of replies, which do not depend on each other; None for one that can't be spoken whole."""
        speech = in_parallel(lambda some: [self._speech(reply) for reply in some], list(replies), self._device)
        sounds = [sound for reply in speech if reply is not None for sound in reply]
        encoded = iter(encode_each(self._tokenizer, list(filter(len, sounds)), self._device, self._parameters.dtype))
        nothing = np.zeros((0, self._tokenizer.num_codebooks), np.int32)
        said = iter([_units_of(next(encoded) if len(sound) else nothing) for sound in sounds])
        return [
            None if sounds_of is None else self._target(reply, [next(said) for _ in sounds_of])
            for reply, sounds_of in zip(replies, speech, strict=True)
        ]

    def _speech(self, reply: Reply) -> list[np.ndarray] | None:
        """Return the speech of each segment, (samples,) float32 at 16 kHz."""
        try:
            return [self._speak(text, reply.seed) for text in reply.spoken]
        except UnspeakableText:
            return None

    def _speak(self, text: str, seed: int) -> np.ndarray:
        try:
            return self._voice.speak(text, self._parameters.speaker, self._parameters.rate, seed)
        except NothingToSay:
            return np.zeros(0, np.float32)

    def _target(self, reply: Reply, said: list[SegmentUnits]) -> Target:
        chosen = self._parameters
        spoke = f"voice-{chosen.speaker or 'default'}-{chosen.rate:g}"
        return target_of(self._tokenizer, said, model_id=self._voice.id, decode_id=spoke, spoken_text=reply.spoken)


def _units_of(frames: np.ndarray) -> SegmentUnits:
    runs, durations = collapse(frames)
    return SegmentUnits(runs, durations.tolist())

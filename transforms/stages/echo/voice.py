"""The origin `voice`: a voice speaks each segment of a reply, and a tokenizer encodes its speech."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_targets.transforms.models.voices.base import NothingToSay
from echo_targets.transforms.models.voices.registry import EMBEDDED as EMBEDDED_VOICE
from echo_targets.transforms.models.voices.registry import open_voice
from echo_targets.transforms.stages.echo.targets import Said, Target, target_of
from echo_targets.transforms.stages.tokenize import TokenizeParameters
from echo_targets.transforms.threads import encode_each, in_parallel
from echo_targets.transforms.units.codebook import collapse


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


class VoiceOrigin:
    """A voice and the tokenizer of its speech. Nothing is loaded before `setup`."""

    def __init__(self, parameters: VoiceParameters, device: str) -> None:
        self._parameters, self._device = parameters, device
        self._voice = open_voice(parameters.name, device)
        self._voice.check(parameters.speaker, parameters.rate)
        self._tokenizer = parameters.open()

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

    def say(self, replies: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Target]:
        """Return the targets of replies, which do not depend on each other.

        Args:
            replies: the texts of each reply's segments. A segment without a word gets no units.
            seeds: a seed for each reply.
        """
        texts = [(text, seed) for segments, seed in zip(replies, seeds, strict=True) for text in segments]
        speech = in_parallel(lambda some: [self._speak(*each) for each in some], texts, self._device)
        spoken = [sound for sound in speech if len(sound)]
        frames = iter(encode_each(self._tokenizer, spoken, self._device, self._parameters.dtype))
        nothing = np.zeros((0, self._tokenizer.num_codebooks), np.int32)
        said = iter([_said(next(frames) if len(sound) else nothing) for sound in speech])
        return [
            target_of(
                self._tokenizer, [next(said) for _ in segments], model_id=self._voice.id, decode_id=self._decode_id
            )
            for segments in replies
        ]

    @property
    def _decode_id(self) -> str:
        chosen = self._parameters
        return f"voice-{chosen.speaker or 'default'}-{chosen.rate:g}"

    def _speak(self, text: str, seed: int) -> np.ndarray:
        try:
            return self._voice.speak(text, self._parameters.speaker, self._parameters.rate, seed)
        except NothingToSay:
            return np.zeros(0, np.float32)


def _said(frames: np.ndarray) -> Said:
    runs, durations = collapse(frames)
    return Said(runs, durations.tolist())

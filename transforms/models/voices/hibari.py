"""The embedded voice: English speech from text on a CPU, for demo corpora and unit training."""

from __future__ import annotations

import numpy as np

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.embedded import HIBARI_VOICE
from echo_targets.transforms.models.voices.base import NothingToSay, Voice
from echo_targets.transforms.verbalize import FINAL_WORD


class HibariVoice(Voice):
    """hibari's bundled voice, with weights checked against the pinned release. It has one speaker.

    It samples the noise of voiceless sounds, and spells out numbers and abbreviations itself.

    Raises:
        ModelError: hibari is not installed, or its weights are not the pinned ones.
    """

    id = f"hibari-{HIBARI_VOICE.sha256[:8]}"
    sampling_rate = 24_000
    changes_rate = True

    def __init__(self) -> None:
        self._weights = HIBARI_VOICE.locate()

    def weight_digests(self) -> dict[str, str]:
        return {"voice": sha256_of(self._weights)}

    def check_speaker(self, speaker: str | None) -> None:
        if speaker is not None:
            raise ModelError(f"the embedded voice has one speaker, without a name; remove `speaker` {speaker!r}")

    def setup(self) -> None:
        from hibari import Hibari

        self._model = Hibari(model=str(self._weights), threads=1)

    def synthesize(self, text: str, speaker: str | None, rate: float, seed: int) -> np.ndarray:
        words = FINAL_WORD.sub(r"\1 .", text)  # keeps hibari from reading "no." as "number"
        speech = self._model(words, speed=rate, seed=seed)
        if not len(speech):
            raise NothingToSay(text)
        return speech

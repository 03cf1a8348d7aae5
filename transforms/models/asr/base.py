"""The interface of Whisper recognizers: faster-whisper (CTranslate2) and openai-whisper (torch), with the same weights.

Both use openai-whisper's encoder: with one window per thread, torch encodes faster than CTranslate2. Both decode with
timestamps; without them Whisper stops at the first pause.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from echo_targets.transforms.models.asr.phrases import Phrase
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES, hidden_states
from echo_targets.transforms.models.whisper.weights import load_whisper, weights_of
from echo_targets.transforms.threads import encode_each


@dataclass(frozen=True)
class DecodedWindow:
    """Result of decoding one window.

    Attributes:
        phrases: in order, inside the window.
        resume: sample of the window at which decoding must continue; the window's length if it was decoded completely.
        avg_logprob: mean natural log-probability of the tokens, including end-of-text.
        language_prob: None if the language was given.
    """

    phrases: list[Phrase]
    resume: int
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    language: str
    language_prob: float | None

    @property
    def text(self) -> str:
        """Text of all phrases, as decoded."""
        return "".join(phrase.text for phrase in self.phrases).strip()

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text per byte of its zlib compression. Above 2.4 it repeats itself (Whisper, section 4.5)."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


Encoded: TypeAlias = tuple[np.ndarray, int]
"""A window's hidden states, (1500, n_audio_state) float32, and its number of samples without padding."""


class Recognizer(ABC):
    """A Whisper model that decodes windows in batches. A window's result does not depend on the others.

    Args:
        model: as for `load_whisper`.
        device: a torch device.
        language: of the speech; None lets a multilingual model detect it, window by window.
        best_of: candidates to sample at a temperature above 0.
        encoder_dtype: dtype of the encoder's matrix products.
        decoder_dtype: dtype of the decoder.
    """

    def __init__(
        self,
        model: str,
        device: str,
        language: str | None,
        best_of: int = 1,
        encoder_dtype: str = "float32",
        decoder_dtype: str = "float32",
    ) -> None:
        self.model, self.device, self.language, self.best_of = model, device, language, best_of
        self.encoder_dtype, self.decoder_dtype = encoder_dtype, decoder_dtype

    @staticmethod
    def weight_digest(model: str) -> str:
        """Return the model's digest for the fingerprint.

        Raises:
            ModelError: files are missing, or the backend does not support their format.
        """
        return weights_of(model)

    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: the model is missing, its library is not installed, or this machine does not support the dtypes.
        """
        self._whisper = load_whisper(self.model, self.device)

    @abstractmethod
    def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
        """Decode windows: greedily at temperature 0, else sampled from `seed`."""

    def encode(self, windows: list[np.ndarray]) -> list[Encoded]:
        """Encode each window, padded with silence to the 30 s that the encoder was trained on.

        Args:
            windows: (num_samples,) float32 at 16 kHz, at most 30 s.
        """

        def encode(some: list[np.ndarray]) -> list[np.ndarray]:
            return list(hidden_states(self._whisper, some, WINDOW_SAMPLES))

        states = encode_each(encode, windows, self.device, self.encoder_dtype)
        return list(zip(states, map(len, windows), strict=True))

"""Whisper behind one interface: faster-whisper (CTranslate2) and openai-whisper (torch), same weights, same result.

Both decode batches of windows of up to 30 s, without timestamps.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from transforms.models.embedded import WHISPER_TINY_EN, ModelError
from transforms.models.threads import in_threads
from transforms.models.whisper_encoder import log_mel
from transforms.models.whisper_weights import EMBEDDED, check_vocabulary, is_transformers, load_whisper, weights_of

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

WINDOW_SAMPLES = 30 * 16_000


@dataclass(frozen=True)
class Heard:
    """What was heard in one window.

    Attributes:
        avg_logprob: mean log-probability of the tokens, the end among them.
        language_prob: None where the language was given.
    """

    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    language: str
    language_prob: float | None

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text by bytes of its zlib compression; above 2.4 it repeats itself (Whisper, section 4.5)."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


class Recogniser(ABC):
    """A Whisper model that decodes windows in batches.

    Args:
        model: as `load_whisper` takes it.
        device: a torch device.
        language: of the speech; None lets a multilingual model detect it, window by window.
        best_of: samples to choose from where the temperature is above 0.
    """

    def __init__(self, model: str, device: str, language: str | None, best_of: int) -> None:
        self.model, self.device, self.language, self.best_of = model, device, language, best_of

    @staticmethod
    def weights(model: str) -> str:
        """What stands for the model in a fingerprint.

        Raises:
            ModelError: files are missing, or the backend does not read their format.
        """
        return weights_of(model)

    @abstractmethod
    def setup(self) -> None:
        """Loads the model.

        Raises:
            ModelError: it is not there, or its library is not installed.
        """

    @abstractmethod
    def __call__(self, windows: list[np.ndarray], temperature: float = 0.0, seed: int = 0) -> list[Heard]:
        """Decodes windows of at most 30 s, float32 at 16 kHz; greedy at temperature 0, else sampled from `seed`."""


class FasterWhisper(Recogniser):
    """CTranslate2, in 8-bit integers on a CPU and half precision on a GPU.

    It seeds its random numbers once per thread, so what it samples depends on all it sampled before. At a
    temperature above 0 the same weights decode in torch instead.
    """

    @staticmethod
    def weights(model: str) -> str:
        if is_transformers(model):
            made = quote(f"{model.rstrip('/')}-ct2")
            raise ModelError(
                f"{model} is a checkpoint of transformers; faster-whisper takes what this writes, once: "
                f"ct2-transformers-converter --model {quote(model)} --output_dir {made} --quantization float16 "
                "--copy_files tokenizer.json preprocessor_config.json; or take backend: openai-whisper"
            )
        return weights_of(model)

    def setup(self) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ModelError(
                "faster-whisper is not installed: pip install -c constraints.txt '.[transcribe]'"
            ) from error
        directory = str(WHISPER_TINY_EN.locate().parent) if self.model == EMBEDDED else self.model
        compute_type = "int8" if self.device == "cpu" else "float16"
        self._whisper: WhisperModel = WhisperModel(directory, device=self.device, compute_type=compute_type)

    def __call__(self, windows: list[np.ndarray], temperature: float = 0.0, seed: int = 0) -> list[Heard]:
        if temperature > 0:
            return self._sampler(windows, temperature, seed)
        whisper = self._whisper
        encoded = whisper.encode(np.stack(in_threads(self._features, windows)))
        languages = self._languages(encoded, len(windows))
        results = whisper.model.generate(
            encoded,
            [self._prompt(language) for language, _ in languages],
            beam_size=1,
            max_length=whisper.max_length,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._heard(result, *language) for result, language in zip(results, languages, strict=True)]

    @cached_property
    def _sampler(self) -> OpenAIWhisper:
        sampler = OpenAIWhisper(self.model, self.device, self.language, self.best_of)
        sampler.setup()
        return sampler

    def _features(self, window: np.ndarray) -> np.ndarray:
        # The extractor pads what it is given by 10 ms steps; a whole window of samples is a whole window of frames.
        padded = np.zeros(WINDOW_SAMPLES, np.float32)
        padded[: len(window)] = window
        return np.asarray(self._whisper.feature_extractor(padded, padding=0))[:, :3000]

    def _languages(self, encoded: Any, count: int) -> list[tuple[str, float | None]]:
        if self.language or not self._whisper.model.is_multilingual:
            return [(self.language or "en", None)] * count
        detected = self._whisper.model.detect_language(encoded)
        return [(best[0][0].strip("<|>"), float(best[0][1])) for best in detected]

    def _prompt(self, language: str) -> list[int]:
        prompt: list[int] = self._whisper.get_prompt(self._tokenizer(language), [], without_timestamps=True)
        return prompt

    def _tokenizer(self, language: str) -> Tokenizer:
        from faster_whisper.tokenizer import Tokenizer

        whisper = self._whisper
        return Tokenizer(whisper.hf_tokenizer, whisper.model.is_multilingual, task="transcribe", language=language)

    @cached_property
    def _suppressed(self) -> list[int]:
        from faster_whisper.transcribe import get_suppressed_tokens

        return list(get_suppressed_tokens(self._tokenizer("en"), [-1]) or [])

    def _heard(self, result: Any, language: str, language_prob: float | None) -> Heard:
        tokens = result.sequences_ids[0]
        text = self._tokenizer(language).decode(tokens).strip()
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return Heard(text, avg_logprob, result.no_speech_prob, 0.0, language, language_prob)


class OpenAIWhisper(Recogniser):
    """openai-whisper, float32 on a CPU and half precision on a GPU."""

    def setup(self) -> None:
        self._whisper = load_whisper(self.model, self.device)
        check_vocabulary(self.model, self._whisper.dims.n_vocab)

    def __call__(self, windows: list[np.ndarray], temperature: float = 0.0, seed: int = 0) -> list[Heard]:
        import torch
        from whisper import DecodingOptions

        mels = self._whisper.dims.n_mels
        features = torch.stack([log_mel(window, WINDOW_SAMPLES, mels, self.device) for window in windows])
        options = DecodingOptions(
            language=self.language if self._whisper.is_multilingual else "en",
            temperature=temperature,
            best_of=self.best_of if temperature > 0 else None,
            without_timestamps=True,
            fp16=self.device != "cpu",
        )
        chances: list[dict[str, float]] = [{}] * len(windows)
        if options.language is None:  # `decode` detects it as well, but keeps its chances to itself
            with torch.no_grad():
                features = self._whisper.embed_audio(features.half() if options.fp16 else features)
            chances = self._whisper.detect_language(features)[1]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            results = self._whisper.decode(features, options)
        return [
            Heard(
                result.text.strip(),
                result.avg_logprob,
                result.no_speech_prob,
                temperature,
                result.language,
                chance.get(result.language),
            )
            for result, chance in zip(results if isinstance(results, list) else [results], chances, strict=True)
        ]


BACKENDS: dict[str, type[Recogniser]] = {"faster-whisper": FasterWhisper, "openai-whisper": OpenAIWhisper}

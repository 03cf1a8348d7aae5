"""Whisper behind one interface: decoded by faster-whisper (CTranslate2) or openai-whisper (torch), of the same weights.

The encoder is openai-whisper's on both sides: with one window per thread, torch encodes faster than CTranslate2. Both
decode with timestamps: without them Whisper stops at the first pause.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.asr.phrases import Phrase, split_phrases
from echo_targets.transforms.models.checkpoints.files import read_json
from echo_targets.transforms.models.encoders.whisper import WINDOW_SAMPLES, hidden_states
from echo_targets.transforms.models.whisper.settings import settings_of
from echo_targets.transforms.models.whisper.weights import (
    EMBEDDED,
    check_text,
    directory_of,
    is_transformers,
    load_whisper,
    weights_of,
)
from echo_targets.transforms.threads import hear_each, in_threads, side_by_side

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.decoding import DecodingTask, LogitFilter
    from whisper.tokenizer import Tokenizer

FIRST_PHRASE_TICKS = 50
"""The first phrase starts within 1 s of its window, as in both libraries' `transcribe`."""


@dataclass(frozen=True)
class DecodedWindow:
    """What Whisper decodes from one window.

    Attributes:
        phrases: in order, inside the window.
        resume: sample of the window from which decoding has to go on; the window's length where it was decoded whole.
        avg_logprob: mean natural log-probability of the tokens, end-of-text included.
        language_prob: None where the language was given.
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
        """All phrases, as decoded."""
        return "".join(phrase.text for phrase in self.phrases).strip()

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text by bytes of its zlib compression; above 2.4 it repeats itself (Whisper, section 4.5)."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


Encoded: TypeAlias = tuple[np.ndarray, int]
"""A window's hidden states, (1500, n_audio_state) float32, and its samples without the padding."""


class Recogniser(ABC):
    """A Whisper model that decodes windows in batches. A window's result does not depend on the others.

    Args:
        model: as `load_whisper` takes it.
        device: a torch device.
        language: of the speech; None lets a multilingual model detect it, window by window.
        best_of: samples to choose from where the temperature is above 0.
        encoder_dtype: float32, or what the encoder's products are computed in.
        decoder_dtype: what the decoder computes in.
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
    def weights(model: str) -> str:
        """What stands for the model in a fingerprint.

        Raises:
            ModelError: files are missing, or the backend does not read their format.
        """
        return weights_of(model)

    def setup(self) -> None:
        """Loads the model.

        Raises:
            ModelError: it is not there, its library is not installed, or this machine cannot compute in these types.
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

        states = hear_each(encode, windows, self.device, self.encoder_dtype)
        return list(zip(states, map(len, windows), strict=True))


class OpenAIWhisper(Recogniser):
    """openai-whisper. Its decoder computes in float32 or float16."""

    def setup(self) -> None:
        super().setup()
        check_text(self.model, self._whisper, detects=self.language is None)
        self._settings = settings_of(directory_of(self.model))

    def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
        def sample(some: list[Encoded]) -> list[DecodedWindow]:
            return self._sample(some, temperature, seed)

        if self.device != "cpu":
            return sample(encoded)
        # openai-whisper keeps its caches in hooks on the model's modules: one window after the other
        return [window for (window,) in in_threads(lambda one: sample([one]), encoded, at_once=1)]

    def _sample(self, encoded: list[Encoded], temperature: float, seed: int) -> list[DecodedWindow]:
        import torch
        from whisper import DecodingOptions
        from whisper.decoding import DecodingTask

        options = DecodingOptions(
            language=self.language if self._whisper.is_multilingual else "en",
            suppress_tokens=self._suppressed,
            temperature=temperature,
            best_of=self.best_of if temperature > 0 else None,
            fp16=self.decoder_dtype == "float16",
        )
        features = torch.from_numpy(np.stack([states for states, _ in encoded])).to(
            self.device, torch.float16 if options.fp16 else torch.float32
        )
        chances: list[dict[str, float]] = [{}] * len(features)
        if options.language is None:  # `decode` detects it as well, but keeps its chances to itself
            chances = self._whisper.detect_language(features)[1]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            results = self._task(DecodingTask(self._whisper, options)).run(features)
        return [
            DecodedWindow(
                *self._split(result.tokens, result.language, num_samples),
                result.avg_logprob,
                result.no_speech_prob,
                temperature,
                result.language,
                chance.get(result.language),
            )
            for result, chance, (_, num_samples) in zip(results, chances, encoded, strict=True)
        ]

    def _task(self, task: DecodingTask) -> DecodingTask:
        """Let a window begin with any token that the checkpoint allows."""
        from whisper.decoding import SuppressBlank, SuppressTokens

        first = self._settings.suppressed_first
        for place, rule in enumerate(task.logit_filters):
            if isinstance(rule, SuppressBlank) and first is not None:
                task.logit_filters[place] = _AtStart(SuppressTokens(first), task.sample_begin)
        return task

    @cached_property
    def _suppressed(self) -> list[int]:
        return self._settings.never_decoded(self._tokenizer("en"))

    def _tokenizer(self, language: str) -> Tokenizer:
        from whisper.tokenizer import get_tokenizer

        model = self._whisper
        return get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=language, task="transcribe"
        )

    def _split(self, tokens: list[int], language: str, num_samples: int) -> tuple[list[Phrase], int]:
        tokenizer = self._tokenizer(language)
        return split_phrases(tokens, tokenizer.timestamp_begin, num_samples, tokenizer.decode)


class _AtStart:
    """A rule of openai-whisper's decoding that holds for the first token alone.

    Args:
        rule: a `LogitFilter`.
        start: the prompt's length.
    """

    def __init__(self, rule: LogitFilter, start: int) -> None:
        self._rule, self._start = rule, start

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if tokens.shape[1] == self._start:
            self._rule.apply(logits, tokens)


class FasterWhisper(OpenAIWhisper):
    """CTranslate2's decoder, in any type that CTranslate2 can compute in here.

    It seeds its random numbers once per thread, so what it samples depends on all it sampled before. At a temperature
    above 0 openai-whisper decodes instead.
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
            from ctranslate2.models import Whisper
            from faster_whisper.utils import download_model
        except ImportError as error:
            raise ModelError(
                "faster-whisper is not installed: pip install -c constraints.txt '.[transcribe]'"
            ) from error
        import torch

        if self.model != EMBEDDED and not Path(self.model).is_dir():
            try:
                self.model = download_model(self.model)
            except ValueError as error:
                raise ModelError(f"no Whisper model {self.model!r}: {error}") from error
        super().setup()
        directory, threads = directory_of(self.model), torch.get_num_threads()
        kind, _, index = self.device.partition(":")
        self._check_decoder_dtype(kind, int(index or 0))
        chosen: dict[str, Any] = (
            {"intra_threads": 1, "inter_threads": threads} if kind == "cpu" else {"device_index": int(index or 0)}
        )
        self._decoder = Whisper(str(directory), device=kind, compute_type=self.decoder_dtype, **chosen)
        torch.set_num_threads(threads)  # CTranslate2 gives its own number to the OpenMP that both use
        detects = self._decoder.is_multilingual and not self.language
        if detects and not read_json(directory / "config.json").get("lang_ids"):
            raise ModelError(f"{directory}/config.json has no lang_ids to detect a language by: set `language`")

    def _check_decoder_dtype(self, kind: str, index: int) -> None:
        """Raise ModelError where CTranslate2 would silently compute in another type."""
        from ctranslate2 import get_supported_compute_types

        supported = get_supported_compute_types(kind, index)
        if self.decoder_dtype not in supported:
            raise ModelError(
                f"CTranslate2 cannot compute in {self.decoder_dtype} on this machine's {self.device}, only in "
                f"{', '.join(sorted(supported))}. A version of transcripts has one decoder_dtype: run without this "
                "machine, or choose for all of them, such as stages.transcribe.decoder_dtype=float32"
            )

    def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
        if temperature > 0:
            return super().decode(encoded, temperature, seed)
        return side_by_side(self._greedy, encoded, self.device)

    def _greedy(self, encoded: list[Encoded]) -> list[DecodedWindow]:
        from ctranslate2 import StorageView

        states = StorageView.from_array(np.stack([states for states, _ in encoded]))
        languages = self._languages(states, len(encoded))
        results = self._decoder.generate(
            states,
            [list(self._tokenizer(language).sot_sequence) for language, _ in languages],
            beam_size=1,
            max_length=self._whisper.dims.n_text_ctx,
            suppress_blank=True,  # of `suppress_ids_begin` in config.json
            suppress_tokens=self._suppressed,
            max_initial_timestamp_index=FIRST_PHRASE_TICKS,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            self._decoded(result, num_samples, *language)
            for result, (_, num_samples), language in zip(results, encoded, languages, strict=True)
        ]

    def _languages(self, encoded: Any, count: int) -> list[tuple[str, float | None]]:
        if self.language or not self._decoder.is_multilingual:
            return [(self.language or "en", None)] * count
        detected = self._decoder.detect_language(encoded)
        return [(best[0][0].strip("<|>"), float(best[0][1])) for best in detected]

    def _decoded(self, result: Any, num_samples: int, language: str, language_prob: float | None) -> DecodedWindow:
        tokens = result.sequences_ids[0]
        phrases, resume = self._split(tokens, language, num_samples)
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return DecodedWindow(phrases, resume, avg_logprob, result.no_speech_prob, 0.0, language, language_prob)


BACKENDS: dict[str, type[Recogniser]] = {"faster-whisper": FasterWhisper, "openai-whisper": OpenAIWhisper}

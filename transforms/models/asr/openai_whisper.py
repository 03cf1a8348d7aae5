"""Decoding with openai-whisper (torch)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.models.asr.phrases import Phrase, split_phrases
from echo_targets.transforms.models.whisper.settings import settings_of
from echo_targets.transforms.models.whisper.weights import check_text, directory_of
from echo_targets.transforms.threads import in_threads

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.decoding import DecodingTask, LogitFilter
    from whisper.tokenizer import Tokenizer
from echo_targets.transforms.models.asr.base import DecodedWindow, Encoded, Recognizer


class OpenAIWhisper(Recognizer):
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
        # openai-whisper keeps caches in hooks on the model's modules, so windows are decoded one after the other.
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
        probabilities: list[dict[str, float]] = [{}] * len(features)
        if options.language is None:  # `decode` detects it too, but does not return probabilities
            probabilities = self._whisper.detect_language(features)[1]
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
                probability.get(result.language),
            )
            for result, probability, (_, num_samples) in zip(results, probabilities, encoded, strict=True)
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
    """A logit filter of openai-whisper that applies only to the first token.

    Args:
        rule: a `LogitFilter`.
        start: the prompt's length.
    """

    def __init__(self, rule: LogitFilter, start: int) -> None:
        self._rule, self._start = rule, start

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if tokens.shape[1] == self._start:
            self._rule.apply(logits, tokens)

"""Decoding with CTranslate2, as faster-whisper does."""

from __future__ import annotations

import weakref
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.asr.base import DecodedWindow, Encoded
from echo_targets.transforms.models.asr.openai_whisper import OpenAIWhisper
from echo_targets.transforms.models.checkpoints.files import read_json
from echo_targets.transforms.models.whisper.weights import EMBEDDED, directory_of, is_transformers, weights_of
from echo_targets.transforms.threads import in_parallel

FIRST_PHRASE_TICKS = 50
"""The first phrase starts within 1 s of the window's start, as in both libraries' `transcribe`."""


class FasterWhisper(OpenAIWhisper):
    """CTranslate2's decoder, in any dtype that CTranslate2 supports on this machine.

    CTranslate2 seeds its random numbers once per thread, so a sample would depend on all earlier ones. Therefore
    openai-whisper decodes at temperatures above 0.
    """

    @staticmethod
    def weight_digest(model: str) -> str:
        if is_transformers(model):
            made = quote(f"{model.rstrip('/')}-ct2")
            raise ModelError(
                f"{model} is a transformers checkpoint, which faster-whisper can't load; convert it once: "
                f"ct2-transformers-converter --model {quote(model)} --output_dir {made} --quantization float16 "
                "--copy_files tokenizer.json preprocessor_config.json; or set backend: openai-whisper"
            )
        return weights_of(model)

    def setup(self) -> None:
        try:
            from ctranslate2.models import Whisper
            from faster_whisper.utils import download_model
        except ImportError as error:
            raise ModelError("faster-whisper is not installed: pip install 'echo-targets[transcribe]'") from error
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
        weakref.finalize(self, self._decoder.unload_model)  # empties CTranslate2's cache on a GPU, too
        torch.set_num_threads(threads)  # CTranslate2 changed the thread count of the OpenMP that both use
        detects = self._decoder.is_multilingual and not self.language
        if detects and not read_json(directory / "config.json").get("lang_ids"):
            raise ModelError(f"{directory}/config.json has no lang_ids for language detection: set `language`")

    def _check_decoder_dtype(self, kind: str, index: int) -> None:
        """Raise ModelError if CTranslate2 would silently compute in another dtype."""
        from ctranslate2 import get_supported_compute_types

        supported = get_supported_compute_types(kind, index)
        if self.decoder_dtype not in supported:
            raise ModelError(
                f"CTranslate2 does not support {self.decoder_dtype} on this machine's {self.device}, only "
                f"{', '.join(sorted(supported))}. All workers must use the same decoder_dtype: exclude this machine, "
                "or set one that all support, such as stages.transcribe.decoder_dtype=float32"
            )

    def decode(self, encoded: list[Encoded], temperature: float = 0.0, seed: int = 0) -> list[DecodedWindow]:
        if temperature > 0:
            return super().decode(encoded, temperature, seed)
        return in_parallel(self._greedy, encoded, self.device)

    def _greedy(self, encoded: list[Encoded]) -> list[DecodedWindow]:
        from ctranslate2 import StorageView

        states = StorageView.from_array(np.stack([states for states, _ in encoded]))
        languages = self._languages(states, len(encoded))
        results = self._decoder.generate(
            states,
            [list(self._tokenizer(language).sot_sequence) for language, _ in languages],
            beam_size=1,
            max_length=self._whisper.dims.n_text_ctx,
            suppress_blank=True,  # suppresses `suppress_ids_begin` of config.json
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

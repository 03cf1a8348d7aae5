"""CTC forced alignment of English with the embedded phoneme recognizer and its G2P.

Words become IPA phonemes, and a Viterbi pass finds the likeliest frames of the phoneme sequence (as in Kürzinger et al.
2020, arXiv 2007.09127). A word that G2P can't pronounce (digits, other scripts) becomes a wildcard in the sequence: it
absorbs whatever is spoken there, so its neighbors stay in place.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.ctc import HOP_SAMPLES, TokenAligner
from echo_targets.transforms.models.checkpoints.embedded import (
    HAMA_CTC,
    HAMA_G2P,
    HAMA_G2P_DECODER,
    HAMA_VOCABULARY,
    EmbeddedFile,
)

if TYPE_CHECKING:
    from hama import ASRModel, G2PModel, Vocabulary

WINDOW_FRAMES = 1_500
"""The recognizer ignores audio after 30 s."""
CONTEXT_FRAMES = 100
"""Frames at an inner edge of a window that are taken from the neighboring window, which has more context for them."""

PEAK_LAG = 896
"""Samples (56 ms) by which the recognizer's peaks follow the sound.

Measured on half of 30 texts spoken by the embedded voice: the median distance from the border between two words to the
midpoint of the peaks around it (`python -m benchmarks.borders` tests it on the other texts and on real speech). For the
midpoint one constant fits all distances between the peaks; measured from the next word's peak alone, the border lies
77 to 120 ms earlier.
"""


MAX_LETTERS = 32
MAX_PHONEMES = 64


def weight_files() -> tuple[EmbeddedFile, ...]:
    """Return the files that determine an alignment."""
    return HAMA_CTC, HAMA_G2P, HAMA_G2P_DECODER, HAMA_VOCABULARY


class CtcAligner(TokenAligner):
    """Forced alignment by phonemes: audio of any length, on the CPU, deterministic.

    A recognizer uses one thread, so there is one for each of torch's threads.
    """

    lag = PEAK_LAG

    def weight_digests(self) -> dict[str, str]:
        return {file.path: file.sha256 for file in weight_files()}

    def setup(self) -> None:
        ctc, encoder, decoder, vocabulary = (file.locate() for file in weight_files())
        try:
            import torch
            import torchaudio  # noqa: F401
            from hama import ASRModel, G2PModel

            models = [ASRModel(ctc, vocabulary) for _ in range(torch.get_num_threads())]
            self._g2p: G2PModel = G2PModel(
                encoder_model_path=encoder,
                decoder_step_model_path=decoder,
                vocab_path=vocabulary,
                max_input_len=MAX_LETTERS,
                max_output_len=MAX_PHONEMES,
            )
        except (ImportError, RuntimeError) as error:
            raise ModelError(f"the CTC aligner needs torchaudio, and hama on Linux or macOS: {error}") from error
        self._g2p.vocab = self._g2p.tokenizer.vocab = _quick(self._g2p.vocab)
        self.blank: int = models[0].blank_id
        self._ids = {token: id_ for id_, token in enumerate(models[0].decoder_tokens)}
        self._idle: SimpleQueue[ASRModel] = SimpleQueue()
        for model in models:
            self._idle.put(model)
        self._spoken, self._spelling = lru_cache(maxsize=1 << 18)(self._spell), Lock()

    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        frames, step = -(-len(waveform) // HOP_SAMPLES), WINDOW_FRAMES - 2 * CONTEXT_FRAMES
        firsts = range(0, max(1, frames - 2 * CONTEXT_FRAMES), step)
        parts = []
        for first in firsts:
            window = waveform[first * HOP_SAMPLES :][: WINDOW_FRAMES * HOP_SAMPLES]
            log_probs = self._run(window)
            parts.append(log_probs[CONTEXT_FRAMES if first else 0 : None if first == firsts[-1] else -CONTEXT_FRAMES])
        joined = np.concatenate(parts)
        boundary = joined[:, self._ids["<wb>"]]
        joined[:, self.blank] = np.logaddexp(joined[:, self.blank], boundary)
        return joined

    def _run(self, window: np.ndarray) -> np.ndarray:
        model = self._idle.get()
        try:
            return model.session.run(["log_probs"], {"waveform": window})[0][0]
        finally:
            self._idle.put(model)

    def tokens(self, symbol: str) -> tuple[int, ...] | None:
        """Return the ids of an English word's phonemes, part by part if hyphenated; None if G2P can't pronounce it."""
        parts = _parts(symbol)
        with self._spelling:
            spoken = [self._spoken(part) for part in parts]
        if not parts or not all(spoken):
            return None
        return tuple(id_ for part in spoken if part for id_ in part)

    def _spell(self, part: str) -> tuple[int, ...] | None:
        tokens = self._of_part(part)
        # G2P separates the phonemes of words that it takes for foreign ones.
        if " " in tokens and part.endswith("'s"):
            tokens = [*self._of_part(part.removesuffix("'s")), "s"]
        if len(part) > MAX_LETTERS or len(tokens) == MAX_PHONEMES or any(token.startswith("<") for token in tokens):
            return None
        return tuple(self._ids[token] for token in tokens if token != " ") or None

    def _of_part(self, part: str) -> list[str]:
        return [alignment.phoneme for alignment in self._g2p.predict(part, split_delimiter=None).alignments]


def _quick(vocabulary: Vocabulary) -> SimpleNamespace:
    # hama rebuilds its tables of 20,000 tokens at every look-up; cached, they make G2P five times faster.
    names = ("encoder", "decoder", "encoder_token_to_id", "decoder_token_to_id", "pad_id", "sos_id", "eos_id")
    return SimpleNamespace(**{name: getattr(vocabulary, name) for name in names})


def _parts(symbol: str) -> list[str]:
    """Return an English word's parts in lower case without accents; empty if it has other letters."""
    folded = unicodedata.normalize("NFKD", symbol.replace("’", "'")).lower()
    letters = "".join(character for character in folded if not unicodedata.combining(character))
    if not all("a" <= letter <= "z" or unicodedata.category(letter)[0] == "P" for letter in letters):
        return []
    return [part for part in (part.strip("'") for part in re.split(r"[^a-z']+", letters)) if part]

"""CTC forced alignment of English with the embedded phoneme recogniser and its G2P.

Words become IPA phonemes, and a Viterbi pass finds the likeliest frames for that sequence of phonemes (as in
Kürzinger et al. 2020, arXiv 2007.09127). A word that G2P can't say (digits, other scripts) becomes a wildcard in the
sequence: it takes up whatever is spoken there, so that its neighbours stay where they are.
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from functools import lru_cache
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.base import Aligner, Alignment, Span, alignment_of, failed
from echo_targets.transforms.models.aligners.pauses import Levels
from echo_targets.transforms.models.checkpoints.embedded import (
    HAMA_CTC,
    HAMA_G2P,
    HAMA_G2P_DECODER,
    HAMA_VOCABULARY,
    EmbeddedFile,
)
from echo_targets.transforms.text import TextWord

if TYPE_CHECKING:
    from hama import ASRModel, G2PModel, Vocabulary

HOP_SAMPLES = 320
WINDOW_FRAMES = 1_500
"""The recogniser ignores what comes after 30 s."""
CONTEXT_FRAMES = 100
"""Frames at an inner edge of a window that the window beyond the edge hears better."""

PEAK_LAG = 896
"""Samples (56 ms) that the recogniser's peaks follow the sound by.

Measured on half of 30 texts that the embedded voice said, as the median distance from the middle between the last peak
of a word and the first one of the next to the border between them (`python -m benchmarks.borders`, where the other
texts and real speech are the test). The middle needs one constant for every distance between the two peaks: from the
next word's peak alone, the border lies 77 to 120 ms back.
"""
HALF_BLANK = 960
"""Samples (60 ms) that a word begins before its first peak, or reaches past its last one, at most.

Nineteen in twenty words that follow each other at once have 120 ms of blanks or less between their peaks.
"""

LONGEST_TOKEN = 6_400
"""Samples (400 ms) from a peak within which a word's sound ends or begins; beyond that, it is another's."""

WILDCARD_COST = 0.1
"""Log-probability that a frame of a wildcard loses to the likeliest token: so pauses and neighbours stay outside it."""

MOST_CELLS = 2**31
"""Cells of the Viterbi pass, frames by symbols and blanks, a byte each: about 20 minutes of speech."""

MAX_LETTERS = 32
MAX_PHONEMES = 64


class Peak(NamedTuple):
    """The frames [start, end) in which a phoneme was heard, and its highest log-probability there."""

    start: int
    end: int
    log_prob: float


def weight_files() -> tuple[EmbeddedFile, ...]:
    """The files that decide an alignment."""
    return HAMA_CTC, HAMA_G2P, HAMA_G2P_DECODER, HAMA_VOCABULARY


class CtcAligner(Aligner):
    """Forced alignment by phonemes: any length of audio, on the CPU, with no randomness.

    The recogniser has one thread, so as many utterances of a batch are heard at once as torch has threads.
    """

    def weights(self) -> dict[str, str]:
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

    def _aligned(self, waveform: np.ndarray, words: list[TextWord]) -> Alignment:
        with self._spelling:
            phonemes = [self.phonemes(word.symbol) for word in words]
        if not any(phonemes):
            return alignment_of(words, [None] * len(words), len(waveform))
        log_probs = self.emissions(waveform)
        return align_tokens(words, phonemes, log_probs, self.blank, waveform, PEAK_LAG)

    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        """Log-probabilities of the phonemes, the word boundary counted as blank.

        Args:
            waveform: float32, 16 kHz mono, of any length.

        Returns:
            (frames, tokens) float32. Frame t is centred at sample 320 t.
        """
        frames, step = -(-len(waveform) // HOP_SAMPLES), WINDOW_FRAMES - 2 * CONTEXT_FRAMES
        firsts = range(0, max(1, frames - 2 * CONTEXT_FRAMES), step)
        parts = []
        for first in firsts:
            window = waveform[first * HOP_SAMPLES :][: WINDOW_FRAMES * HOP_SAMPLES]
            log_probs = self._hear(window)
            parts.append(log_probs[CONTEXT_FRAMES if first else 0 : None if first == firsts[-1] else -CONTEXT_FRAMES])
        joined = np.concatenate(parts)
        boundary = joined[:, self._ids["<wb>"]]
        joined[:, self.blank] = np.logaddexp(joined[:, self.blank], boundary)
        return joined

    def _hear(self, window: np.ndarray) -> np.ndarray:
        model = self._idle.get()
        try:
            log_probs: np.ndarray = model.session.run(["log_probs"], {"waveform": window})[0][0]
        finally:
            self._idle.put(model)
        return log_probs

    def phonemes(self, symbol: str) -> tuple[int, ...] | None:
        """Token ids of an English word's phonemes, part by part where it is hyphenated; None where G2P can't say it."""
        parts = _parts(symbol)
        spoken = [self._spoken(part) for part in parts]
        if not parts or not all(spoken):
            return None
        return tuple(id_ for part in spoken if part for id_ in part)

    def _spell(self, part: str) -> tuple[int, ...] | None:
        tokens = self._tokens(part)
        # Phonemes apart from each other are G2P's way with a word it takes for a foreign one.
        if " " in tokens and part.endswith("'s"):
            tokens = [*self._tokens(part.removesuffix("'s")), "s"]
        if len(part) > MAX_LETTERS or len(tokens) == MAX_PHONEMES or any(token.startswith("<") for token in tokens):
            return None
        return tuple(self._ids[token] for token in tokens if token != " ") or None

    def _tokens(self, part: str) -> list[str]:
        return [alignment.phoneme for alignment in self._g2p.predict(part, split_delimiter=None).alignments]


def align_tokens(
    words: list[TextWord],
    tokens: list[tuple[int, ...] | None],
    log_probs: np.ndarray,
    blank: int,
    waveform: np.ndarray,
    lag: int = 0,
) -> Alignment:
    """Words on the likeliest CTC path of their tokens.

    Args:
        words: as `words_of` gives them.
        tokens: ids of each word's tokens; None for what can't be said in them.
        log_probs: (frames of 320 samples, tokens) float32.
        blank: id of the blank.
        waveform: the utterance, float32, 16 kHz mono.
        lag: samples that peaks follow the sound by.
    """
    wildcard, first = log_probs.max(1) - np.float32(WILDCARD_COST), log_probs.shape[1]
    log_probs = np.column_stack([log_probs, wildcard, wildcard])
    targets, owners = _targets(tokens, (first, first + 1))
    if (needed := _frames_needed(targets)) > len(log_probs):
        return failed(f"the text needs {needed} frames, the audio has {len(log_probs)}")
    if len(log_probs) * (2 * len(targets) + 1) > MOST_CELLS:
        return failed(
            f"{len(targets)} symbols on {len(log_probs)} frames need over {MOST_CELLS / 2**30:g} GiB of memory; "
            "cut the recording into shorter utterances"
        )
    peaks: list[list[Peak]] = [[] for _ in words]
    for owner, peak in zip(owners, viterbi(log_probs, targets, blank), strict=True):
        peaks[owner].append(peak)
    spans = zip(_spans(peaks, Levels(waveform), lag), tokens, strict=True)
    return alignment_of(words, [span if known else None for span, known in spans], len(waveform))


def viterbi(log_probs: np.ndarray, targets: list[int], blank: int) -> list[Peak]:
    """Frames of each target on the likeliest CTC path.

    Args:
        log_probs: (frames, tokens) float32.
        targets: token ids, no blanks; the path must fit into the frames.
        blank: id of the blank.
    """
    import torch
    from torchaudio.functional import forced_align

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torchaudio.functional._alignment.forced_align has been deprecated")
        emissions, labels = torch.from_numpy(log_probs), torch.tensor(targets, dtype=torch.int32)
        path, _ = forced_align(emissions[None], labels[None], blank=blank)
    tokens = path[0].numpy()
    changes = np.flatnonzero(np.diff(tokens)) + 1
    starts, ends = np.append(0, changes), np.append(changes, len(tokens))
    runs = zip(starts.tolist(), ends.tolist(), strict=True)
    return [
        Peak(start, end, float(log_probs[start:end, tokens[start]].max()))
        for start, end in runs
        if tokens[start] != blank
    ]


def _quick(vocabulary: Vocabulary) -> SimpleNamespace:
    # hama builds its tables of 20,000 tokens anew at every look-up; kept, G2P takes a fifth of the time.
    names = ("encoder", "decoder", "encoder_token_to_id", "decoder_token_to_id", "pad_id", "sos_id", "eos_id")
    return SimpleNamespace(**{name: getattr(vocabulary, name) for name in names})


def _targets(phonemes: list[tuple[int, ...] | None], wildcards: tuple[int, int]) -> tuple[list[int], list[int]]:
    """The token sequence, and which word each token belongs to.

    Two wildcards take turns, because CTC asks for a blank between equal tokens: each word keeps a frame of its own.
    """
    targets: list[int] = []
    owners: list[int] = []
    for word, ids in enumerate(phonemes):
        ids = ids or (wildcards[targets[-1:] == [wildcards[0]]],)
        targets += ids
        owners += [word] * len(ids)
    return targets, owners


def _frames_needed(targets: list[int]) -> int:
    return len(targets) + sum(one == next_ for one, next_ in pairwise(targets))


def _spans(words: list[list[Peak]], levels: Levels, lag: int) -> list[Span]:
    """Words from the peaks of their tokens, each at least a frame long."""
    befores = [None, *(peaks[-1] for peaks in words)]
    afters = [*(peaks[0] for peaks in words), None]
    borders = [_border(before, after, levels, lag) for before, after in zip(befores, afters, strict=True)]
    spans, earliest = [], 0
    for peaks, (_, start), (end, _) in zip(words, borders, borders[1:], strict=False):
        start = max(start, earliest)
        earliest = max(end, start + HOP_SAMPLES)
        spans.append(Span(start, earliest, math.exp(sum(peak.log_prob for peak in peaks) / len(peaks))))
    return spans


def _border(before: Peak | None, after: Peak | None, levels: Levels, lag: int) -> tuple[int, int]:
    """Return where one word ends and where the next one starts, from the peaks between which both happen.

    Silence between the peaks parts the words. Without it they share the blanks: CTC says where tokens are, and nothing
    about how far they reach. Where noise may hide a longer pause, neither word reaches far into it.
    """
    end = before.end * HOP_SAMPLES - lag if before else 0
    start = after.start * HOP_SAMPLES - lag if after else levels.num_samples
    share = min((start - end) // (2 if before and after else 1), HALF_BLANK)
    silences = levels.silences(
        before.start * HOP_SAMPLES - lag if before else 0, after.end * HOP_SAMPLES if after else levels.num_samples
    )
    falls = [begin for begin, _ in silences if begin <= end + LONGEST_TOKEN]
    rises = [over for _, over in silences if over >= start - LONGEST_TOKEN]
    hidden = not (before and after) or start - end > LONGEST_TOKEN
    begins = rises[-1] if rises else start - share
    return falls[0] if falls else end + share if hidden else begins, begins


def _parts(symbol: str) -> list[str]:
    """Parts of an English word, in lower case without accents; none where it has anything that is not English."""
    folded = unicodedata.normalize("NFKD", symbol.replace("’", "'")).lower()
    letters = "".join(character for character in folded if not unicodedata.combining(character))
    if not all("a" <= letter <= "z" or unicodedata.category(letter)[0] == "P" for letter in letters):
        return []
    return [part for part in (part.strip("'") for part in re.split(r"[^a-z']+", letters)) if part]

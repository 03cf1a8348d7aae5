"""Where the words of a text without times are spoken.

A CTC recognizer reads the speech, window by window. Five tokens in a row that both it and the text have are an anchor,
and the longest chain of anchors in the order of both tells which words belong to which window (anchors: Moreno et al.,
ICSLP 1998). Then each window is aligned with its words.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.models.aligners.ctc import TokenAligner
from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment.stretches import Load
from echo_targets.transforms.text import words_of

WINDOW = 30 * SAMPLE_RATE
"""About how many samples are aligned at once; a window ends at a pause."""
GRAM = 5
"""Tokens of an anchor."""
MOST_PLACES = 16
"""Tokens in a row that were recognized more often are no anchor."""
NEAR, SHIFT = 30, 5
"""An anchor needs another one at most `NEAR` tokens away, at the same distance in speech and text but for `SHIFT`."""
LEAST_SHARE = 0.1
"""Share of the tokens in anchors below which the text is that of another recording.

In four minutes of joined LibriSpeech clips the right text has 0.91, in white noise at 4 dB 0.48; others at most 0.02.
"""

Anchor = tuple[int, int]
"""Place of a token among the recognized ones, and among those of the text."""


def words_in(text: str, speech: Sequence[Span], load: Load, load_again: Load, aligner: TokenAligner) -> list[Phrase]:
    """Return the words of a text, in order, with the punctuation around them, as phrases of a recording.

    Where more words belong to a window than it has room for, they are one phrase.

    Args:
        text: what is said in the recording.
        speech: stretches of speech, in order.
        load, load_again: each loads stretches in one pass, in order.
        aligner: set up, for the language of the text.

    Raises:
        BadData: the text is not that of the recording. In a recording of one window, nothing tells.
    """
    words = words_of(text)
    windows = list(_windows(speech))
    if not words or not windows:
        return []
    places = [0] * len(words)
    if len(windows) > 1:
        read = [_recognized(aligner, *load([window])) for window in windows]
        places = _windows_of_words(read, [aligner.tokens(word.symbol) or () for word in words])
    found: list[Phrase] = []
    starts = _starts(text, [(word.char_start, word.char_end) for word in words])
    for place, group in groupby(range(len(words)), key=lambda number: places[number]):
        numbers = list(group)
        said = text[starts[numbers[0]] : starts[numbers[-1] + 1]]
        (waveform,) = load_again([windows[place]])
        found += _aligned(aligner, waveform, said, windows[place])
    return found


def _windows(speech: Sequence[Span]) -> Iterator[Span]:
    """Yield stretches of about `WINDOW` samples that start and end with speech, parted at long pauses."""
    waiting: list[Span] = []
    for span in speech:
        waiting.append(span)
        while len(waiting) > 1 and waiting[-1][1] - waiting[0][0] > WINDOW:
            pauses = [after[0] - before[1] for before, after in pairwise(waiting)]
            last = max(range(len(pauses)), key=lambda place: (pauses[place], place))
            yield waiting[0][0], waiting[last][1]
            waiting = waiting[last + 1 :]
    if waiting:
        yield waiting[0][0], waiting[-1][1]


def _recognized(aligner: TokenAligner, waveform: np.ndarray) -> list[int]:
    """Return the likeliest token of each frame, without equal neighbors and blanks."""
    if not len(waveform):
        return []
    best = aligner.emissions(waveform).argmax(1)
    return [token for token, _ in groupby(best.tolist()) if token != aligner.blank]


def _windows_of_words(read: Sequence[list[int]], words: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the window of each word, from the tokens of the windows and of the words; windows never descend."""
    said = [token for tokens in read for token in tokens]
    written = [token for tokens in words for token in tokens]
    anchors = _supported(_chain(_anchors(said, written)))
    inside = len({number + offset for _, number in anchors for offset in range(GRAM)})
    if inside < LEAST_SHARE * min(len(said), len(written)) or not anchors:
        raise BadData(
            "text_not_spoken",
            f"has a text that fits {inside} of {len(said)} recognized sounds: is it the text of another recording, or "
            "in another language than the model of stages.segment.alignment?",
        )
    places = _places(anchors, len(written), len(said))
    ends = np.cumsum([len(tokens) for tokens in read])
    middles, first = [], 0
    for tokens in words:
        # A word that can't be spelled is where the one before it ends.
        middles.append(places[min(first + len(tokens) // 2, len(written) - 1)] if tokens else -1)
        first += len(tokens)
    found = np.where(np.asarray(middles) < 0, 0, np.searchsorted(ends, middles, side="right"))
    return [int(place) for place in np.maximum.accumulate(np.minimum(found, len(read) - 1))]


def _anchors(said: Sequence[int], written: Sequence[int]) -> list[Anchor]:
    """Return all places where `GRAM` tokens in a row are the same, by their place in the text."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, gram in enumerate(_grams(said)):
        places.setdefault(gram, []).append(place)
    return [
        (place, number)
        for number, gram in enumerate(_grams(written))
        if len(places.get(gram, ())) <= MOST_PLACES
        for place in reversed(places.get(gram, ()))  # descending, so that a chain holds one of them
    ]


def _grams(tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return zip(*(tokens[start:] for start in range(GRAM)), strict=False)


def _chain(anchors: Sequence[Anchor]) -> list[Anchor]:
    """Return the longest chain whose places rise in both (Schensted 1961)."""
    lasts: list[int] = []  # the smallest last place of a chain, by its length
    ends: list[int] = []  # the anchor that has it
    before: list[int] = []
    for number, (place, _) in enumerate(anchors):
        length = bisect_left(lasts, place)
        lasts[length : length + 1] = [place]
        ends[length : length + 1] = [number]
        before.append(ends[length - 1] if length else -1)
    chain, number = list[Anchor](), ends[-1] if ends else -1
    while number >= 0:
        chain.append(anchors[number])
        number = before[number]
    return chain[::-1]


def _supported(chain: Sequence[Anchor]) -> list[Anchor]:
    """Return the anchors that have a neighbor at about the same distance in both; others are chance."""
    supported: set[Anchor] = set()
    for one, other in pairwise(chain):
        step = other[1] - one[1]
        if step <= NEAR and abs(other[0] - one[0] - step) <= SHIFT:
            supported |= {one, other}
    return sorted(supported)


def _places(anchors: Sequence[Anchor], written: int, said: int) -> list[int]:
    """Return the place of each token of the text: as far from that of the nearest anchor as it is in the text."""
    places: list[int] = []
    known = np.asarray([(-1, -1), *anchors, (said, written)])
    for number in range(written):
        after = int(np.searchsorted(known[1:-1, 1], number)) + 1
        (left, left_number), (right, right_number) = known[after - 1 : after + 1].tolist()
        is_left = after > 1 and (after == len(known) - 1 or number - left_number < right_number - number)
        place = left + number - left_number if is_left else right - (right_number - number)
        places.append(min(max(place, left + 1), right))  # not beyond the anchors around it
    return places


def _aligned(aligner: TokenAligner, waveform: np.ndarray, text: str, window: Span) -> list[Phrase]:
    """Return the words of a window's text as phrases; one phrase if they can't be aligned."""
    first, end = window
    alignment = aligner.align(waveform, text)
    if not alignment.words:
        return [Phrase(first, end, text.strip())]
    starts = _starts(text, [(word.char_start, word.char_end) for word in alignment.words])
    return [
        Phrase(first + word.start_sample, first + word.end_sample, text[start:over].strip())
        for word, (start, over) in zip(alignment.words, pairwise(starts), strict=True)
    ]


def _starts(text: str, words: Sequence[Span]) -> list[int]:
    """Return where in a text each word starts with the punctuation before it, and the text's end.

    Args:
        words: first character and exclusive end of each word.
    """
    starts = [0]
    for (_, end), (start, _) in pairwise(words):
        between = text[end:start]
        starts.append(
            end + max((place + 1 for place, sign in enumerate(between) if sign.isspace()), default=start - end)
        )
    return [*starts, len(text)]

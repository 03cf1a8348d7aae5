"""Rules for cutting a reply into segments: in its text, and at the same places in its recording.

`SegmentRule.ends` is the streaming cut of EchoX's released inference code. Its scores come from an EchoX checkpoint's
hidden states (`EchoX.trigger_scores` in `models/echox/model.py`), or from the text (`text_scores`).

`stages/echo/stage.py` cuts replies by it, and `stages/echo/targets.py` their recordings at the same places. `cuts_of`
cuts the training rows of text-to-codec models. For publish_t2c, `borders.py` computes on whole columns where recordings
can be cut.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from echo_targets.transforms.base import Parameters
from echo_targets.transforms.text import is_character
from echo_targets.transforms.units.codebook import collapse, expand

SENTENCE_END, CLAUSE_END, WORD_END, INSIDE = 1.0, 0.5, 0.05, 0.0

SENTENCE_MARKS = frozenset(".?!؟۔।॥։።။។།。｡．！？‼⁇⁈⁉")
CLAUSE_MARKS = frozenset(",;:…—–،؛፣၊，、､；：")
FULL_WIDTH = frozenset("।॥。｡．！？，、､；：…—")
"""Marks that end a sentence or clause although no space follows them."""
OPENING = frozenset("([{“‘«‹「『（【《〈［｛¿¡„‚")
STRAIGHT = frozenset("\"'")
CLOSING = frozenset(")]}”’»›」』）】》〉］｝") | STRAIGHT
TITLES = ("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "gen", "col", "capt", "lt", "sgt", "rev", "hon", "sen")
ABBREVIATIONS = frozenset((*TITLES, "mt", "nos", "vol", "pp", "fig", "vs", "cf", "approx"))
"""Words whose period ends no sentence, because something always follows them."""
REACH = 64
"""Characters of the text to look at on each side of a cut."""
NO_TIME = -1


class SegmentRule(Parameters):
    """EchoX's read/write policy over the scores of a reply's tokens (released inference code).

    A cut falls after token i if its score is the highest of tokens i - lookahead .. i + lookahead, and the segment
    either has `max_tokens` tokens before token i, or has `min_tokens` and a score above `threshold`. No cut falls so
    near the reply's end that the look-ahead is incomplete.

    Attributes:
        lookahead: tokens to compare on each side; on the left, fewer at the reply's start.
        min_tokens, max_tokens: tokens between the segment's first token and token i.
        threshold: the score that a cut before `max_tokens` needs.
    """

    lookahead: int = 5
    min_tokens: int = 20
    max_tokens: int = 50
    threshold: float = 0.1

    def ends(self, scores: Sequence[float]) -> list[int]:
        """Return the exclusive end of each segment; the last is the reply's end. Empty for an empty reply."""
        ends: list[int] = []
        start = 0
        for token, score in enumerate(scores[: -self.lookahead or None]):  # no cuts in the tail: no look-ahead
            window = scores[max(0, token - self.lookahead) : token + self.lookahead + 1]
            length = token - start
            long_enough = length >= self.max_tokens or (score > self.threshold and length >= self.min_tokens)
            if long_enough and score == max(window):
                ends.append(token + 1)
                start = token + 1
        return ends if not scores or (ends and ends[-1] == len(scores)) else [*ends, len(scores)]


def text_scores(text: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Score tokens from the text only, for replies without a language model: high where a reader would pause.

    Args:
        text: the reply.
        offsets: character span of each token.

    Returns:
        One score per token: sentence ends score above clause ends, and these above word ends. A token that spells only
        a part of a character, or only spaces, is never a place to cut; the token that ends the character or word is.
    """
    if not offsets:
        return []
    followers = [start for start, _ in offsets[1:]] + [len(text)]
    return [
        INSIDE if follower < end or text[start:end].isspace() else _score(text, end)
        for (start, end), follower in zip(offsets, followers, strict=True)
    ]


def _score(text: str, end: int) -> float:
    left, right = text[max(0, end - REACH) : end], text[end : end + REACH]
    spoken, after = left.rstrip(), right.lstrip()[:1]
    space = left[len(spoken) :] + right[: len(right) - len(right.lstrip())]
    if not after:
        return WORD_END
    if not spoken or _joins(right, after) or _opens(spoken):
        return INSIDE
    bare = spoken.rstrip("".join(CLOSING))
    mark = bare[-1:]
    if mark in SENTENCE_MARKS and (space or mark in FULL_WIDTH):
        return _of_period(bare, after) if mark == "." else SENTENCE_END
    if mark in CLAUSE_MARKS and (space or mark in FULL_WIDTH):
        inside_number = not space and after.isdecimal() and bare[-2:-1].isdecimal()  # １，０００, １０：３０
        return INSIDE if inside_number else CLAUSE_END
    if "\n" in space:
        return SENTENCE_END
    if is_character(spoken[-1]):  # in scripts without spaces between words, a space separates clauses
        return CLAUSE_END if space else WORD_END
    return WORD_END if space or is_character(after) else INSIDE


def _joins(right: str, after: str) -> bool:
    """Return True if the text after a cut belongs before it: a mark, a closing quote, or a combining character."""
    if unicodedata.category(right[0]).startswith("M"):
        return True
    opens = after in STRAIGHT and right[0].isspace()
    return not opens and after in SENTENCE_MARKS | CLAUSE_MARKS | CLOSING


def _opens(spoken: str) -> bool:
    """Return True if the text ends with an opening quote or bracket."""
    last, before = spoken[-1], spoken[-2:-1]
    return last in OPENING or (last in STRAIGHT and (not before or before.isspace() or before in OPENING))


def _of_period(bare: str, after: str) -> float:
    """Return the score of a period; after an abbreviation, an initial or a list item's number, it is a word's end."""
    last = bare.split()[-1]
    word = last.rstrip(".").lstrip("".join(OPENING | CLOSING))
    earlier = bare[: -len(last)].rstrip(" ")[-1:]
    initials = all(len(part) == 1 and part.isalpha() for part in word.split(".")) and word not in ("I", "a")
    if word.lower() in ABBREVIATIONS or initials:
        return WORD_END
    if word.isdigit() and (not earlier or earlier == "\n" or earlier in SENTENCE_MARKS | CLAUSE_MARKS):
        return WORD_END
    return CLAUSE_END if after.islower() else SENTENCE_END


class Border(NamedTuple):
    """A place where a text and its recording can be cut together.

    Attributes:
        char_start, char_end: the text may be cut anywhere in this range, which lies between two words.
        frame: the recording is cut before this frame, in the middle of the pause between the two words.
    """

    char_start: int
    char_end: int
    frame: int


def borders_of(words: Sequence[dict[str, Any]], frame_samples: float, num_frames: int) -> list[Border]:
    """Return the borders of one recording, from its word alignment's `items`; see `word_borders` for the others."""
    names = ("char_start", "char_end", "start_sample", "end_sample", "interpolated")
    columns = [np.array([NO_TIME if word[name] is None else word[name] for word in words], np.int64) for name in names]
    char_starts, char_ends, starts, ends, interpolated = columns
    row, hop, count = np.zeros(len(words), np.int64), np.array([frame_samples]), np.array([num_frames])
    _, *places = word_borders(row, char_starts, char_ends, starts, ends, interpolated, hop, count)
    return [Border(*place) for place in zip(*(each.tolist() for each in places), strict=True)]


def word_borders(
    row: np.ndarray,
    char_starts: np.ndarray,
    char_ends: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    interpolated: np.ndarray,
    frame_samples: np.ndarray,
    num_frames: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the borders of many recordings, between neighboring words that both have a time.

    There is no border between two words whose times were both interpolated.

    Args:
        row: index of each word's recording, ascending, (words,) int64; the next five have the same shape and dtype.
        char_starts, char_ends: each word's span in its text.
        starts, ends: each word's span in its recording, in 16 kHz samples; NO_TIME if it has none.
        interpolated: 1 if the word's times were interpolated from its neighbors'.
        frame_samples: 16 kHz samples per frame, (recordings,) float64.
        num_frames: frames of each recording, (recordings,) int64.

    Returns:
        Row, `char_start`, `char_end` and `frame` of each border, int64, as in `Border`.
    """
    usable = (row[1:] == row[:-1]) & (ends[:-1] != NO_TIME) & (starts[1:] != NO_TIME)
    usable &= (interpolated[1:] & interpolated[:-1]) == 0
    row, left, right = row[1:][usable], char_ends[:-1][usable], char_starts[1:][usable]
    middle = (ends[:-1][usable] + starts[1:][usable]) / 2
    frame = np.rint(middle / frame_samples[row]).astype(np.int64)
    inside = (frame > 0) & (frame < num_frames[row])
    row, left, right, frame = (each[inside] for each in (row, left, right, frame))
    advances = np.ones(len(row), bool)
    advances[1:] = (row[1:] != row[:-1]) | (frame[1:] > frame[:-1])
    return row[advances], left[advances], right[advances], frame[advances]


def frames_of(char_ends: Sequence[int], borders: Sequence[Border]) -> list[int | None]:
    """Return the frame at which to cut the recording for each cut of the text; None where there is no border."""
    at = np.searchsorted([border.char_start for border in borders], char_ends, side="right") - 1
    found = [borders[place] if place >= 0 else None for place in at.tolist()]
    return [
        border.frame if border and end <= border.char_end else None
        for end, border in zip(char_ends, found, strict=True)
    ]


def cut_units(
    units: Sequence[int] | np.ndarray, durations: Sequence[int] | np.ndarray, frames: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut collapsed units before the given frames. A run that a cut divides continues in both segments.

    Args:
        units: (N,), or (N, Q) for Q codebooks.
        durations: (N,) frames of each unit.
        frames: where to cut, ascending.

    Returns:
        Units and durations of each segment, as `collapse` returns them; one segment more than there are frames.
    """
    whole = expand(np.asarray(units), np.asarray(durations))
    return [collapse(piece) for piece in np.split(whole, list(frames))]


def recorded_segments(
    units: np.ndarray, durations: Sequence[int], borders: Sequence[Border], char_ends: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return a recording's own units, cut where the text is cut.

    Args:
        units: (N, Q) collapsed units of Q codebooks.
        durations: (N,) frames of each unit.
        borders: where it can be cut.
        char_ends: exclusive character end of each segment.

    Returns:
        Units and durations of each segment, as `collapse` returns them, or None if a segment does not end at a border.
    """
    frames = [frame for frame in frames_of(char_ends[:-1], borders) if frame is not None]
    return cut_units(units, durations, frames) if len(frames) == len(char_ends) - 1 else None


class Cut(NamedTuple):
    """A place where echo's rule cuts a reply and where its recording can be cut too.

    Attributes:
        token: first token of the segment that follows.
        char: the text is cut before this character.
        frame: the recording is cut before this frame.
    """

    token: int
    char: int
    frame: int


def cuts_of(
    rule: SegmentRule | None, text: str, offsets: Sequence[tuple[int, int]], borders: Sequence[Border]
) -> list[Cut]:
    """Return the cuts of a recorded text into the segments that echo would make of it.

    Two segments without a border between them are joined. Without a rule or a border the text is one segment.

    Args:
        rule: echo's segment rule.
        text: the text of the recording.
        offsets: character span of each of the text's tokens.
        borders: where the recording can be cut.
    """
    ends = rule.ends(text_scores(text, offsets))[:-1] if rule and borders else []
    chars = [offsets[end - 1][1] for end in ends]
    found = zip(ends, chars, frames_of(chars, borders), strict=True)
    return [Cut(end, char, frame) for end, char, frame in found if frame is not None]

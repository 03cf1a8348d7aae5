"""Tokens with timestamps become phrases as openai-whisper and faster-whisper cut them."""

from __future__ import annotations

import pytest

from echo_targets.transforms.models.asr.phrases import Phrase, split_phrases

BEGIN = 1000
"""Id of the timestamp 0.00; text tokens lie below it."""


def at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


def split(*tokens: int, seconds: float = 10.0) -> tuple[list[Phrase], int]:
    return split_phrases(tokens, BEGIN, round(seconds * 16_000), lambda ids: "".join(f" {token}" for token in ids))


@pytest.mark.parametrize(
    ("tokens", "phrases", "resume"),
    [
        ((at(0), 1, 2, at(4)), [(0, 4, " 1 2")], 10),
        ((at(0), 1, at(4), at(4.5), 2, at(9)), [(0, 4, " 1"), (4.5, 9, " 2")], 10),
        # the last phrase is left to the next window, which starts with it
        ((at(0), 1, at(4), at(4.5), 2, 3), [(0, 4, " 1")], 4),
        ((at(0), 1, at(4), at(4), 2, at(6), at(7), 3), [(0, 4, " 1"), (4, 6, " 2")], 6),
        # nothing follows the last pair: the window is done
        ((at(0), 1, at(4), at(4)), [(0, 4, " 1")], 10),
        # no closing timestamp at all: the phrase runs to the end of the audio
        ((at(0), 1, 2), [(0, 10, " 1 2")], 10),
        ((1, 2), [(0, 10, " 1 2")], 10),
        ((), [], 10),
        ((at(0),), [], 10),
        # timestamps in the padding
        ((at(0), 1, at(12)), [(0, 10, " 1")], 10),
        ((at(0), 1, at(9), at(11), 2, at(12)), [(0, 9, " 1")], 10),
        # phrases without time or without text are none
        ((at(2), 1, at(2), at(3), 2, at(5)), [(3, 5, " 2")], 10),
        ((at(0), at(3), at(3), 2, at(5)), [(3, 5, " 2")], 10),
    ],
)
def test_phrases(tokens: tuple[int, ...], phrases: list[tuple[float, float, str]], resume: float) -> None:
    wanted = [Phrase(round(start * 16_000), round(end * 16_000), text) for start, end, text in phrases]
    assert split(*tokens) == (wanted, round(resume * 16_000))


def test_decoding_never_resumes_where_it_started() -> None:
    assert split(at(0), at(0), 1, 2)[1] == 160_000

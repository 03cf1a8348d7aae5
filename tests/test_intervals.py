"""Errors by clip add up to jiwer's, and intervals hold what they should."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from benchmarks.intervals import difference, errors_by_clip


@pytest.mark.parametrize(
    ("found", "errors"),
    [
        ("a b c d e f", [0, 0]),
        ("a x c d e f", [1, 0]),
        ("a b d e f", [1, 0]),
        ("a b c d e f g h", [0, 2]),
        ("x y a b c e", [2, 2]),
        ("a x y z f", [2, 2]),
        ("", [3, 3]),
    ],
)
def test_each_error_is_of_one_clip(found: str, errors: list[int]) -> None:
    clips = ["a b c", "d e f"]
    assert errors_by_clip(clips, found).tolist() == errors
    assert sum(errors) == round(jiwer.wer(" ".join(clips), found) * 6)


def test_an_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(200):
        words = rng.integers(5, 40, 120)
        rate = rng.beta(1, 9, 120)
        ours, theirs = rng.binomial(words, np.minimum(rate + 0.02, 1)), rng.binomial(words, rate)
        found = difference(ours, theirs, words, seed=trial)
        assert found.low <= found.difference <= found.high
        held += found.low <= 0.02 <= found.high
    assert 180 <= held <= 199


def test_the_same_errors_differ_by_nothing() -> None:
    errors, words = np.array([1, 0, 4]), np.array([10, 3, 20])
    assert difference(errors, errors, words) == (0, 0, 0)
    assert str(difference(errors + 1, errors, words)).startswith("+9.09 (+")

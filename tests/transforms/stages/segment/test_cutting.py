"""Cuts of any speech hold all of it, in pieces of the wanted lengths, and never meet in a word."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.stages.segment.cutting import (
    LONGEST_INNER_PAUSE,
    SEPARATING_PAUSE,
    Lengths,
    cut,
    together,
)
from echo_targets.transforms.stages.segment.scanning import FRAME

LENGTHS = Lengths(shortest=2 * SAMPLE_RATE, longest=30 * SAMPLE_RATE, padding=SAMPLE_RATE // 5)


def seconds(*values: float) -> list[int]:
    return [round(value * SAMPLE_RATE) for value in values]


def spans(*values: float) -> list[tuple[int, int]]:
    """Stretches of speech, given as start and end in seconds, one after the other."""
    samples = seconds(*values)
    return list(zip(samples[::2], samples[1::2], strict=True))


def loud(num_samples: int, *quiet: float) -> np.ndarray:
    """Power that is constant except for a tenth of a second around the given seconds."""
    power = np.ones(-(-num_samples // FRAME), np.float32)
    for second in quiet:
        power[round(second * 100) - 5 : round(second * 100) + 5] = 0.01
    return power


def cuts_of(speech: list[tuple[int, int]], length: float, *quiet: float) -> list[tuple[float, float, str]]:
    num_samples = round(length * SAMPLE_RATE)
    found = cut(speech, loud(num_samples, *quiet), num_samples, LENGTHS)
    return [(each.start / SAMPLE_RATE, each.end / SAMPLE_RATE, each.border) for each in found]


def test_speech_is_cut_at_pauses_and_padded() -> None:
    speech = spans(1, 5, 5.3, 8, 9, 13)
    assert cuts_of(speech, 20) == [(0.8, 8.2, "pause"), (8.8, 13.2, "pause")]


def test_the_recordings_ends_limit_the_padding() -> None:
    assert cuts_of(spans(0.1, 4, 16.9, 20), 20) == [(0.0, 4.2, "pause"), (16.7, 20.0, "end")]


def test_what_is_short_is_joined_to_the_nearer_neighbor() -> None:
    assert cuts_of(spans(1, 5, 5.8, 6.4, 7.4, 11), 20) == [(0.8, 6.6, "pause"), (7.2, 11.2, "pause")]


def test_what_is_short_and_far_from_others_stays_alone() -> None:
    assert cuts_of(spans(1, 5, 8, 8.5, 12, 15), 20) == [
        (0.8, 5.2, "pause"),
        (7.8, 8.7, "pause"),
        (11.8, 15.2, "pause"),
    ]


def test_long_speech_is_cut_at_its_longest_pause() -> None:
    speech = spans(1, 10, 10.2, 18, 18.4, 33, 33.2, 40)
    (_, first, _), (second, _, _) = cuts_of(speech, 45)
    assert 18 <= first <= second <= 18.4


def test_without_a_pause_it_is_cut_where_it_is_quietest() -> None:
    found = cuts_of(spans(1, 41), 45, 20.5, 38)  # 38 would leave too much before it
    assert found == [(0.8, 20.5, "quietest"), (20.5, 41.2, "pause")]


def test_hours_without_a_pause_are_cut_too() -> None:
    found = cuts_of(spans(0, 40_000), 40_000)
    assert all(end - start <= 30 for start, end, _ in found)
    assert [end for _, end, _ in found[:-1]] == [start for start, _, _ in found[1:]] and found[-1][1] == 40_000


def test_two_cuts_meet_where_their_pause_is_quietest() -> None:
    speech = spans(1, 20, 20.35, 40)
    (_, first, _), (second, _, _) = cuts_of(speech, 45, 20.27)
    assert first == 20.2 and abs(second - 20.27) < 0.03  # the first has all of its padding


def test_a_cut_does_not_end_in_a_loud_place() -> None:
    """A soft consonant before the speech that was found belongs to it."""
    num_samples = 20 * SAMPLE_RATE
    power = np.full(2000, 1e-6, np.float32)
    power[470:1000] = 1e-2  # the sound starts at 4.7 s, and the speech that was found at 5.0 s
    (found,) = cut([(5 * SAMPLE_RATE, 10 * SAMPLE_RATE)], power, num_samples, LENGTHS)
    assert 4.3 * SAMPLE_RATE <= found.start <= 4.65 * SAMPLE_RATE and found.end == 10.2 * SAMPLE_RATE
    full = Lengths(LENGTHS.shortest, round(5.4 * SAMPLE_RATE), LENGTHS.padding)
    (whole,) = cut([(5 * SAMPLE_RATE, 10 * SAMPLE_RATE)], power, num_samples, full)
    assert whole.start == 4.8 * SAMPLE_RATE


def test_no_speech_is_no_cut() -> None:
    assert cuts_of([], 3) == []


pauses = st.sampled_from([1700, 3_000, 8_000, 8_500, 20_000, 40_000])
talk = st.integers(4_100, 900_000)


@given(speech=st.lists(st.tuples(pauses, talk), max_size=12), seed=st.integers(0, 99))
def test_all_speech_is_in_a_cut_and_no_cut_is_too_long(speech: list[tuple[int, int]], seed: int) -> None:
    borders = list(accumulate(length for pair in speech for length in pair))
    stretches = list(zip(borders[::2], borders[1::2], strict=True))
    num_samples = (borders[-1] if borders else 0) + 5_000
    power = np.random.default_rng(seed).random(-(-num_samples // FRAME)).astype(np.float32)
    found = cut(stretches, power, num_samples, LENGTHS)
    assert all(0 <= each.start < each.end <= num_samples for each in found)
    assert all(each.end - each.start <= LENGTHS.longest for each in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    covered = np.zeros(num_samples, bool)
    for each in found:
        covered[each.start : each.end] = True
    assert all(covered[start:end].all() for start, end in stretches)
    for one, other in pairwise(found):  # what is short has no neighbor to which it could be joined
        short = min(one.end - one.start, other.end - other.start) < LENGTHS.shortest
        near = other.start - one.end + 2 * LENGTHS.padding < LONGEST_INNER_PAUSE - 2 * LENGTHS.padding
        assert not (short and near) or other.end - one.start > LENGTHS.longest - 2 * LENGTHS.padding


def test_stretches_half_a_second_apart_are_separate() -> None:
    speech = [(0, 100), (100 + SEPARATING_PAUSE - 1, 20_000), (20_000 + SEPARATING_PAUSE, 40_000)]
    assert [len(group) for group in together(speech, SEPARATING_PAUSE)] == [2, 1]

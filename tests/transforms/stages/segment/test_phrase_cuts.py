"""Cuts by phrases: whole phrases, all of the speech, one speaker a cut; and what overlaps, is long, or has no text."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment.cutting import Cut, Lengths, cut
from echo_targets.transforms.stages.segment.phrase_cuts import cut_by_phrases, spoken_at_once
from echo_targets.transforms.stages.segment.scanning import FRAME

LENGTHS = Lengths(shortest=2 * SAMPLE_RATE, longest=30 * SAMPLE_RATE, padding=SAMPLE_RATE // 5)
Timed = tuple[float, float, str | None, str | None]


def samples(second: float) -> int:
    return round(second * SAMPLE_RATE)


def said(start: float, end: float, text: str | None = "x", speaker: str | None = None) -> Phrase:
    return Phrase(samples(start), samples(end), text, speaker)


def cuts_of(phrases: list[Phrase], *speech: float, length: float = 60, quiet: tuple[float, ...] = ()) -> list[Timed]:
    """Cuts in seconds, with text and border, of speech that is given as starts and ends."""
    power = np.ones(-(-samples(length) // FRAME), np.float32)
    for second in quiet:
        power[round(second * 100) - 5 : round(second * 100) + 5] = 0.01
    spans = list(zip(map(samples, speech[::2]), map(samples, speech[1::2]), strict=True))
    found = cut_by_phrases(phrases, spans, power, samples(length), LENGTHS)
    return [(each.start / SAMPLE_RATE, each.end / SAMPLE_RATE, each.text, each.border) for each in found]


def test_a_cut_is_a_group_of_whole_phrases_with_padding() -> None:
    phrases = [said(1, 3, "a"), said(3.3, 5, "b"), said(6, 9, "c")]
    assert cuts_of(phrases, 1.1, 5, 6, 9) == [(0.8, 5.2, "a b", "phrase"), (5.8, 9.2, "c", "phrase")]


def test_phrases_of_a_script_without_spaces_are_joined_without_them() -> None:
    phrases = [said(1, 3, "你好，"), said(3.3, 5, "世界。"), said(5.1, 6, "「好」"), said(6.1, 7, "OK")]
    assert [text for _, _, text, _ in cuts_of(phrases, 1, 7)] == ["你好，世界。「好」 OK"]


def test_what_is_longer_than_wanted_is_cut_at_its_longest_gap() -> None:
    phrases = [said(1, 10, "a"), said(10.2, 20, "b"), said(20.4, 35, "c"), said(35.3, 40, "d")]
    found = cuts_of(phrases, 1, 20, 20.4, 40)
    assert [text for _, _, text, _ in found] == ["a b", "c d"] and found[0][1] == found[1][0] == 20.2


def test_speech_that_goes_on_between_two_cuts_is_parted_where_it_is_quietest() -> None:
    phrases = [said(1, 20, "a"), said(20.6, 40, "b")]
    (_, end, _, _), (start, *_) = cuts_of(phrases, 1, 40, quiet=(20.45,))
    assert end == start and abs(end - 20.45) < 0.03


def test_of_equal_gaps_the_quietest_is_cut() -> None:
    phrases = [said(start, start + 5, str(start)) for start in range(0, 40, 5)]
    found = cuts_of(phrases, 0, 40, quiet=(25.0,))
    assert [text for _, _, text, _ in found] == ["0 5 10 15 20", "25 30 35"] and found[0][1] == found[1][0] == 25


def test_a_phrase_that_is_too_long_stays_whole_and_says_so() -> None:
    assert cuts_of([said(5, 45, "a"), said(46, 60, "b")], 5, 45, 46, 60) == [
        (4.8, 45.2, "a", "long_phrase"),
        (45.8, 60.0, "b", "end"),
    ]
    assert cuts_of([said(5, 60, "a")], 5, 60)[0][3] == "long_phrase"


def test_a_phrase_without_speech_is_a_cut() -> None:
    assert cuts_of([said(5, 9, "[Music]")]) == [(4.8, 9.2, "[Music]", "phrase")]


def test_speech_outside_phrases_is_a_cut_without_text() -> None:
    found = cuts_of([said(1, 4, "a"), said(10, 14, "b")], 1, 4, 5, 8.5, 10, 14)
    assert found == [(0.8, 4.2, "a", "phrase"), (4.8, 8.7, None, "pause"), (9.8, 14.2, "b", "phrase")]


def test_speech_beside_a_phrase_belongs_to_it_up_to_a_second() -> None:
    assert cuts_of([said(2, 4, "a")], 1.2, 4.9) == [(1.0, 5.1, "a", "phrase")]
    assert cuts_of([said(2, 4, "a")], 0.5, 4) == [(0.3, 2.0, None, "pause"), (2.0, 4.2, "a", "phrase")]


def test_other_speech_between_phrases_parts_them() -> None:
    """The phrases are short and near, but a cut of both would hold words that are not in its text."""
    found = cuts_of([said(1, 2, "a"), said(3.4, 4.4, "b")], 1, 4.4)
    assert [(text, border) for _, _, text, border in found] == [("a", "phrase"), (None, "pause"), ("b", "phrase")]


def test_speakers_do_not_share_a_cut() -> None:
    phrases = [said(1, 2, "a", "ann"), said(2.1, 3, "b", "bob"), said(3.1, 4, "c", "bob")]
    found = cut_by_phrases(phrases, [], np.ones(600, np.float32), samples(6), LENGTHS)
    assert [(each.speaker, each.text) for each in found] == [("ann", "a"), ("bob", "b c")]


def test_captions_that_stay_on_screen_end_where_the_next_begins() -> None:
    phrases = [said(start, start + 6, str(start)) for start in range(0, 60, 3)]
    found = cuts_of(phrases, 0, 60, length=64)
    assert " ".join(text or "" for _, _, text, _ in found).split() == [str(start) for start in range(0, 60, 3)]
    assert all(end - start <= 30 for start, end, _, _ in found) and len(found) >= 3
    assert all(abs(end - round(end / 3) * 3) < 0.21 for _, end, _, _ in found)


def test_speakers_who_overlap_a_little_are_parted_where_it_is_quietest() -> None:
    phrases = [said(1, 5, "a", "ann"), said(4, 9, "b", "bob")]
    first, second = cuts_of(phrases, 1, 9, quiet=(4.6,))
    assert first[2:] == ("a", "overlap") and second[2] == "b"
    assert first[1] == second[0] and abs(first[1] - 4.6) < 0.03


def test_speakers_who_overlap_by_half_share_a_cut() -> None:
    phrases = [said(1, 9, "a", "ann"), said(4, 5, "b", "bob")]
    (found,) = cut_by_phrases(phrases, [], np.ones(2_000, np.float32), samples(20), LENGTHS)
    assert (found.text, found.speaker) == ("a b", None)
    at_once = spoken_at_once(phrases, samples(20))
    assert at_once.sum() == 100 and at_once[400:500].all()


def test_labels_without_text_are_cut_at_pauses_and_never_joined() -> None:
    phrases = [said(1, 41, None, "ann"), said(41, 43, None, "bob"), said(42.9, 50, None, "ann")]
    found = cut_by_phrases(
        phrases,
        [(samples(1), samples(20)), (samples(20.4), samples(50))],
        np.ones(6_000, np.float32),
        samples(60),
        LENGTHS,
    )
    assert [each.speaker for each in found] == ["ann", "ann", "bob", "ann"]
    assert samples(20) <= found[0].end <= samples(20.4) and found[0].border == "pause"
    assert {each.text for each in found} == {None}


def test_a_label_inside_anothers_has_no_cut() -> None:
    phrases = [said(1, 9, None, "ann"), said(4, 5, None, "bob")]
    (found,) = cut_by_phrases(phrases, [], np.ones(2_000, np.float32), samples(20), LENGTHS)
    assert found.speaker == "ann" and found.text is None


@pytest.mark.parametrize("count", [0, 1, 7])
def test_without_phrases_nothing_changes(count: int) -> None:
    rng = np.random.default_rng(count)
    borders = np.cumsum(rng.integers(5_000, 600_000, 2 * count))
    speech = [(int(start), int(end)) for start, end in borders.reshape(-1, 2)]
    num_samples = int(borders.max(initial=0)) + 9_000
    power = rng.random(-(-num_samples // FRAME)).astype(np.float32)
    assert cut_by_phrases([], speech, power, num_samples, LENGTHS) == cut(speech, power, num_samples, LENGTHS)


@given(
    speech=st.lists(st.tuples(st.integers(17, 400), st.integers(41, 9_000)), max_size=10),
    phrases=st.lists(
        st.tuples(st.integers(-900, 900), st.integers(1, 5_000), st.sampled_from(["ann", "bob", None]), st.booleans()),
        max_size=14,
    ),
    seed=st.integers(0, 99),
)
def test_all_speech_and_every_text_is_in_a_cut(
    speech: list[tuple[int, int]], phrases: list[tuple[int, int, str | None, bool]], seed: int
) -> None:
    """Times are in hundredths of a second; phrases may overlap, lie outside the speech, and have no text."""
    borders = [border * FRAME for border in accumulate(length for pair in speech for length in pair)]
    stretches = list(zip(borders[::2], borders[1::2], strict=True))
    given_phrases, at = [], 0
    for number, (step, length, speaker, has_text) in enumerate(phrases):
        at = max(0, at + step)
        text = f"w{number}" if has_text else None
        given_phrases.append(Phrase(at * FRAME, (at + length) * FRAME, text, speaker))
        at += length
    num_samples = max([0, *borders, *(phrase.end for phrase in given_phrases)]) + 5_000
    power = np.random.default_rng(seed).random(-(-num_samples // FRAME)).astype(np.float32)
    found = cut_by_phrases(given_phrases, stretches, power, num_samples, LENGTHS)
    assert all(0 <= each.start < each.end <= num_samples for each in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert all(each.end - each.start <= LENGTHS.longest or each.border == "long_phrase" for each in found)
    covered = np.zeros(num_samples, bool)
    for each in found:
        covered[each.start : each.end] = True
    assert all(covered[start:end].all() for start, end in stretches)
    words = [word for each in found for word in (each.text or "").split()]
    ordered = sorted(given_phrases, key=lambda phrase: (phrase.start, phrase.end))
    assert words == [phrase.text for phrase in ordered if phrase.text]
    for phrase in given_phrases:
        check_its_cut(phrase, given_phrases, found)


def check_its_cut(phrase: Phrase, others: list[Phrase], found: list[Cut]) -> None:
    """A phrase with text that overlaps no other lies in its cut, whole, with its speaker."""
    alone = not any(phrase is not each and phrase.start < each.end and each.start < phrase.end for each in others)
    if phrase.text and alone:
        (own,) = [each for each in found if phrase.text in (each.text or "").split()]
        assert own.start <= phrase.start and phrase.end <= own.end and own.speaker in (phrase.speaker, None)
        if phrase.speaker is None:
            assert own.speaker is None

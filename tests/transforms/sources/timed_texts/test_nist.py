"""CTM, STM and RTTM as scoring tools, aligners and diarizers write them."""

from __future__ import annotations

import contextlib
import time

import pytest

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.timed_texts.registry import phrases_of

Said = tuple[float, float, str | None, str | None, int | None]


def read(text: str, name: str, recordings: tuple[str, ...] = ("call", "file")) -> list[Said]:
    found = phrases_of(text.encode(), name, recordings)
    return [(p.start / SAMPLE_RATE, p.end / SAMPLE_RATE, p.text, p.speaker, p.channel) for p in found]


def test_words_with_and_without_confidence() -> None:
    text = ";; comment\ncall 1 0.50 0.25 hello 0.97\n\ncall\t1\t0.75\t0.5\tyou\nelse 1 0 1 no 0.5\r\n"
    assert read(text, "a.ctm") == [(0.5, 0.75, "hello", None, 0), (0.75, 1.25, "you", None, 0)]


def test_silence_is_no_word_and_a_word_of_0_00_s_is_one() -> None:
    text = "call 1 0 0.5 <eps>\ncall 1 0.5 0.00 a\ncall 1 0.5 0 SIL\ncall 1 .75 1e-1 <unk>\n"
    assert read(text, "a.ctm") == [(0.5, 0.51, "a", None, 0), (0.75, 0.85, "<unk>", None, 0)]


def test_words_are_sorted_and_have_speakers_and_channels() -> None:
    text = "call B 3 1 yes 0.9 lex bob\ncall A 1 1 no NA lex <NA>\n"
    assert read(text, "a.ctm") == [(1, 2, "no", None, 0), (3, 4, "yes", "bob", 1)]
    assert [said[4] for said in read("call 0 1 1 a\ncall 1 2 1 b\n", "a.ctm")] == [0, 1]
    assert [said[4] for said in read("call 1 1 1 a\ncall 2 2 1 b\n", "a.ctm")] == [0, 1]
    assert read("call speaker_0 1 1 a 0\n", "a.ctm") == [(1, 2, "a", "speaker_0", None)]  # as NeMo writes it


def test_utterances_and_their_labels() -> None:
    text = (
        ';; LABEL "o" "Overall" "Overall"\n'
        "call 1 inter_segment_gap 0 12.1 <o,,unknown> ignore_time_segment_in_scoring\n"
        "call 1 Al_Gore 12.1 23.5 <o,f0,male> hello <unk> you (2)\n"
        "call A Al_Gore 23.5 24 <NA> yes\n"
        "call A Al_Gore 24 25 <F0_M> no\n"
        "call 2 bob 30 31 IGNORE_TIME_SEGMENT_IN_SCORING\n"
        "call 2 bob 0.00 0.00 <O,12,U> IGNORE_TIME_SEGMENT_IN_SCORING\n"
        "call 2 bob 31 32.5\n"
        "call 2 gap 31 32.5 <O>\n"
        "call 2 bob 32.5 33 <M> <UNK>\n"
        "call 2 bob 33 34 <laugh> well\n"
    )
    assert read(text, "a.stm") == [
        (12.1, 23.5, "hello <unk> you (2)", "Al_Gore", 0),
        (23.5, 24, "yes", "Al_Gore", 0),
        (24, 25, "no", "Al_Gore", 0),
        (32.5, 33, "<UNK>", "bob", 1),
        (33, 34, "<laugh> well", "bob", 1),
    ]


def test_who_speaks_when() -> None:
    text = (
        "SPKR-INFO call 1 <NA> <NA> <NA> unknown ann <NA>\n"
        "SPEAKER call 1 0.297 0.703 <NA> <NA> ann <NA> <NA>\n"
        "SPEAKER call 1 2.5 0.5 <NA> <NA> bob <NA>\n"
        "NON-SPEECH call 1 3 1 <NA> other <NA> <NA>\n"
        "SPEAKER else 1 0 9 <NA> <NA> eve <NA> <NA>\n"
    )
    assert read(text, "a.rttm") == [(0.297, 1.0, None, "ann", 0), (2.5, 3.0, None, "bob", 0)]
    assert read("SPEAKER call 1 1 1 <NA> <NA> <NA> <NA> <NA>\n", "a.rttm") == [(1, 2, None, None, 0)]


def test_the_recordings_id_is_preferred_to_its_files_name() -> None:
    text = "file 1 0 1 no\ncall 1 0 1 yes\n"
    assert read(text, "a.ctm")[0][2] == "yes" and read(text, "a.ctm", ("other", "file"))[0][2] == "no"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ctm", "else 1 0 1 yes\nmore 1 0 1 yes\n", "has no line of call, but of else, more: name the"),
        ("a.ctm", ";; nothing\n", "a.ctm has no line of call, but of no recording"),
        ("a.ctm", "call 1 0 1 a\ncall 1 0 yes\n", "a.ctm:2: has 4 words; expected `name channel start duration word`"),
        ("a.ctm", "call 1 0,5 1 a\n", "a.ctm:1: the start '0,5' is not a number of seconds"),
        ("a.ctm", "call 1 * * <ALT_BEGIN>\n", "a.ctm:1: is a part of alternatives, '<ALT_BEGIN>'"),
        ("a.stm", "call 1 ann 1 2 <O> so { um / uh / @ } yes\n", "a.stm:1: has the alternatives '{ um / uh / @ }'"),
        ("a.ctm", "call 1 1 -1 a\n", "a.ctm:1: the duration '-1' is outside"),
        ("a.ctm", "call 1 nan 1 a\n", "the start 'nan' is not a number"),
        ("a.ctm", "call 1 1e400 1 a\n", "the start '1e400' is outside"),
        ("a.stm", "call 1 ann 5 4 <o,f0,male> a\n", "a.stm:1: ends at 4.00 s, but starts at 5.00 s"),
        ("a.stm", "call 1 ann\n", "a.stm:1: has 3 words"),
        ("a.rttm", "SPEAKER my call 1 0 1 <NA> <NA> ann <NA> <NA>\n", "a.rttm:1: has more than ten words"),
        ("a.rttm", "SPEAKER call 1 0 1 <NA>\n", "a.rttm:1: has 5 words"),
        ("a.rttm", "\ncall 1 0 1 <NA> <NA> ann\n", "a.rttm:2: begins with 'call'; expected SPEAKER"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_says_where_and_what_to_do(name: str, text: str, message: str) -> None:
    with pytest.raises(BadData) as raised:
        read(text, name)
    assert message in str(raised.value) and raised.value.error_class == "bad_timed_text"


def test_invisible_characters_are_no_words() -> None:
    text = "call 1 0 1 \ufeffyes\u200b\ncall 1 1 1 \u200b\ncall 1 2 1 \u3000\n"
    assert read(text, "a.ctm") == [(0, 1, "yes", None, 0)]
    assert read("call 1 ann 0 1 \u00a0yes\u3000no \u200b\n", "a.stm") == [(0, 1, "yes\u3000no", "ann", 0)]


LONG = 150_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.stm", "call 1 a 0 1 { " + "/ " * LONG),
        ("a.stm", "call 1 a 0 1 <" + "," * LONG),
        ("a.ctm", "call 1 " + "1" * LONG + "x 1 yes"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n<v" + " " * LONG),
        ("a.srt", "9" * LONG + "\n00:00:01,000 --> 00:00:02,000\nyes"),
        ("a.vtt", "WEBVTT\n\n" + "1:" * LONG + " --> 2"),
        ("a.TextGrid", "1" * LONG + "x"),
        ("a.TextGrid", '""' * LONG + '"'),
    ],
    ids=range(8),
)
def test_hostile_lines_take_no_time(name: str, text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(BadData):
        phrases_of(text.encode(), name, ("call",))
    assert time.process_time() - began < 5


def test_lines_of_other_recordings_do_no_harm() -> None:
    assert read("else 1 x y z\ncall 1 0 1 yes\n", "a.ctm") == [(0, 1, "yes", None, 0)]

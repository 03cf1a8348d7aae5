"""SubRip and WebVTT as people have them, and as pysubs2 writes them."""

from __future__ import annotations

import codecs

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.sources.timed_texts.registry import phrases_of
from echo_targets.transforms.text import join

TIMES = "00:00:01,500 --> 00:00:03,000"
Said = tuple[float, float, str | None, str | None]


def read(text: str | bytes, name: str = "a.srt") -> list[Said]:
    data = text if isinstance(text, bytes) else text.encode()
    return [(p.start / SAMPLE_RATE, p.end / SAMPLE_RATE, p.text, p.speaker) for p in phrases_of(data, name, ())]


def cue(text: str, times: str = "00:00:01,500 --> 00:00:03,000") -> str:
    return f"7\n{times}\n{text}\n\n"


def says(text: str, name: str = "a.srt") -> str | None:
    (found,) = read(cue(text) if name == "a.srt" else f"WEBVTT\n\n{cue(text)}", name)
    return found[2]


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01,500 --> 00:00:03,000", 1.5, 3),
        ("00:00:01.500 --> 00:00:03.000", 1.5, 3),
        ("00:00:01 --> 00:00:03", 1, 3),
        ("0:0:1,5 --> 0:0:3,25", 1.5, 3.25),
        ("00:01,5-->00:03,0", 1.5, 3),
        ("99:59:58,000 --> 100:00:01,250", 359_998, 360_001.25),
        ("  00:00:01,500 --> 00:00:03,000  X1:117 X2:619 Y1:042 Y2:428", 1.5, 3),
    ],
)
def test_times(times: str, start: float, end: float) -> None:
    assert read(cue("yes", times)) == [(start, end, "yes", None)]
    assert read(f"WEBVTT\n\n{times} align:start position:0%\nyes\n", "a.vtt") == [(start, end, "yes", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo", "one two"),
        ("你好，\n世界", "你好，世界"),
        ("「はい」\n（笑）", "「はい」（笑）"),
        ('<i>one</i> <b>two</b> <font color="#fff">three</font>', "one two three"),
        (r"{\an8}one {\i1}two{\i0}\Nthree", "one two three"),
        ("R&amp;B &lt;i&gt; &quot;a&quot; &#39;b&#39; caf&eacute;", "R&B <i> \"a\" 'b' café"),
        ("R&D at AT&T; 1 < 2 > 0 <unk> {laughs}", "R&D at AT&T; 1 < 2 > 0 <unk> {laughs}"),
        ("[APPLAUSE] (laughs) ♪ la la ♪", "[APPLAUSE] (laughs) ♪ la la ♪"),
        ("one<br>two<br/>three", "one two three"),
        ("welcome<00:00:01.469><c> to</c><c.yellow> it</c>", "welcome to it"),
        ("10:30 - 11:00", "10:30 - 11:00"),
        ("\u200b one \ufeff", "one"),
        ("&amp;lt;", "&lt;"),
    ],
)
def test_markup_is_not_text(text: str, expected: str) -> None:
    assert says(text) == says(text, "a.vtt") == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, end: str) -> None:
    assert read((cue("ça va") + cue("日本")).replace("\n", end).encode(encoding)) == [
        (1.5, 3, "ça va", None),
        (1.5, 3, "日本", None),
    ]


def test_a_cue_may_have_empty_lines_and_numbers() -> None:
    first = "1\n00:00:01,000 --> 00:00:02,000\none\n\n42\n\n"
    text = first + "2\n00:00:02,000 --> 00:00:03,000\n\n3\n00:00:03,000 --> 00:00:04,000\n4"
    assert [(start, said) for start, _, said, _ in read(text)] == [(1, "one 42"), (3, "4")]
    unnumbered = "00:00:01,000 --> 00:00:02,000\n42\n00:00:02,000 --> 00:00:03,000\n43\n"
    assert [said for _, _, said, _ in read(unnumbered)] == ["42", "43"]


def test_cues_out_of_order_are_sorted_and_overlaps_stay() -> None:
    text = cue("b", "00:00:05,000 --> 00:00:07,000") + cue("a", "00:00:01,000 --> 00:00:06,000")
    assert [(start, end, said) for start, end, said, _ in read(text)] == [(1, 6, "a"), (5, 7, "b")]


def test_a_cue_needs_no_empty_line_before_it() -> None:
    """As YouTube and Netflix write them: cues without a line between them, and blanks on the line before a number."""
    text = f"WEBVTT\n\n    \n\n     \n1\n{TIMES}\none\n00:03.000 --> 00:04.000 align:start\ntwo\n"
    assert read(text, "a.vtt") == [(1.5, 3, "one", None), (3, 4, "two", None)]


def test_a_number_that_is_said_is_no_cue() -> None:
    text = f"1\n{TIMES}\none\n\n2\n{TIMES}\nthree\n\n3\nfour\n\n3\n{TIMES}\nfive"
    assert [said for _, _, said, _ in read(text)] == ["one", "three 3 four", "five"]


def test_a_cue_without_a_length_belongs_to_the_one_before() -> None:
    """As whisper.cpp writes it with --max-len; other programs end files with empty cues at 0."""
    times = [f"00:00:0{start},000 --> 00:00:0{end},000" for start, end in ((1, 3), (3, 3), (3, 4), (0, 0))]
    text = "".join(map(cue, ["one", "two", "three", ""], times))
    assert read(text) == [(1, 3, "one two", None), (3, 4, "three", None)]


def test_voices_are_speakers() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Mary Jane>Hi <i>there</i>\n<v.loud Bob>Yes</v>\n\n"
    assert read(text, "a.vtt") == [(1, 2, "Hi there", "Mary Jane"), (1, 2, "Yes", "Bob")]
    alone = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Roger Bingham> \nWe are in New York City\n"
    assert read(alone, "a.vtt") == [(1, 2, "We are in New York City", "Roger Bingham")]


def test_comments_styles_and_regions_are_no_text() -> None:
    text = (
        "WEBVTT - a title\nKind: captions\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n\nNOTE one\ntwo\n\n"
        "STYLE\n::cue(b) {\n  color: peachpuff;\n}\n\nREGION\nid:fred\n\nintro\n00:01.000 --> 00:02.000\nyes\n"
    )
    assert read(text, "a.vtt") == [(1, 2, "yes", None)]
    assert read("WEBVTT\n", "a.vtt") == []


def rolling(*lines: str) -> str:
    """Captions as YouTube makes them: a line appears word by word under the last one, and then alone for 10 ms."""
    blocks, last = ["WEBVTT\nKind: captions\nLanguage: en"], " "
    for number, line in enumerate(lines):
        first, *rest = line.split()
        timed = first + "".join(f"<00:00:{number:02d}.500><c> {word}</c>" for word in rest)
        clock = f"00:00:{number:02d}.010 --> 00:00:{number + 1:02d}.000 align:start position:0%"
        hold = f"00:00:{number + 1:02d}.000 --> 00:00:{number + 1:02d}.010 align:start position:0%"
        blocks += [f"{clock}\n{last}\n{timed}", f"{hold}\n{line}\n "]
        last = line
    return "\n\n".join(blocks) + "\n"


def test_rolling_captions_say_each_line_once() -> None:
    lines = ["welcome to the show", "yes", "yes", "no no", "and so on", "no no"]
    found = read(rolling(*lines), "a.vtt")
    assert [said for _, _, said, _ in found] == lines
    assert [start for start, *_ in found] == [number + 0.01 for number in range(6)]


def test_short_rolling_captions() -> None:
    assert [said for _, _, said, _ in read(rolling("so", "it goes", "on"), "a.vtt")] == ["so", "it goes", "on"]


def test_rolling_captions_of_three_lines() -> None:
    shown = ["a b", "a b\nc d", "a b\nc d\ne f", "c d\ne f\ng h", "e f\ng h\ni j", "g h\ni j\nk l"]
    text = "".join(cue(lines, f"00:00:{at:02d},000 --> 00:00:{at + 1:02d},000") for at, lines in enumerate(shown))
    assert [said for _, _, said, _ in read(text)] == ["a b", "c d", "e f", "g h", "i j", "k l"]


def test_what_is_said_twice_stays() -> None:
    lines = ["yes", "yes", "yes", "no\nyes", "yes\nno", "what\nnow", "row\nrow", "your\nboat", "a\nb", "c\nd"]
    text = "".join(cue(line, f"00:00:{at:02d},000 --> 00:00:{at + 1:02d},000") for at, line in enumerate(lines))
    assert [said for _, _, said, _ in read(text)] == [line.replace("\n", " ") for line in lines]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.srt", "", "a.srt is empty: export it again"),
        ("a.srt", "one\ntwo\n", "a.srt:1: has no times"),
        ("a.srt", "title\n" + cue("yes"), "a.srt:1: begins with 'title'"),
        ("a.srt", cue("yes") + cue("no", "00:00:03,000 -> 00:00:04,000"), "a.srt:6: '00:00:03,000 -> 00:00:04,000'"),
        ("a.srt", cue("yes", "00:00:03,000 --> 00:00:03,000"), "a.srt:2: ends at 3.00 s, but starts at 3.00 s"),
        ("a.srt", cue("", "00:00:03,000 --> 00:00:02,000"), "a.srt:2: ends at 2.00 s, but starts at 3.00 s"),
        ("a.srt", cue("yes", "-00:00:03,000 --> 00:00:04,000"), "a.srt:2: "),
        ("a.srt", cue("yes", "00:61:03,000 --> 00:62:04,000"), "more than 59 minutes or seconds"),
        ("a.srt", cue("yes", "00:00:03:12 --> 00:00:04:20"), "04:20' has no valid times; expected"),
        ("a.srt", cue("yes", "00:00:٠٣,000 --> 00:00:04,000"), "has no valid times"),
        ("a.srt", cue("caf\xe9").encode("latin-1"), "a.srt:3: is not UTF-8: convert it, for example with iconv"),
        ("a.srt", cue("yes").encode("utf-16-le"), "a.srt:1: holds a NUL: save it as UTF-8"),
        ("a.srt", codecs.BOM_UTF16_LE + b"a", "a.srt:1: is not UTF-16-LE"),
        ("a.vtt", cue("yes"), "a.vtt:1: begins with '7'; expected WEBVTT"),
        ("a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\nyes\n", "a.vtt:1: has a cue in its header"),
        ("a.vtt", "WEBVTT\n\nyes\n\n00:01.000 --> 00:02.000\nno\n", "a.vtt:3: 'yes' belongs to no cue"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nno\n00:02.000 --> 00:1d.000\nyes\n", "a.vtt:5: '00:02"),
        ("a.srt", f"1\n{TIMES}\none\n\n2\ntwo\n\n3\n{TIMES}\nthree\n", "a.srt:5: cue 2 has no times; expected"),
        ("a.srt", f"1\n{TIMES}\none\n\n2\ntwo\n", "a.srt:5: cue 2 has no times; expected"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_says_where_and_what_to_do(name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(BadData) as raised:
        read(text, name)
    assert message in str(raised.value) and raised.value.error_class == "bad_timed_text"


words = st.text("abc é日'-,.?!", min_size=1, max_size=12).map(str.strip).filter(bool)
lines = st.lists(words, min_size=1, max_size=3).map("\n".join)


@given(
    cues=st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 400_000), lines), min_size=1, max_size=8),
    ending=st.sampled_from(["srt", "vtt"]),
)
def test_what_pysubs2_writes_is_read_alike(cues: list[tuple[int, int, str]], ending: str) -> None:
    """Times are in milliseconds; those below 100 hours are all that pysubs2 can write."""
    file, at, expected = pysubs2.SSAFile(), 0, list[Said]()
    for number, (pause, length, said) in enumerate(cues):
        text = f"{number} {said}"  # no cue begins like the end of the last one, as rolling captions do
        at += pause
        file.append(pysubs2.SSAEvent(at, at + length, text=text.replace("\n", r"\N")))
        expected.append((at / 1000, (at + length) / 1000, join(text.split("\n")), None))
        at += length
    found = read(file.to_string(ending), f"a.{ending}")
    assert [said[2:] for said in found] == [said[2:] for said in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[:2] == pytest.approx(other[:2], abs=1 / SAMPLE_RATE)


@given(text=st.text("0123456789:,.->\n \t<>{}&;/vWEBTaé", max_size=80), name=st.sampled_from(["a.srt", "a.vtt"]))
def test_any_text_is_read_or_says_why_not(text: str, name: str) -> None:
    try:
        found = phrases_of(f"WEBVTT\n\n{text}".encode() if name == "a.vtt" else text.encode(), name, ())
    except BadData:
        return
    assert all(isinstance(phrase, Phrase) and phrase.start < phrase.end and phrase.text for phrase in found)

"""TextGrids as praatio and Praat write them: long and short, in any encoding, with several tiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from praatio import textgrid
from praatio.utilities import textgrid_io

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.timed_texts.registry import phrases_of

Said = tuple[float, float, str | None, str | None]
Labels = list[tuple[float, float, str]]


def read(data: bytes | str, *tiers: str) -> list[Said]:
    found = phrases_of(data if isinstance(data, bytes) else data.encode(), "a.TextGrid", (), tiers)
    return [(p.start / SAMPLE_RATE, p.end / SAMPLE_RATE, p.text, p.speaker) for p in found]


def written(folder: Path, form: str, **tiers: Labels | list[tuple[float, str]]) -> bytes:
    """What praatio writes."""
    grid = textgrid.Textgrid(0, 9)
    for name, entries in tiers.items():
        is_points = len(entries[0]) == 2
        grid.addTier((textgrid.PointTier if is_points else textgrid.IntervalTier)(name, entries, 0, 9))
    path = folder / "a.TextGrid"
    grid.save(str(path), form, includeBlankSpaces=True)
    return path.read_bytes()


WORDS: Labels = [(0.5, 1.25, "hello"), (1.25, 2, 'he said "no"'), (4, 8.5, "well, item [1]: size = 3")]


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_both_forms_in_any_encoding(tmp_path: Path, form: str, encoding: str) -> None:
    data = written(tmp_path, form, talk=WORDS, clicks=[(0.7, "x"), (3.0, "y")])
    assert read(data.decode().encode(encoding)) == [(*said, None) for said in WORDS]


def test_the_tiers_with_the_text(tmp_path: Path) -> None:
    one: Labels = [(1, 2, "yes")]
    other: Labels = [(3, 4, "y")]
    assert read(written(tmp_path, "long_textgrid", words=one, phones=other)) == [(1, 2, "yes", None)]
    assert read(written(tmp_path, "long_textgrid", Sentence=one, phones=other)) == [(1, 2, "yes", None)]
    aligned = {"ann - words": one, "ann - phones": other, "bob - words": [(5, 6, "no")], "bob - phones": other}
    found = read(written(tmp_path, "short_textgrid", **aligned))
    assert found == [(1, 2, "yes", "ann"), (5, 6, "no", "bob")]
    named = written(tmp_path, "short_textgrid", ann=one, bob=other, notes=[(7, 8, "z")])
    assert read(named, "ann", "bob") == [(1, 2, "yes", "ann"), (3, 4, "y", "bob")]
    assert read(named, "bob") == [(3, 4, "y", None)]
    with pytest.raises(BadData, match=r"has the tiers 'ann', 'bob', 'notes': list those with the text"):
        read(named)


def test_silence_is_no_text(tmp_path: Path) -> None:
    labels: Labels = [(0, 1, "sil"), (1, 2, "yes"), (2, 3, "<eps>"), (3, 4, "sp"), (4, 5, "spn")]
    assert [said[2] for said in read(written(tmp_path, "long_textgrid", words=labels))] == ["yes", "spn"]


HEAD = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
TIER = '"IntervalTier"\n"words"\n0\n9\n'


def test_free_text_around_the_values_is_ignored() -> None:
    text = HEAD + f'0 ! "a comment"\n9\n<exists>\n1\n{TIER}1\n0.5 2\n"two\nlines"\n'
    assert read(text) == [(0.5, 2, "two lines", None)]
    assert read(HEAD + f"0\n9\n<exists>\n1\n{TIER}0\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + f"0\n9\n<exists>\n1\n{TIER}2\n0 1 \"yes\"\n1 2", "a.TextGrid:13: ends where an interval's"),
        (HEAD + f'0\n9\n<exists>\n1\n{TIER}1\n0 1 "yes', "ends where an interval's text is expected"),
        (HEAD + f'0\n9\n<exists>\n1\n{TIER}1\n2 1 "yes"\n', "a.TextGrid:13: ends at 1.00 s, but starts at 2.00 s"),
        (HEAD + f'0\n9\n<exists>\n1\n{TIER}1\n0 "yes"\n', "a.TextGrid:13: has '\"yes\"' instead of an interval's xmax"),
        (HEAD + f'0\n9\n<exists>\n1\n{TIER}1.5\n0 1 "yes"\n', "a.TextGrid:12: size '1.5' is not a whole number"),
        (HEAD + "7.5\n9\n<exists>\n0\n", "a.TextGrid:4: begins at 7.5 s, so its times are those of a longer recording"),
        (HEAD + '0\n9\n<exists>\n1\n"SpectrumTier"\n', "a.TextGrid:8: has the tier class 'SpectrumTier'"),
        ('File type = "ooTextFile"\nObject class = "PitchTier"\n', "expected a TextGrid"),
        ('"Praat chronological TextGrid text file"\n0 9\n', "a.TextGrid:1: is not a TextGrid as text"),
        ("ooBinaryFile\x08TextGrid", "a.TextGrid:1: is not a TextGrid as text"),
        (HEAD + "0\n9\n<exists>\n99999999999999999999\n", "a.TextGrid:7: ends where a tier's class is expected"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_says_where_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(BadData) as raised:
        read(text)
    assert message in str(raised.value) and raised.value.error_class == "bad_timed_text"


def test_wanted_tiers_that_are_not_there_or_have_points(tmp_path: Path) -> None:
    data = written(tmp_path, "long_textgrid", words=WORDS, clicks=[(0.7, "x")])
    with pytest.raises(BadData, match=r"has none of the wanted tiers; it has 'words', 'clicks': correct stages"):
        read(data, "Words")
    with pytest.raises(BadData, match="tier 'clicks' has points, which have no end"):
        read(data, "clicks")


labels = st.text('ab"é日 -!<>[]=1.', min_size=1, max_size=12).map(str.strip).filter(bool)


@given(spans=st.lists(st.tuples(st.integers(1, 400), labels), min_size=1, max_size=6), is_long=st.booleans())
def test_what_praatio_writes_is_read_alike(spans: list[tuple[int, str]], is_long: bool) -> None:
    """Times are in hundredths of a second."""
    at, entries = 0, list[Any]()
    for length, label in spans:
        entries.append(textgrid_io.Interval(at / 100, (at + length) / 100, label))
        at += length
    tier = {"class": "IntervalTier", "name": "words", "xmin": 0, "xmax": at / 100, "entries": entries}
    grid = {"xmin": 0, "xmax": at / 100, "tiers": [tier]}
    form = "long_textgrid" if is_long else "short_textgrid"
    found = read(textgrid_io.getTextgridAsStr(grid, form, includeBlankSpaces=True))
    assert [said[2] for said in found] == [label for _, label in spans]
    for one, other in zip(found, entries, strict=True):
        assert one[:2] == pytest.approx((other.start, other.end), abs=1 / SAMPLE_RATE)

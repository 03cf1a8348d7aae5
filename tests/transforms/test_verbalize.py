"""What is spoken for what is written; and the embedded voice, which reads numbers itself, says the same phonemes."""

from __future__ import annotations

import doctest
import sys

import pytest

pytest.importorskip("hibari", reason="the [voices] extra is not installed")

from echo_targets.transforms import verbalize as module
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.verbalize import verbalize

ENGLISH = {
    "I have 5 cats and 21 dogs.": "I have five cats and twenty one dogs.",
    "It costs $3.50, or €1,250.75!": (
        "It costs three dollars and fifty cents, or one thousand two hundred fifty euros and seventy five cents!"
    ),
    "He paid $1, £0.99 and $5 million.": "He paid one dollar, ninety nine pence and five million dollars.",
    "On 3/14/2021 at 7:30, 1,250 people came.": (
        "On March fourteenth, twenty twenty one at seven thirty, one thousand two hundred fifty people came."
    ),
    "In 1905, in 2005, in the 1990s and the '80s": (
        "In nineteen oh five, in two thousand five, in the nineteen nineties and the eighties"
    ),
    "the 1st, 2nd and 23rd": "the first, second and twenty third",
    "-10°C, 50% of 1/2 cup, 3.14": "minus ten degrees Celsius, fifty percent of one half cup, three point one four",
    "Dr. Smith vs. Mr. Jones, Baker St.": "Doctor Smith versus Mister Jones, Baker Street.",
    "No. 5 & 6": "Number five and six",
    "COVID-19, 221B, MP3, agent 007": "COVID nineteen, two hundred twenty one B, MP three, agent zero zero seven",
    "Is it no. 5? He said no. It is 5.": "Is it number five? He said no. It is five.",
    "I saw 2 in the Sun. Sat. came.": "I saw two in the Sun. Saturday came.",
    "Mr. J. K. Smith of Co. Ltd. came. At 10:30-11:15": (
        "Mister J. K. Smith of Company. Limited came. At ten thirty to eleven fifteen"
    ),
    "version 2.0.1": "version two point zero point one",
    "12345678901234567890": (
        "one two three four five six seven eight nine zero one two three four five six seven eight nine zero"
    ),
}
AS_HIBARI = (
    "I have 5 cats and 21 dogs.",
    "It costs $3.50, or €1,250.75 in 2024.",
    "On 3/14/2021 at 7:30 pm, 1,250 people came.",
    "In 1905, in 2005, in 2010.",
    "It weighs 1,234,567 pounds.",
    "The 23rd of May, 3:00, page 12.",
    "World War II and Henry VIII; Chapter IV.",
    "$5 million, £20k, ¥500",
)
"""Numbers that the embedded voice reads well by itself."""


@pytest.mark.parametrize(("written", "spoken"), ENGLISH.items())
def test_english(written: str, spoken: str) -> None:
    assert verbalize(written, "en") == verbalize(written, "en-US") == spoken
    assert verbalize(spoken, "en") == spoken


@pytest.mark.parametrize("written", AS_HIBARI)
def test_the_embedded_voice_reads_it_no_differently(written: str) -> None:
    from hibari import Hibari

    phonemize = Hibari().phonemize
    spoken = verbalize(written, "en")
    assert not any(map(str.isdigit, spoken))
    assert phonemize(spoken) == phonemize(written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Isn’t it?  Two   spaces.",
        "“Quoted” — dashes… (and more)",
        "line one\nline two\n\nline three",
        "naïve café",
    ],
)
@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_text_without_any_stays_as_it_is(text: str, language: str) -> None:
    assert verbalize(text, language) == text


def test_lines_stay_apart() -> None:
    assert verbalize("First,  as is.\nThen 2.", "en") == "First,  as is.\nThen two."


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("de", "21 Katzen, 3,5 Liter", "einundzwanzig Katzen, drei Komma fünf Liter"),
        ("de", "1.250 Euro", "eintausendzweihundertfünfzig Euro"),
        ("fr", "J'ai 80 ans.", "J'ai quatre-vingts ans."),
        ("pt-BR", "Tenho 16 anos, $5 & mais", "Tenho dezesseis anos, $cinco & mais"),
        ("am", "1250", "1250"),
        ("it", "21 e 1000000,5", "ventuno e 1000000,5"),
        ("tr", "5 ve 0,05", "beş ve 0,05"),
        ("xx", "5 of them", "5 of them"),
        ("", "5 of them", "5 of them"),
    ],
)  # fmt: skip
def test_other_languages_have_their_digits_spelled(language: str, written: str, spoken: str) -> None:
    assert verbalize(written, language) == spoken


def test_long_numbers_are_read_digit_by_digit() -> None:
    assert verbalize("1" * 16, "de") == " ".join(["eins"] * 16)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(ModelError, match=r"num2words is not installed: pip install 'echo-targets\[voices\]'"):
        verbalize("5", "en")


def test_examples() -> None:
    assert doctest.testmod(module).attempted == 2 and not doctest.testmod(module).failed

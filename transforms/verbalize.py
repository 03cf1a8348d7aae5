"""Verbalization: what a voice speaks for a written text, with digits, dates, money and abbreviations in words.

English takes two libraries: hibari's normalizer reads times, dates, units, abbreviations and symbols, and num2words the
numbers that it leaves, as hibari's voice itself reads them. The field's grammars were tried: NeMo's need a compiler
(cdifflib), and those of wetext read 1,250 as "thousand two hundred and fifty" and fail on two spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from echo_targets.transforms.errors import ModelError

MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
}
TITLES = {"Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor"}
"""Abbreviations that hibari's voice has in its lexicon, and so leaves as they are."""
SYMBOLS = {"&": "and", "@": "at", "+": "plus", "%": "percent"}
WORDS = ("no", "Sun", "Sat", "Mon", "Wed", "Mar", "Jun", "ed", "fig", "ch", "est")
"""Abbreviations that are words at the end of a sentence, where hibari reads "no." as "number"."""
FINAL_WORD = re.compile(rf"(?<![\w.])({'|'.join(WORDS)})\.(?=\s*$|\s+[\"“‘(]?[A-Z])")
LANGUAGES = re.compile(
    "ar|az|be|bn|ca|cs|da|de|eo|es|fa|fi|fr|he|hu|id|is|it|ja|ko|lt|lv|nl|no|pl|pt|ro|ru|sk|sl|sr|sv|th|tr|uk|vi"
)
"""Languages whose numbers num2words spells. It has others, but fails on some of their numbers, or never returns."""
MOST_DIGITS = 15
"""Longer numbers are read digit by digit."""

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)*"
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+(?=[\"“‘(]?[A-Z])")
_CLOCK_RANGE = re.compile(r"(?<=\d:\d\d)\s?[-–]\s?(?=\d{1,2}:\d\d)")
_WORDS = re.compile(r"[^\W_]+")


def verbalize(text: str, language: str) -> str:
    """Return a text as it is spoken. A text whose words stay the same is returned as it is.

    >>> verbalize("It cost $3.50 on Jan. 5, 1999.", "en")
    'It cost three dollars and fifty cents on January fifth, nineteen ninety nine.'
    >>> verbalize("Ich habe 21 Katzen.", "de")
    'Ich habe einundzwanzig Katzen.'

    Args:
        text: any text.
        language: code of its language, such as `en` or `pt-BR`. English is read as a whole; in other languages only
            digits are, if num2words knows the language.

    Raises:
        ModelError: a library is not installed.
    """
    read = _english if language.lower().split("-")[0] == "en" else _digits_of(language)
    lines = [(line, read(line)) for line in text.split("\n")]
    return "\n".join(line if _WORDS.findall(line) == _WORDS.findall(spoken) else spoken for line, spoken in lines)


def _english(text: str) -> str:
    if not text.strip():
        return text
    try:
        from hibari.g2p.normalize import normalize
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    spoken = []
    for sentence in _sentences(_CLOCK_RANGE.sub(" to ", text)):
        word = FINAL_WORD.search(sentence)
        read = f"{normalize(sentence[: word.start()])} {word[0]}" if word else normalize(sentence)
        read = re.sub(rf"\b({'|'.join(TITLES)})\b", lambda found: TITLES[found[0]], read)
        for pattern, words in _ENGLISH:
            read = pattern.sub(words, read)
        spoken.append(read)
    return re.sub(r" +(?=[ ,.;:!?]|$)", "", " ".join(spoken)).strip()


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text. hibari's normalizer keeps the period of an abbreviation that ends one."""
    from hibari.g2p.normalize import TITLES as BEFORE_NAMES

    sentences: list[str] = []
    for part in _SENTENCE_END.split(text):
        last = sentences[-1].split()[-1].strip(".(\"“'‘") if sentences and sentences[-1].strip() else "."
        if sentences and (last in (*BEFORE_NAMES, "vs") or (len(last) == 1 and last.isupper())):
            sentences[-1] += f" {part}"  # "Dr. Smith", "J. K. Rowling", "Oxford vs. Cambridge"
        else:
            sentences.append(part)
    return sentences


def _money(found: re.Match[str]) -> str:
    one, many, cent, cents = MONEY[found[1]]
    whole, _, part = found[2].replace(",", "").partition(".")
    amounts = [(int(whole), one, many)] if int(whole) or not part.strip("0") else []
    if part.strip("0"):
        amounts.append((int(part.ljust(2, "0")), cent, cents))
    return " and ".join(
        f"{_cardinal(number)} {single if number == 1 else several}" for number, single, several in amounts
    )


def _decade(found: re.Match[str]) -> str:
    words = _words(int(found[1]), "year" if len(found[1]) == 4 else "cardinal")
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _number(found: re.Match[str]) -> str:
    whole, *parts = found[0].replace(",", "").split(".")
    if (whole.startswith("0") and whole != "0") or len(whole) > MOST_DIGITS:
        words = _one_by_one(whole)
    elif len(whole) == 4 and not parts and "," not in found[0]:
        words = _words(int(whole), "year")
    else:
        words = _cardinal(int(whole))
    return " ".join([words, *(f"point {_one_by_one(part)}" for part in parts)])


def _one_by_one(digits: str) -> str:
    return " ".join(_cardinal(int(digit)) for digit in digits)


def _cardinal(number: int) -> str:
    return _words(number, "cardinal")


def _words(number: int, to: str) -> str:
    """Return English words without commas, hyphens and "and", as hibari's voice reads digits."""
    return str(_num2words()(number, to=to)).replace(",", "").replace("-", " ").replace(" and ", " ")


_ENGLISH: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"([$£€])\s?(\d+(?:,\d{3})*(?:\.\d{1,2})?)(?![\d.,]*\d)"), _money),
    (re.compile(r"(?<![\w.,])-(?=\d)"), lambda found: "minus "),
    (re.compile(r"(?<![\w,.])(\d{1,15})(?:st|nd|rd|th)\b"), lambda found: _words(int(found[1]), "ordinal")),
    (re.compile(r"(?<![\w,.])'?(\d{3}0|[2-9]0)s\b"), _decade),
    (re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])-?(?=\d)"), lambda found: " "),
    (re.compile(_NUMBER), _number),
    (re.compile(f"[{''.join(SYMBOLS)}]"), lambda found: f" {SYMBOLS[found[0]]} "),
)


def _digits_of(language: str) -> Callable[[str], str]:
    """Return a function that spells the numbers of a language; a number that num2words can't spell stays."""
    base = language.split("-")[0].lower()

    def spelled(found: re.Match[str]) -> str:
        digits = re.sub(r"\D", "", found[0])
        numbers = [_value(found[0])] if len(digits) <= MOST_DIGITS else list(map(int, digits))
        for code in (language.replace("-", "_"), base):
            try:
                words = [str(_num2words()(number, lang=code)) for number in numbers]
            except NotImplementedError:  # a region that it lacks
                continue
            except (ValueError, OverflowError):  # a few decimals and sizes
                break
            return " ".join(words) if all(words) else found[0]
        return found[0]

    return (lambda text: _DECIMAL.sub(spelled, text)) if LANGUAGES.fullmatch(base) else str


def _value(number: str) -> int | Decimal:
    """Return the value of a number with any separators: one before exactly three digits groups, another is a point."""
    *groups, last = re.split(r"[.,]", number)
    if not groups or len(last) == 3:
        return int("".join([*groups, last]))
    return Decimal(f"{''.join(groups)}.{last}")


def _num2words() -> Callable[..., str]:
    try:
        from num2words import num2words
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    return num2words


def _not_installed(error: ModuleNotFoundError) -> ModelError:
    return ModelError(f"{error.name} is not installed: pip install 'echo-targets[voices]'")

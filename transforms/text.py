"""Text as error rates, filters and aligners see it: normalized, cut into words or characters, compared.

Scripts that put no spaces between words are cut into characters, all other scripts into words, whatever language the
text is said to be in. A character is an extended grapheme cluster (UAX #29) with all its marks, so a Thai vowel sign
stays on its consonant. An error rate over both is the mixed error rate (MER) of the code-switching literature: one
edit distance in which a Chinese character and an English word each count once (SEAME: Lyu et al., Interspeech 2010;
scoring as in ESPnet's recipe `egs2/seame`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, NamedTuple

import regex

Unit = Literal["word", "character", "mixed"]

SPACELESS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\u30fc\uff70"  # the long vowel mark of kana, which Unicode counts as common to several scripts
)
SPACELESS_LANGUAGES = frozenset({"zh", "cmn", "yue", "ja", "th", "lo", "km", "my"})
"""Languages whose digits count one by one, as their characters do."""

BORDERS = r"\u200b\u0f0b\p{Terminal_Punctuation}\p{Ps}\p{Pe}--\p{ASCII}"
"""What divides words where no space does: zero-width space, Tibetan tsheg, 。 ، ؟ । 「 and their like.

ASCII punctuation is left out: it stands inside words too (`U.S.`, `10:30`, `either/or`).
"""

_CHARACTER = rf"(?=[{SPACELESS}])\X\p{{M}}*"
_PIECE = regex.compile(rf"{_CHARACTER}|[^\s{SPACELESS}]+")
_TOKEN = regex.compile(rf"(?V1){_CHARACTER}|[^\s{SPACELESS}[{BORDERS}]]+")
_SPOKEN = regex.compile(r"[\p{L}\p{N}](?:.*[\p{L}\p{N}])?\p{M}*", regex.DOTALL)
_SPACELESS = regex.compile(f"[{SPACELESS}]")

_BRACKETED = regex.compile(r"[<\[][^>\]]*[>\]]|\([^)]+\)")
_IGNORED = regex.compile(
    r"[\p{Default_Ignorable_Code_Point}\p{Me}"
    r"\u0610-\u061a\u0640\u064b-\u0652\u0670\u06d6-\u06ed"  # Arabic vowel signs and tatweel
    r"\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"  # Hebrew points and accents
)
_SYMBOL = regex.compile(r"[\p{P}\p{S}\u02bb\u02bc]")
_ORPHANED_MARKS = regex.compile(r"(?<![\p{L}\p{N}\p{M}])\p{M}+")
_SPELLINGS = (
    (regex.compile("\u0e4d([\u0e48-\u0e4b]*)\u0e32"), "\\1\u0e33"),  # Thai sara am, typed or decomposed in two
    (regex.compile("\u0ecd([\u0ec8-\u0ecb]*)\u0eb2"), "\\1\u0eb3"),  # its Lao sister
    (regex.compile("\u0e40\u0e40"), "\u0e41"),  # Thai sara ae, typed as two sara e
    (regex.compile("i\u0307"), "i"),  # what lower case leaves of the Turkish İ
)


class TextWord(NamedTuple):
    """A word or character as written, and where it stands in its text; `char_end` is exclusive."""

    symbol: str
    char_start: int
    char_end: int


class ErrorRate(NamedTuple):
    """Edits by units of the reference, and what a unit is; both None where the reference has no words."""

    rate: float | None
    unit: Unit | None


def normalize(text: str, language: str) -> str:
    """Return the text as error rates compare it.

    English is normalized by Whisper's `EnglishTextNormalizer`, as published error rates are. It spells numbers and
    contractions in one way, and drops all marks. A text that is said to be English and is mostly in another script is
    not treated as English.

    All else is case-folded in Unicode's NFKC, and loses what is in brackets, symbols and punctuation. Unlike Whisper's
    `BasicTextNormalizer`, this keeps the combining marks that spell a word: without its vowel signs, Hindi falls into
    single consonants (arXiv 2409.02449). Marks that writers may leave out are dropped: Arabic and Hebrew vowel signs.

    Args:
        text: any text.
        language: code of its language, as `en`, `en-US` or `tr`; empty where it is not known.
    """
    base = _base(language)
    if base == "en" and _mostly_latin(text):
        return str(_english()(text)).strip()
    text = unicodedata.normalize("NFKC", text)
    if base in ("tr", "az"):
        text = text.replace("İ", "i").replace("I", "ı")
    text = unicodedata.normalize("NFKC", text.casefold())
    text = _BRACKETED.sub("", text).replace("\u200b", " ")
    text = _ORPHANED_MARKS.sub("", _SYMBOL.sub(" ", _IGNORED.sub("", text)))
    for wrong, right in _SPELLINGS:
        text = wrong.sub(right, text)
    text = regex.sub(r"\p{Nd}", lambda digit: str(unicodedata.decimal(digit[0], digit[0])), text)
    return " ".join(text.split())


def pieces(normalized: str) -> list[str]:
    """Words and, of scripts without spaces, characters of a normalized text."""
    return list(_PIECE.findall(normalized))


def words_of(text: str) -> list[TextWord]:
    """Words and, of scripts without spaces, characters of a text, without the punctuation around them.

    Inner ASCII punctuation belongs to the word (`well-known`, `don't`). What has no letter or digit is no word.
    """
    words = []
    for token in _TOKEN.finditer(text):
        if spoken := _SPOKEN.search(token[0]):
            start, end = token.start() + spoken.start(), token.start() + spoken.end()
            words.append(TextWord(text[start:end], start, end))
    return words


def is_character(symbol: str) -> bool:
    """Return True if a word is a character of a script without spaces."""
    return _SPACELESS.match(symbol) is not None


def join(texts: Iterable[str]) -> str:
    """Join stretches of one text: with a space, except before a character of a script without spaces."""
    joined = ""
    for text in filter(None, texts):
        joined += text if not joined or is_character(text) else f" {text}"
    return joined


def error_rate(reference: str | None, normalized: str, language: str) -> ErrorRate:
    """Compare a transcript with its reference (jiwer).

    The unit comes from the reference's script. The language decides only how numbers count: beside characters, or in a
    language written in them, each digit is one; elsewhere a number is a word.

    Args:
        reference: as the corpus has it.
        normalized: the transcript, as `normalize` gives it.
        language: of the transcript.

    Returns:
        A rate of 1 where the transcript is empty; it exceeds 1 where much was inserted.
    """
    import jiwer

    wanted = pieces(normalize(reference or "", language))
    if not any(map(_SPOKEN.search, wanted)):
        return ErrorRate(None, None)
    by_character = _base(language) in SPACELESS_LANGUAGES or any(map(is_character, wanted))
    units, heard = (
        [unit for piece in side for unit in _units(piece, by_character)] for side in (wanted, pieces(normalized))
    )
    kinds = {is_character(unit) or (by_character and unit.isdecimal()) for unit in units}
    unit: Unit = "mixed" if len(kinds) > 1 else "character" if True in kinds else "word"
    return ErrorRate(float(jiwer.wer(" ".join(units), " ".join(heard))), unit)


def _units(piece: str, by_character: bool) -> list[str]:
    return list(piece) if by_character and piece.isdecimal() else [piece]


def _base(language: str) -> str:
    return regex.split("[-_]", language.lower())[0]


def _mostly_latin(text: str) -> bool:
    return 2 * len(regex.findall(r"\p{Latin}", text)) >= len(regex.findall(r"\p{L}", text))


@cache
def _english() -> Any:
    from whisper.normalizers import EnglishTextNormalizer

    return EnglishTextNormalizer()

"""Text processing for error rates, filters and aligners: normalize, split into words or characters, compare.

Scripts without spaces between words are split into characters, all others into words, whatever the declared language. A
character is an extended grapheme cluster (UAX #29) with all its marks, so a Thai vowel sign stays with its consonant.
An error rate over both is the mixed error rate (MER) of the code-switching literature: one edit distance in which a
Chinese character and an English word each count once (SEAME: Lyu et al., Interspeech 2010; scoring as in ESPnet's
recipe `egs2/seame`).
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
"""Languages whose digits count one by one, like their characters."""

BORDERS = r"\u200b\u0f0b\p{Terminal_Punctuation}\p{Ps}\p{Pe}--\p{ASCII}"
"""Characters that separate words without a space: zero-width space, Tibetan tsheg, 。 ، ؟ । 「 and similar ones.

ASCII punctuation is not among them, since it also occurs inside words (`U.S.`, `10:30`, `either/or`).
"""

_CHARACTER = rf"(?=[{SPACELESS}])\X\p{{M}}*"
_PIECE = regex.compile(rf"{_CHARACTER}|[^\s{SPACELESS}]+")
_TOKEN = regex.compile(rf"(?V1){_CHARACTER}|[^\s{SPACELESS}[{BORDERS}]]+")
_SPOKEN = regex.compile(r"[\p{L}\p{N}](?:.*[\p{L}\p{N}])?\p{M}*", regex.DOTALL)
_SPACELESS = regex.compile(f"[{SPACELESS}]")
_WITHOUT_SPACE_BEFORE = regex.compile(rf"[{SPACELESS}\u3001-\u303f\uff01-\uffee]")
"""These scripts, their punctuation, and full-width forms."""

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
    (regex.compile("\u0ecd([\u0ec8-\u0ecb]*)\u0eb2"), "\\1\u0eb3"),  # the same in Lao
    (regex.compile("\u0e40\u0e40"), "\u0e41"),  # Thai sara ae, typed as two sara e
    (regex.compile("i\u0307"), "i"),  # lower case of the Turkish İ
)


class TextWord(NamedTuple):
    """A word or character as written, and its position in the text; `char_end` is exclusive."""

    symbol: str
    char_start: int
    char_end: int


class ErrorRate(NamedTuple):
    """Edits per unit of the reference, and the unit; both None if the reference has no words."""

    rate: float | None
    unit: Unit | None


def normalize(text: str, language: str) -> str:
    """Return the text in the form in which error rates compare it.

    English is normalized by Whisper's `EnglishTextNormalizer`, as in published error rates. It spells numbers and
    contractions in one way, and drops all marks. A text that is declared English but mostly in another script is not
    treated as English.

    Any other text is case-folded and normalized to NFKC; brackets with their contents, symbols and punctuation are
    removed. Unlike Whisper's `BasicTextNormalizer`, this keeps the combining marks that spell a word: without its vowel
    signs, Hindi falls apart into single consonants (arXiv 2409.02449). Optional marks are dropped: Arabic and Hebrew
    vowel signs.

    Args:
        text: any text.
        language: code of its language, such as `en`, `en-US` or `tr`; empty if unknown.
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
    """Return the words of a normalized text; for scripts without spaces, its characters."""
    return list(_PIECE.findall(normalized))


def words_of(text: str) -> list[TextWord]:
    """Return the words of a text (for scripts without spaces, its characters), without the punctuation around them.

    Inner ASCII punctuation belongs to the word (`well-known`, `don't`). Without a letter or digit it is not a word.
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
    """Join parts of a text with spaces, except before a character or sign of a script without spaces."""
    joined = ""
    for text in filter(None, texts):
        joined += text if not joined or _WITHOUT_SPACE_BEFORE.match(text) else f" {text}"
    return joined


def error_rate(reference: str | None, normalized: str, language: str) -> ErrorRate:
    """Compare a transcript with its reference (jiwer).

    The unit is determined by the reference's script. The language only determines how numbers count: next to
    characters, or in a language written in them, each digit is a unit; elsewhere a number is a word.

    Args:
        reference: the corpus's text.
        normalized: the transcript, normalized by `normalize`.
        language: language of the transcript.

    Returns:
        The rate is 1 for an empty transcript, and exceeds 1 if much was inserted.
    """
    import jiwer

    wanted = pieces(normalize(reference or "", language))
    if not any(map(_SPOKEN.search, wanted)):
        return ErrorRate(None, None)
    by_character = _base(language) in SPACELESS_LANGUAGES or any(map(is_character, wanted))
    units, found = (
        [unit for piece in side for unit in _units(piece, by_character)] for side in (wanted, pieces(normalized))
    )
    kinds = {is_character(unit) or (by_character and unit.isdecimal()) for unit in units}
    unit: Unit = "mixed" if len(kinds) > 1 else "character" if True in kinds else "word"
    return ErrorRate(float(jiwer.wer(" ".join(units), " ".join(found))), unit)


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

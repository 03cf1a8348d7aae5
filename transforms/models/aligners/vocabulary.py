"""The letters that a CTC recognizer emits, their ids, and how words are spelled with them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from echo_targets.transforms.errors import ModelError

PHONETIC = frozenset("ɐɜɒɹɾʁɻɕʑʂʐɬʈɟʝʎɫɚɝɥɡːˈˌʰʲ")
"""IPA symbols that no orthography uses. Two of them show that a vocabulary lists sounds. ɛ, ɔ, ə and ʊ are letters in
some languages."""
MOST_UNKNOWN = 0.5
"""If more than this share of a corpus's letters is unknown, the vocabulary is for another language."""


@dataclass(frozen=True)
class Vocabulary:
    """Letters of a CTC recognizer.

    Attributes:
        path: the file that lists them, for messages.
        letters: the id of each letter, a single character.
        blank: id of CTC's blank.
        border: id of the word border; None if the recognizer has none.

    Raises:
        ModelError: a token is not a letter, or an id is used twice.
    """

    path: Path
    letters: Mapping[str, int]
    blank: int
    border: int | None = None

    def __post_init__(self) -> None:
        if pieces := [token for token in self.letters if len(token) > 1]:
            raise ModelError(
                f"{self.path}: {pieces[0]!r} is not a letter, but a piece of a word or a sound; "
                "to align, use a model of letters"
            )
        if len(sounds := sorted(PHONETIC & self.letters.keys())) > 1:
            raise ModelError(
                f"{self.path}: its tokens are sounds ({', '.join(sounds[:5])}), which can't spell words; "
                "to align, use a model of letters"
            )
        for token, number in self.letters.items():
            if number in (self.blank, self.border):
                role = "blank" if number == self.blank else "border between words"
                raise ModelError(f"{self.path}: {token!r} has the id {number} of the {role}; copy the model's files")

    def check_width(self, outputs: int) -> None:
        """Check that the recognizer has an output for every id.

        Raises:
            ModelError: an id is outside the outputs.
        """
        ids = {"the blank": self.blank, **{repr(letter): number for letter, number in self.letters.items()}}
        ids |= {} if self.border is None else {"the border between words": self.border}
        for name, number in ids.items():
            if not 0 <= number < outputs:
                raise ModelError(
                    f"{self.path}: the id of {name} is {number}, but the model has {outputs} outputs; "
                    "copy the model's own vocabulary"
                )

    def spell(self, symbol: str) -> tuple[int, ...] | None:
        """Return the ids of a word's letters, without punctuation that the vocabulary lacks; None if it lacks a letter.

        Combining marks that it lacks in every spelling of the word, such as Arabic vowel signs, are also dropped.
        """
        letters = self.letters
        for needed in ("LNM", "LN"):
            for spelling in _spellings(symbol.replace("’", "'")):
                wanted = [each for each in spelling if each in letters or unicodedata.category(each)[0] in needed]
                if wanted and all(letter in letters for letter in wanted):
                    return tuple(letters[letter] for letter in wanted)
        return None

    def check_texts(self, texts: Iterable[str]) -> None:
        """Check that the vocabulary fits the texts' language. Digits and marks do not count.

        Raises:
            ModelError: it lacks more than `MOST_UNKNOWN` of the texts' letters.
        """
        counts = Counter(letter for text in texts for letter in text if unicodedata.category(letter)[0] == "L")
        unknown = Counter({letter: count for letter, count in counts.items() if self.spell(letter) is None})
        if (share := unknown.total() / max(1, counts.total())) > MOST_UNKNOWN:
            examples = " ".join(letter for letter, _ in unknown.most_common(10))
            raise ModelError(
                f"{self.path} lacks {share:.0%} of the letters in the reference texts, such as {examples}; "
                "set align.model to a model of the texts' language and script"
            )


def _spellings(symbol: str) -> Iterator[str]:
    """Yield the word in all cases and Unicode forms, since a vocabulary has é or half-width kana in one form only."""
    for spelling in (symbol, *(unicodedata.normalize(form, symbol) for form in ("NFC", "NFKC", "NFD"))):
        yield from (spelling, spelling.upper(), spelling.lower())

"""Unit language: speech units written as unit words, such as `837_81_194`, so that text and speech are similarly long.

The vocabulary holds every single unit, so that any sequence can be written, and the most likely longer words. Fitting
starts from n-gram counts, with more n-grams than will be kept. It then repeatedly segments the corpus with the current
vocabulary and counts again, each time with fewer words: a fragment that longer words made needless loses its count and
is dropped. A sequence is segmented into its most probable words, where P(word) is the word's relative frequency (the
unigram model of Kudo 2018, arXiv 1804.10959, with hard counts; see `viterbi`). Byte-pair merges use HF `tokenizers`,
with one private-use character per unit.

Counts can be added up from anywhere: `fit_ngrams` needs only totals, so it learns the same language from the counts of
many machines as from one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_targets.schemas.tables.base import LARGEST_CODEBOOK
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.units.ngram_counts import (
    Sequences,
    Word,
    count_ngrams,
    flat,
    likeliest,
    table_of_words,
    words_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from echo_targets.transforms.units.viterbi import Trie

Keep = Callable[[pa.Table], pa.Table]
Total = Callable[["UnitLanguage | None", Keep], pa.Table]
"""Counts the words of all sequences and returns those to keep. Counts a language's segmentation, or all n-grams."""

FIRST_CHARACTER = 0xF0000
MAX_UNITS = LARGEST_CODEBOOK  # one character per unit: the private-use plane has as many code points
MAX_WORD_UNITS = 16
MAX_FILE_BYTES = 1 << 28
SEED_FACTOR = 4


class UnitLanguageError(ModelError):
    """A file is not a unit language, or was changed after it was saved."""


def vocab_sizes(num_units: int, vocab_size: int, rounds: int) -> list[int]:
    """Return the vocabulary sizes of the n-gram count and of each later round. They fall to `vocab_size`.

    Raises:
        ValueError: `rounds` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be 1 or more")
    longer = vocab_size - num_units
    return [num_units + round(longer * SEED_FACTOR ** (left / rounds)) for left in range(rounds, -1, -1)]


@dataclass(frozen=True)
class UnitLanguage:
    """A vocabulary of unit words. Word `k` below `num_units` is the single unit `k`.

    Attributes:
        mode: `ngram` (the most likely words, segmented by Viterbi) or `bpe` (byte-pair merges).
        num_units: size K of the codebook; units are 0..K-1.
        max_word_units: length of the longest word, in units.
        vocabulary: the words by id.
        counts: how often the last segmentation used each word, at least 1; empty for `bpe`.
        merges: pairs of word ids in the order they merge; empty for `ngram`.
    """

    mode: Literal["ngram", "bpe"]
    num_units: int
    max_word_units: int
    vocabulary: tuple[Word, ...]
    counts: tuple[int, ...] = ()
    merges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Sequence[int]],
        *,
        num_units: int,
        vocab_size: int,
        max_word_units: int = 4,
        rounds: int = 4,
        mode: Literal["ngram", "bpe"] = "ngram",
    ) -> UnitLanguage:
        """Learn a vocabulary from collapsed unit sequences. The order of the sequences does not matter.

        Args:
            sequences: ids without equal neighbors, one sequence per utterance.
            num_units: size of the codebook.
            vocab_size: maximum number of words, including all single units.
            max_word_units: maximum length of a word, in units.
            rounds: number of rounds of segmenting and counting (`ngram`).
            mode: `ngram` or `bpe`.

        Raises:
            ValueError: a unit outside [0, num_units), or inconsistent sizes.
        """
        _check_sizes(num_units, vocab_size, max_word_units)
        corpus = [list(sequence) for sequence in sequences]
        if mode == "bpe":
            return cls._fit_bpe(corpus, num_units, vocab_size, max_word_units)
        return fit_ngrams(
            lambda language, keep: keep(count_words(corpus, max_word_units, language)),
            num_units=num_units,
            vocab_size=vocab_size,
            max_word_units=max_word_units,
            rounds=rounds,
        )

    @classmethod
    def from_counts(cls, counts: pa.Table, *, num_units: int, vocab_size: int, max_word_units: int = 4) -> UnitLanguage:
        """Make a language of the `vocab_size` most frequent words of a table; ties go to the smaller units.

        Raises:
            ValueError: a word with a unit outside [0, num_units), or inconsistent sizes.
        """
        _check_sizes(num_units, vocab_size, max_word_units)
        kept = words_of(likeliest(counts, vocab_size - num_units))
        _check_units(flat(kept)[0], num_units)
        words = [*((unit,) for unit in range(num_units)), *(word for word in kept if len(word) > 1)]
        counted = tuple(max(1, kept.get(word, 0)) for word in words)
        return cls("ngram", num_units, max_word_units, tuple(words), counted)

    @classmethod
    def _fit_bpe(cls, corpus: list[list[int]], num_units: int, vocab_size: int, max_word_units: int) -> UnitLanguage:
        from tokenizers import Tokenizer, models, trainers

        _check_units(flat(corpus)[0], num_units)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size if max_word_units > 1 else num_units,
            initial_alphabet=[_text((unit,)) for unit in range(num_units)],
            max_token_length=max_word_units + 1,  # the trainer's limit is exclusive
            show_progress=False,
        )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.train_from_iterator(map(_text, corpus), trainer)
        ids = tokenizer.get_vocab()
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(
            "bpe",
            num_units,
            max_word_units,
            tuple(_units(text) for text in sorted(ids, key=ids.__getitem__)),
            merges=tuple((ids[left], ids[right]) for left, right in merges),
        )

    def count(self, sequences: Sequences) -> pa.Table:
        """Return how often the segmentation of the sequences uses each word, as a table of counts."""
        ids = Counter(chain.from_iterable(self.encode_batch(sequences)))
        return table_of_words({self.vocabulary[word]: count for word, count in ids.items()})

    def encode(self, units: Sequence[int]) -> list[int]:
        """Return the word ids of one sequence; `decode` inverts this.

        Raises:
            ValueError: a unit outside [0, num_units).
        """
        (ids,) = self.encode_batch([units])
        return ids

    def encode_batch(self, sequences: Sequences) -> list[list[int]]:
        """Return `encode` of each sequence."""
        units, lengths = flat(sequences)
        _check_units(units, self.num_units)
        if self.mode == "ngram":
            return self._trie.segment(units, lengths)
        texts = [_text(sequence) for sequence in np.split(units, np.cumsum(lengths)[:-1])] if len(lengths) else []
        return [encoding.ids for encoding in self._merger.encode_batch(texts)]

    def decode(self, ids: Iterable[int]) -> list[int]:
        """Return the units of word ids.

        Raises:
            ValueError: an id that is not in the vocabulary.
        """
        return list(chain.from_iterable(self._word(id_) for id_ in ids))

    def words(self, ids: Iterable[int]) -> list[str]:
        """Return words as text: units joined by underscores.

        Raises:
            ValueError: an id that is not in the vocabulary.
        """
        return ["_".join(map(str, self._word(id_))) for id_ in ids]

    @property
    def id(self) -> str:
        """Name made of the mode, the maximum word length, the number of words and the start of the digest."""
        return f"ul-{self.mode[0]}{self.max_word_units}-v{len(self.vocabulary)}-{self.digest[:8]}"

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of everything that determines how units are written."""
        return hashlib.sha256(_canonical(self._fields())).hexdigest()

    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        """Check that the language has as many units as a codebook.

        Raises:
            UnitLanguageError: it has not.
        """
        if self.num_units != codebook_size:
            raise UnitLanguageError(
                f"unit_language {self.id} is for {self.num_units} units, but {codebook_id} has {codebook_size}: fit "
                "one on its units with `echo-targets fit-unit-language`"
            )

    def save(self, path: Path) -> None:
        """Write the language as JSON; equal languages give equal bytes."""
        path.write_bytes(self.to_json() + b"\n")

    def to_json(self) -> bytes:
        """Return the language as canonical JSON."""
        return _canonical({"digest": self.digest, **self._fields()})

    @classmethod
    def load(cls, path: Path) -> UnitLanguage:
        """Load a saved language.

        Raises:
            UnitLanguageError: the file is not a unit language, has invalid words, or does not match its digest.
        """
        if not path.is_file():
            raise UnitLanguageError(f"{path}: no such unit language; fit one with `echo-targets fit-unit-language`")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UnitLanguageError(f"{path}: {size} bytes is too large for a unit language")
        try:
            return cls.from_json(path.read_bytes())
        except UnitLanguageError as error:
            raise UnitLanguageError(f"{path}: {error}") from error

    @classmethod
    def from_json(cls, data: str | bytes) -> UnitLanguage:
        """Load a language from the output of `to_json`.

        Raises:
            UnitLanguageError: as for `load`.
        """
        try:
            file = _File.model_validate_json(data)
        except ValidationError as error:
            raise UnitLanguageError(f"not a unit language: {error}") from error
        language = cls(file.mode, file.num_units, file.max_word_units, file.vocabulary, file.counts, file.merges)
        if problem := language._problem():
            raise UnitLanguageError(problem)
        if language.digest != file.digest:
            raise UnitLanguageError(f"the digest is {language.digest}, but the file says {file.digest}")
        return language

    def _fields(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "num_units": self.num_units,
            "max_word_units": self.max_word_units,
            "vocabulary": self.vocabulary,
            "counts": self.counts,
            "merges": self.merges,
        }

    def _problem(self) -> str | None:
        words = self.vocabulary
        if words[: self.num_units] != tuple((unit,) for unit in range(self.num_units)):
            return f"the first words are not the units 0 to {self.num_units - 1}"
        if len(set(words)) != len(words):
            return "a word occurs twice"
        if not all(1 <= len(word) <= self.max_word_units for word in words):
            return f"a word is not 1 to {self.max_word_units} units long"
        if not all(0 <= unit < self.num_units for unit in chain.from_iterable(words)):
            return f"a unit is outside [0, {self.num_units})"
        if len(self.counts) != (len(words) if self.mode == "ngram" else 0):
            return f"{len(self.counts)} counts for {len(words)} words"
        if self.merges and self.mode == "ngram":
            return "merges in a vocabulary of n-grams"
        if not all(0 <= word < len(words) for word in chain.from_iterable(self.merges)):
            return "a merge uses a word that is not in the vocabulary"
        known = set(words)
        if not all(words[left] + words[right] in known for left, right in self.merges):
            return "a merge makes a word that is not in the vocabulary"
        return None

    def _word(self, id_: int) -> Word:
        if not 0 <= id_ < len(self.vocabulary):
            raise ValueError(f"word {id_} is not in [0, {len(self.vocabulary)})")
        return self.vocabulary[id_]

    @cached_property
    def _trie(self) -> Trie:
        from echo_targets.transforms.units.viterbi import Trie

        total = sum(self.counts)
        return Trie(self.vocabulary, [math.log(count / total) for count in self.counts], self.num_units)

    @cached_property
    def _merger(self) -> Tokenizer:
        from tokenizers import Tokenizer, models

        texts = [_text(word) for word in self.vocabulary]
        ids = {text: id_ for id_, text in enumerate(texts)}
        return Tokenizer(models.BPE(ids, [(texts[left], texts[right]) for left, right in self.merges]))


def fit_ngrams(
    total: Total, *, num_units: int, vocab_size: int, max_word_units: int = 4, rounds: int = 4
) -> UnitLanguage:
    """Fit like `UnitLanguage.fit` in mode `ngram`, from sums over sequences that may be anywhere.

    Args:
        total: counts all sequences.
        The others as for `UnitLanguage.fit`; the result is the same.

    Raises:
        ValueError: as for `UnitLanguage.fit`.
    """
    _check_sizes(num_units, vocab_size, max_word_units)
    first, *others = vocab_sizes(num_units, vocab_size, rounds)
    sizes = {"num_units": num_units, "max_word_units": max_word_units}
    counts = total(None, partial(likeliest, longer=first - num_units))
    language = UnitLanguage.from_counts(counts, vocab_size=first, **sizes)
    for size in others:
        counts = total(language, partial(likeliest, longer=size - num_units))
        language = UnitLanguage.from_counts(counts, vocab_size=size, **sizes)
    return language


def count_words(sequences: Sequences, max_word_units: int, language: UnitLanguage | None) -> pa.Table:
    """Return how often words occur: a language's segmentation if one is given, else every n-gram."""
    return count_ngrams(sequences, max_word_units) if language is None else language.count(sequences)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    digest: str
    mode: Literal["ngram", "bpe"]
    num_units: Annotated[int, Field(ge=1, le=MAX_UNITS)]
    max_word_units: Annotated[int, Field(ge=1, le=MAX_WORD_UNITS)]
    vocabulary: tuple[tuple[int, ...], ...]
    counts: tuple[Annotated[int, Field(ge=1, lt=1 << 53)], ...]
    merges: tuple[tuple[int, int], ...]


def _check_sizes(num_units: int, vocab_size: int, max_word_units: int) -> None:
    if not 1 <= num_units <= MAX_UNITS:
        raise ValueError(f"num_units is {num_units}; it must be 1 to {MAX_UNITS}")
    if not 1 <= max_word_units <= MAX_WORD_UNITS:
        raise ValueError(f"max_word_units is {max_word_units}; it must be 1 to {MAX_WORD_UNITS}")
    if vocab_size < num_units:
        raise ValueError(f"vocab_size is {vocab_size}, too small for {num_units} single units")


def _check_units(units: np.ndarray, num_units: int) -> None:
    if len(units) and not 0 <= units.min() <= units.max() < num_units:
        raise ValueError(f"units {units.min()} to {units.max()} are not all in [0, {num_units})")


def _text(units: Sequence[int] | np.ndarray) -> str:
    return (np.asarray(units, np.int64) + FIRST_CHARACTER).astype("<u4").tobytes().decode("utf-32-le")


def _units(text: str) -> Word:
    return tuple(ord(character) - FIRST_CHARACTER for character in text)


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

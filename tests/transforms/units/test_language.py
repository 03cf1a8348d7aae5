"""Unit languages: what is learnt, and that nothing is lost in writing."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.transforms.units.language import (
    MAX_UNITS,
    UnitLanguage,
    UnitLanguageError,
    count_words,
    fit_ngrams,
    vocab_sizes,
)
from echo_targets.transforms.units.ngram_counts import Word, words_of
from echo_targets.transforms.units.summed_counts import sum_counts

NUM_UNITS = 20
MODES = ("ngram", "bpe")


def corpus(seed: int = 0, sequences: int = 120) -> list[list[int]]:
    """Collapsed sequences built from a few recurring syllables and noise, as speech units are."""
    chance = random.Random(seed)
    syllables = [[chance.randrange(NUM_UNITS) for _ in range(chance.randint(2, 4))] for _ in range(12)]
    made = []
    for _ in range(sequences):
        units = []
        for _ in range(chance.randint(3, 20)):
            units += chance.choice(syllables) if chance.random() < 0.8 else [chance.randrange(NUM_UNITS)]
        made.append([unit for place, unit in enumerate(units) if place == 0 or unit != units[place - 1]])
    return made


def fitted(mode: Any = "ngram", **settings: Any) -> UnitLanguage:
    return UnitLanguage.fit(corpus(), num_units=NUM_UNITS, vocab_size=60, mode=mode, **settings)


LANGUAGES = {mode: fitted(mode) for mode in MODES}
units = st.lists(st.integers(0, NUM_UNITS - 1), max_size=300)


def viterbi(language: UnitLanguage, sequence: list[int]) -> list[int]:
    """The likeliest segmentation, word by word from the definition; of equal ones, the longest last word."""
    total = sum(language.counts)
    scores = {
        word: (math.log(count / total), id_)
        for id_, (word, count) in enumerate(zip(language.vocabulary, language.counts, strict=True))
    }
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(sequence) + 1):
        choice: tuple[float, list[int]] | None = None
        for start in range(max(0, end - language.max_word_units), end):
            if found := scores.get(tuple(sequence[start:end])):
                score = best[start][0] + found[0]
                if choice is None or score > choice[0]:
                    choice = score, [*best[start][1], found[1]]
        assert choice is not None
        best.append(choice)
    return best[-1][1]


@pytest.mark.parametrize("mode", MODES)
@given(sequence=units)
def test_decoding_gives_back_what_was_encoded(mode: str, sequence: list[int]) -> None:
    language = LANGUAGES[mode]
    ids = language.encode(sequence)
    assert language.decode(ids) == sequence
    assert [int(unit) for word in language.words(ids) for unit in word.split("_")] == sequence
    assert language.encode_batch([sequence, [], sequence]) == [ids, [], ids]


@given(sequence=units)
def test_the_engine_finds_the_likeliest_segmentation(sequence: list[int]) -> None:
    language = LANGUAGES["ngram"]
    assert language.encode(sequence) == viterbi(language, sequence)


def test_the_engine_finds_the_likeliest_segmentation_of_the_corpus() -> None:
    language = LANGUAGES["ngram"]
    for sequence in corpus():
        assert language.encode(sequence) == viterbi(language, sequence)


def test_words_are_those_of_the_unigram_model_of_tokenizers() -> None:
    from tokenizers import Tokenizer, models

    language = LANGUAGES["ngram"]
    total = sum(language.counts)
    texts = ["".join(map(chr, word)) for word in language.vocabulary]
    scores = [math.log(count / total) for count in language.counts]
    engine = Tokenizer(models.Unigram(list(zip(texts, scores, strict=True))))
    sequences = corpus(seed=1)
    ids = [encoding.ids for encoding in engine.encode_batch(["".join(map(chr, units)) for units in sequences])]
    assert language.encode_batch(sequences) == ids


def test_a_word_may_be_found_whose_beginning_is_no_word() -> None:
    language = UnitLanguage("ngram", 4, 4, ((0,), (1,), (2,), (3,), (0, 1, 2, 3)), (1, 1, 1, 1, 9))
    assert language.encode_batch([[0, 1, 2, 3], [0, 1, 2], [3, 0, 1, 2, 3, 0]]) == [[4], [0, 1, 2], [3, 4, 0]]


def test_a_machine_without_a_folder_to_write_to_compiles_for_itself() -> None:
    script = (
        "import numba\n"
        "def refuse(self): raise RuntimeError('no locator available')\n"
        "numba.core.dispatcher.Dispatcher.enable_caching = refuse\n"
        "from echo_targets.transforms.units.viterbi import Trie\n"
        "import numpy as np\n"
        "print(Trie([(0,), (1,), (0, 1)], [-1.0, -1.0, -1.0], 2).segment(np.array([0, 1, 1]), np.array([2, 1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[2], [1]]\n"


def test_counts_of_a_segmentation_are_the_words_it_uses() -> None:
    language = LANGUAGES["ngram"]
    by_hand: Counter[Word] = Counter()
    for sequence in corpus():
        by_hand.update(language.vocabulary[id_] for id_ in viterbi(language, sequence))
    assert words_of(language.count(corpus())) == by_hand


def test_vocabulary_shrinks_to_its_size_and_no_further() -> None:
    assert vocab_sizes(100, 1000, 4) == [3700, 2646, 1900, 1373, 1000]
    assert vocab_sizes(100, 100, 3) == [100] * 4


@pytest.mark.parametrize("mode", MODES)
def test_every_unit_is_a_word_and_longer_words_are_worth_having(mode: str) -> None:
    language = LANGUAGES[mode]
    assert language.vocabulary[:NUM_UNITS] == tuple((unit,) for unit in range(NUM_UNITS))
    assert len(language.vocabulary) == len(set(language.vocabulary)) == 60
    assert max(map(len, language.vocabulary)) == language.max_word_units == 4
    num_units = sum(map(len, corpus()))
    assert num_units / sum(map(len, language.encode_batch(corpus()))) > 1.5


def test_rounds_drop_the_fragments_that_longer_words_made_needless() -> None:
    sequences = [[1, 2, 3, 4], [5, 6]] * 50
    language = UnitLanguage.fit(sequences, num_units=7, vocab_size=9)
    assert language.vocabulary[7:] == ((1, 2, 3, 4), (5, 6))


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_sequences_changes_nothing(mode: Any) -> None:
    shuffled = corpus()
    random.Random(1).shuffle(shuffled)
    again = UnitLanguage.fit(iter(shuffled), num_units=NUM_UNITS, vocab_size=60, mode=mode)
    assert again == LANGUAGES[mode]
    assert again.id == LANGUAGES[mode].id


def test_counts_taken_in_chunks_give_the_same_language() -> None:
    chunks = [corpus()[start::7] for start in range(7)]
    language = fit_ngrams(
        lambda language, keep: sum_counts((count_words(pa.array(chunk), 4, language) for chunk in chunks), keep),
        num_units=NUM_UNITS,
        vocab_size=60,
    )
    assert language.digest == LANGUAGES["ngram"].digest


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("longest", [1, 2, 3])
def test_no_word_is_longer_than_allowed(mode: Any, longest: int) -> None:
    language = fitted(mode, max_word_units=longest)
    assert max(map(len, language.vocabulary)) == longest
    assert [language.decode(language.encode(sequence)) for sequence in corpus()] == corpus()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_units", [1, 6_561, MAX_UNITS])
def test_codebooks_of_any_size(mode: Any, num_units: int) -> None:
    sequence = [0, num_units - 1, num_units // 2, 0, num_units - 1]
    language = UnitLanguage.fit([sequence] * 3, num_units=num_units, vocab_size=num_units + 2, mode=mode)
    assert language.decode(language.encode(sequence)) == sequence
    assert len(language.encode(sequence)) < len(sequence)


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_is_the_same_language(mode: str, tmp_path: Path) -> None:
    language = LANGUAGES[mode]
    language.save(tmp_path / "language.json")
    loaded = UnitLanguage.load(tmp_path / "language.json")
    assert loaded == language
    assert loaded.encode_batch(corpus()) == language.encode_batch(corpus())
    assert loaded.id == f"ul-{mode[0]}4-v60-{language.digest[:8]}"
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "language.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"counts": [1] * 60}, "digest"),
        ({"counts": [1] * 59}, "counts"),
        ({"counts": [0] * 60}, "greater than or equal to 1"),
        ({"num_units": 19}, "outside"),
        ({"num_units": 21}, "first words"),
        ({"num_units": 10**9}, "num_units"),
        ({"max_word_units": 2}, "units long"),
        ({"vocabulary": [[unit] for unit in range(19)]}, "first words"),
        ({"vocabulary": [[unit] for unit in range(20)] + [[1, 2]] * 40}, "twice"),
        ({"vocabulary": [[unit] for unit in range(20)] + [[1, 2 + unit] for unit in range(40)]}, "outside"),
        ({"vocabulary": "a"}, "vocabulary"),
        ({"merges": [[1, 2]]}, "merges"),
        ({"mode": "bpe"}, "counts"),
        ({"mode": "bpe", "counts": [], "merges": [[1, 60]]}, "not in the vocabulary"),
        ({"mode": "bpe", "counts": [], "merges": [[59, 59]]}, "not in the vocabulary"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_changed_file_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "language.json"
    LANGUAGES["ngram"].save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UnitLanguageError, match=says):
        UnitLanguage.load(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"digest": "a"}'])
def test_a_file_that_is_no_unit_language_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "language.json"
    path.write_bytes(content)
    with pytest.raises(UnitLanguageError, match="not a unit language"):
        UnitLanguage.load(path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unit", [-1, NUM_UNITS])
def test_units_and_words_out_of_range_are_refused(mode: Any, unit: int) -> None:
    language = LANGUAGES[mode]
    with pytest.raises(ValueError, match="not all in"):
        language.encode([1, unit])
    with pytest.raises(ValueError, match="not all in"):
        UnitLanguage.fit([[1, unit]], num_units=NUM_UNITS, vocab_size=60, mode=mode)
    for id_ in (-1, len(language.vocabulary)):
        with pytest.raises(ValueError, match="is not in"):
            language.decode([id_])


@pytest.mark.parametrize(
    "settings",
    [{"vocab_size": 19}, {"num_units": 0}, {"num_units": MAX_UNITS + 1}, {"max_word_units": 0}, {"rounds": 0}],
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"too small|must be 1"):
        UnitLanguage.fit([[1]], **({"num_units": 20, "vocab_size": 30} | settings))

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.corpora.sentences import DEMO_DIALOGUES, MAX_CHARS, MIN_CHARS, held_out, inflect, number_words, sentences

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return sentences(30_000, seed=0)


@pytest.fixture(scope="module")
def turns() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DEMO_DIALOGUES.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def parts(text: str) -> list[str]:
    return re.split(r"(?<=[.?!]) ", text.lower())


def test_as_many_distinct_sentences_as_asked(corpus: list[str]) -> None:
    assert len(corpus) == len(set(corpus)) == 30_000


def test_same_seed_same_sentences_in_a_process_with_another_hash_seed() -> None:
    command = [sys.executable, "-m", "jobs.corpora.sentences", "--count", "500", "--seed", "3"]
    outputs = {
        subprocess.run(
            command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    rows = [json.loads(line) for line in outputs.pop().splitlines()]
    assert [row["text"] for row in rows] == sentences(500, seed=3) != sentences(500, seed=4)
    assert rows[0]["id"] == "nano-000001"
    assert {row["role"] for row in rows} == {"assistant"}
    assert [row["split"] for row in rows] == ["test" if held_out(row["text"]) else "train" for row in rows]


def test_a_shorter_list_is_the_beginning_of_a_longer_one(corpus: list[str]) -> None:
    assert sentences(1000, seed=0) == corpus[:1000]


def test_letters_and_plain_punctuation_only(corpus: list[str]) -> None:
    assert [text for text in corpus if not re.fullmatch(r"[A-Z][A-Za-z' ,.?!]*[.?!]", text) or "  " in text] == []


def test_lengths(corpus: list[str]) -> None:
    lengths = [len(text) for text in corpus]
    assert min(lengths) >= MIN_CHARS and max(lengths) <= MAX_CHARS
    assert 0.4 < sum(length < 50 for length in lengths) / len(lengths) < 0.6


def test_articles_fit_the_next_word(corpus: list[str]) -> None:
    vowel_sound = re.compile(r"(?!uni|use|euro|one\b|ukulele)[aeiou]|hour|honest")
    wrong = {
        (article, noun)
        for text in corpus
        for article, noun in pairwise(words(text))
        if article in ("a", "an") and bool(vowel_sound.match(noun)) != (article == "an")
    }
    assert wrong == set()


def test_words_are_many_and_come_back(corpus: list[str]) -> None:
    uses = Counter(word for text in corpus for word in words(text))
    assert 2000 < len(uses) < 3500
    assert sum(count >= 10 for count in uses.values()) > 0.9 * len(uses)
    assert uses.most_common(1)[0][1] < 0.12 * sum(uses.values())


def test_held_out_share_and_case(corpus: list[str]) -> None:
    assert 0.01 < sum(map(held_out, corpus)) / len(corpus) < 0.03
    assert all(held_out(text) == held_out(text.upper()) for text in corpus[:1000])


def test_dialogues_are_pairs(turns: list[dict[str, Any]]) -> None:
    assert len(turns) == 40
    assert len({turn["id"] for turn in turns}) == 40
    for number, (question, reply) in enumerate(zip(turns[::2], turns[1::2], strict=True), start=1):
        dialogue = f"demo-{number:02d}"
        assert (question["id"], question["dialogue_id"], question["turn"]) == (f"{dialogue}-q", dialogue, 0)
        assert (reply["id"], reply["dialogue_id"], reply["turn"]) == (f"{dialogue}-a", dialogue, 1)
        assert (question["role"], reply["role"]) == ("user", "assistant")
        assert 30 <= len(reply["text"]) <= 130
        for turn in (question, reply):
            assert re.fullmatch(r"[A-Z][A-Za-z' ,.?!]*[.?!]", turn["text"])


def test_demo_words_are_trained_but_demo_replies_are_not(turns: list[dict[str, Any]], corpus: list[str]) -> None:
    uses = Counter(word for text in corpus for word in words(text))
    replies = [turn["text"] for turn in turns if turn["role"] == "assistant"]
    assert {word for reply in replies for word in words(reply) if uses[word] < 5} == set()
    trained = {part for text in corpus for part in parts(text)}
    assert trained & {part for reply in replies for part in parts(reply)} == set()


def test_number_words() -> None:
    assert [number_words(n) for n in (0, 13, 20, 85, 100, 342)] == [
        "zero", "thirteen", "twenty", "eighty five", "one hundred", "three hundred and forty two",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="1000"):
        number_words(1000)


@pytest.mark.parametrize(
    ("phrase", "form", "expected"),
    [
        ("washing machine", "pl", "washing machines"),
        ("knife", "pl", "knives"),
        ("tie a knot", "ing", "tying a knot"),
        ("bake a cake", "ing", "baking a cake"),
        ("plan a trip", "ed", "planned a trip"),
        ("carry the bag", "ed", "carried the bag"),
        ("write a letter", "ed", "wrote a letter"),
        ("big", "er", "bigger"),
        ("happy", "er", "happier"),
    ],
)
def test_inflect(phrase: str, form: str, expected: str) -> None:
    assert inflect(phrase, form) == expected

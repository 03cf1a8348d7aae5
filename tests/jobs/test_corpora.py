"""The texts: well formed, sayable, and the demo's replies not among what the T2C model learnt from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import echo_targets.jobs.corpora

FOLDER = Path(echo_targets.jobs.corpora.__file__).parent
ALPHABET = re.compile(r"[A-Za-z' .,?!]+")


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["demo_dialogues.jsonl", "nano_sentences.jsonl"])
def test_every_line_can_be_spoken(name: str) -> None:
    rows = lines(name)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert ALPHABET.fullmatch(row["text"]) and row["text"][-1] in ".?!", row


def test_dialogues_are_a_turn_and_a_reply() -> None:
    rows = lines("demo_dialogues.jsonl")
    assert len(rows) == 40
    for question, reply in zip(rows[::2], rows[1::2], strict=True):
        assert question["dialogue_id"] == reply["dialogue_id"]
        assert (question["turn"], question["role"]) == (0, "user")
        assert (reply["turn"], reply["role"]) == (1, "assistant") and 30 <= len(reply["text"]) <= 130


def sentences(text: str) -> set[str]:
    return set(re.split(r"(?<=[.?!]) ", text))


def test_the_demos_replies_are_new_to_the_model() -> None:
    learnt = set().union(*(sentences(row["text"]) for row in lines("nano_sentences.jsonl") if row["split"] == "train"))
    replies = [row["text"] for row in lines("demo_dialogues.jsonl") if row["role"] == "assistant"]
    assert len(replies) == 20
    assert not [reply for reply in replies if sentences(reply) & learnt]


def test_nothing_is_in_both_splits() -> None:
    rows = lines("nano_sentences.jsonl")
    texts = [row["text"].lower() for row in rows]
    assert len(set(texts)) == len(texts)
    assert sum(row["split"] == "test" for row in rows) > 200

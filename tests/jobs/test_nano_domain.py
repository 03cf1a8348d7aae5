"""The nano domain: big enough, right, sayable, and its test split unheard in training."""

from __future__ import annotations

import calendar
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from echo_targets.jobs.corpora import nano_domain
from echo_targets.jobs.corpora.nano_domain import ANIMALS, FAMILIES, Dialogue, dialogues
from echo_targets.schemas import KEY
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.sources.spoken import SpokenSource

DIALOGUES = dialogues()
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
VALUES = {word: value for value, word in enumerate(UNITS.split())} | {
    word: 10 * tens
    for tens, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)  # noqa: SIM905
}
OPERATIONS = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}


def of(family: str) -> list[Dialogue]:
    return [dialogue for dialogue in DIALOGUES if dialogue.family == family]


def of_split(split: str) -> list[Dialogue]:
    return [dialogue for dialogue in DIALOGUES if dialogue.split == split]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def numbers(text: str) -> list[int]:
    """The numbers of a text: a ten takes the one that follows it."""
    found: list[int] = []
    ten_is_open = False
    for word in words(text):
        value = VALUES.get(word)
        if value is not None and ten_is_open and 0 < value < 10:
            found[-1] += value
        elif value is not None:
            found.append(value)
        ten_is_open = value is not None and value >= 20
    return found


def test_sizes() -> None:
    assert len({(dialogue.question, dialogue.reply) for dialogue in DIALOGUES}) == len(DIALOGUES) >= 10_000
    assert 0.09 < len(of_split("test")) / len(DIALOGUES) < 0.11
    for family in FAMILIES:
        assert len(of(family)) > 0.05 * len(DIALOGUES), family
        assert 0.09 < sum(dialogue.split == "test" for dialogue in of(family)) / len(of(family)) < 0.11, family


def test_a_question_has_one_reply() -> None:
    assert len({dialogue.question for dialogue in DIALOGUES}) == len(DIALOGUES)


def test_every_text_can_be_said() -> None:
    for dialogue in DIALOGUES:
        assert re.fullmatch(r"[A-Z][A-Za-z ,.]*[.?]", dialogue.question) and len(dialogue.question) <= 60
        assert re.fullmatch(r"[A-Z][A-Za-z ,.]*\.", dialogue.reply) and len(dialogue.reply) <= 65


def test_some_replies_have_two_sentences() -> None:
    assert 0.15 < sum(". " in dialogue.reply for dialogue in DIALOGUES) / len(DIALOGUES) < 0.4


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.is_open])
def test_items_of_open_families_are_in_one_split(family: str) -> None:
    def subject(dialogue: Dialogue) -> tuple[object, ...]:
        if family == "animals":
            return tuple(sorted(animal for animal in ANIMALS if re.search(rf"\b{animal}\b", dialogue.question)))
        return (dialogue.reply,) if family == "repeat" else tuple(sorted(numbers(dialogue.question)))

    subjects = defaultdict(set)
    for dialogue in of(family):
        subjects[subject(dialogue)].add(dialogue.split)
    assert all(len(splits) == 1 for splits in subjects.values())
    assert len(subjects) == len({dialogue.item for dialogue in of(family)})
    assert all(len(subject) == (1 if family == "repeat" else 2) for subject in subjects)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.is_open])
def test_items_of_closed_families_are_trained_in_other_wordings(family: str) -> None:
    trained = Counter((dialogue.item, dialogue.reply) for dialogue in of(family) if dialogue.split == "train")
    tested = Counter((dialogue.item, dialogue.reply) for dialogue in of(family) if dialogue.split == "test")
    assert set(tested.values()) == {1}
    assert all(trained[item] >= 2 for item in tested)


def test_every_word_of_the_test_split_is_trained() -> None:
    for side in ("question", "reply"):
        trained = {word for dialogue in of_split("train") for word in words(getattr(dialogue, side))}
        assert {word for dialogue in of_split("test") for word in words(getattr(dialogue, side))} <= trained


def test_every_wording_of_the_test_split_is_trained() -> None:
    """With the item's words left out, what remains of a question is in `train` too."""

    def frame(dialogue: Dialogue) -> str:
        about = {word for part in dialogue.item for word in words(part)}
        return " ".join("_" if word in about else word for word in words(dialogue.question))

    trained = {re.sub("(_ )+", "_ ", frame(dialogue)) for dialogue in of_split("train")}
    assert {re.sub("(_ )+", "_ ", frame(dialogue)) for dialogue in of_split("test")} <= trained


@pytest.mark.parametrize("operation", OPERATIONS)
def test_arithmetic(operation: str) -> None:
    for dialogue in of(operation):
        a, b = numbers(dialogue.question)
        if dialogue.question.startswith("Take"):
            a, b = b, a
        result = OPERATIONS[operation](a, b)
        said = numbers(dialogue.reply)
        assert said in ([a, b, result], [result]) and 0 <= result < 100, dialogue
        if said == [result]:
            assert f"That is an {'odd' if result % 2 else 'even'} number." in dialogue.reply
        else:
            assert f" {operation} " in dialogue.reply


@pytest.mark.parametrize(("family", "above"), [("numbers", "larger"), ("animals", "bigger")])
def test_comparisons(family: str, above: str) -> None:
    def compared(text: str) -> list[int]:
        if family == "numbers":
            return numbers(text)
        return [ANIMALS.index(animal) for animal in re.findall(r"\ban? [a-z]+", text.lower())]

    for dialogue in of(family):
        a, b = compared(dialogue.question)
        if dialogue.question.startswith("Is "):
            assert dialogue.reply.startswith("Yes. " if a > b else "No. ")
            wants_above = a > b
        else:
            wants_above = above in dialogue.question
        assert compared(dialogue.reply) == ([max(a, b), min(a, b)] if wants_above else [min(a, b), max(a, b)])
        assert (above if wants_above else "smaller") in dialogue.reply


def test_calendar() -> None:
    names = {"day": list(calendar.day_name), "month": list(calendar.month_name)[1:]}
    for dialogue in of("calendar"):
        kind, *about = dialogue.item
        if kind in names:
            way, name, *count = about
            steps = (VALUES[count[0]] if count else 1) * (1 if way == "after" else -1)
            there = names[kind][(names[kind].index(name) + steps) % len(names[kind])]
            assert [word for word in dialogue.reply.strip(".").split() if word in names[kind]] in (
                [there, name],
                [name, there],
            )
            assert way in dialogue.reply and numbers(dialogue.reply) == [VALUES[word] for word in count]
        else:
            month = names["month"].index(about[0]) + 1
            assert about[0] in dialogue.reply and numbers(dialogue.reply) == [calendar.monthrange(2023, month)[1]]


def test_spelling() -> None:
    for dialogue in of("spelling"):
        word, letters = dialogue.reply.strip(".").split(" is spelled ")
        assert word.lower() in words(dialogue.question) and letters.replace(", ", "") == word.upper()


def test_opposites_go_both_ways() -> None:
    opposite = {dialogue.item[0]: words(dialogue.reply)[-1] for dialogue in of("opposites")}
    assert all(opposite[opposite[word]] == word != opposite[word] for word in opposite)


def test_repeated_phrases() -> None:
    assert all(dialogue.question.split(". ", 1)[1] == dialogue.reply for dialogue in of("repeat"))


def test_equal_seeds_give_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        monkeypatch.setattr(sys, "argv", ["nano_domain", str(tmp_path / name), "--seed", seed])
        nano_domain.main()
    written = [(tmp_path / name).read_bytes() for name in "abc"]
    assert written[0] == written[1] != written[2]


def test_the_source_takes_every_line(tmp_path: Path) -> None:
    lines = list(nano_domain.rows())
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = SpokenSource(kind="spoken", corpus="nano", texts=str(tmp_path / "t.jsonl"))
    listed = list(entries([source]))
    assert not [row["error"] for row in listed if row["error"]]
    assert len({row[KEY] for row in listed}) == len(listed) == 2 * len(DIALOGUES)
    for question, reply in zip(listed[::2], listed[1::2], strict=True):
        assert (question["role"], reply["role"]) == ("user", "assistant")
        assert (question["dialogue_id"], question["split"]) == (reply["dialogue_id"], reply["split"])
        assert question["locator"] != question["reference_text"] and reply["locator"] == reply["reference_text"]


def test_the_demo_asks_what_was_not_trained() -> None:
    path = Path(nano_domain.__file__).with_name("demo_dialogues.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    asked = {(question["text"], reply["text"]) for question, reply in zip(rows[::2], rows[1::2], strict=True)}
    assert len(asked) == 20
    assert asked <= {(dialogue.question, dialogue.reply) for dialogue in of_split("test")}

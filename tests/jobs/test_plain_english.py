"""Plain English from WordNet's files: what is kept, what is spelled out, and that no test sentence is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_targets.jobs.corpora.plain_english import LONGEST, is_test, lines, main, sentence, sentences

LICENSE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
NOUN = '00001740 03 n 01 fig_tree 0 000 | any tree bearing figs (of several kinds); "they sat under the fig tree"'
VERB = '00002325 29 v 01 tick 0 000 | make a sound like a clock; "the clock ticked for 25 years"; "a big one"'


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for part, line in (("noun", NOUN), ("verb", VERB), ("adj", ""), ("adv", "")):
        (tmp_path / f"data.{part}").write_text(LICENSE + line + "\n", encoding="latin-1")
    return tmp_path


def test_examples_and_definitions_are_sentences(wordnet: Path) -> None:
    found = list(sentences(wordnet))
    assert "They sat under the fig tree." in found and "The clock ticked for twenty five years." in found
    (tree,) = (text for text in found if "bearing figs" in text)
    assert "fig tree" in tree.lower() and "several" not in tree and tree[0].isupper()
    assert not any("licensee" in text.lower() for text in found) and len(found) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it was...cold, he said", "It was, cold, he said."),
        ("does it snow here?", "Does it snow here?"),
        ("the Greek word λόγος (logos) here", None),
        ("a café by the sea side", None),
        ("too short", None),
        ("long " * 40, None),
    ],
)
def test_what_a_model_can_not_spell_is_left_out(text: str, expected: str | None) -> None:
    assert sentence(text) == expected


def test_lines_are_of_a_few_seconds_and_keep_their_split() -> None:
    found = [f"They said that {'word ' * (number % 17)}was item {number:05d} of the list." for number in range(900)]
    made = list(lines(found, hours=0.2, seed=1))
    assert made == list(lines(found, hours=0.2, seed=1)) != list(lines(found, hours=0.2, seed=2))
    assert max(len(line["text"]) for line in made) <= LONGEST
    tested = [text for text in found if is_test(text)]
    assert 5 < len(tested) < 45
    for line in made:
        assert (line["split"] == "test") == any(text in line["text"] for text in tested)
    assert len({line["id"] for line in made}) == len(made)
    assert 0.15 < sum(len(line["text"]) for line in made) / 15 / 3600 < 0.25


def test_the_command_writes_a_spoken_source(wordnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(wordnet, tmp_path / "made" / "texts.jsonl", 1.0, 0)
    read = [json.loads(line) for line in (tmp_path / "made" / "texts.jsonl").read_text().splitlines()]
    assert {"id", "role", "split", "text"} == read[0].keys() and "lines, about" in capsys.readouterr().out

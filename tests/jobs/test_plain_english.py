"""Plain English from Debian's packages: what is kept, what is spelled out, and that no test sentence is trained on."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from echo_targets.jobs.corpora.plain_english import (
    LONGEST,
    austen,
    bare,
    bible,
    is_test,
    lines,
    main,
    prose,
    sentence,
    wordnet,
)

rdata = pytest.importorskip("rdata")

LICENSE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
NOUN = '00001740 03 n 01 fig_tree 0 000 | any tree bearing figs (of several kinds); "they sat under the fig tree"'
VERB = '00002325 29 v 01 tick 0 000 | make a sound like a clock; "the clock ticked for 25 years"; "a big one"'
NOVEL = [
    "EMMA",
    "",
    "Emma Woodhouse, _handsome_, clever, and rich,",
    "had lived nearly twenty-one years in the world.  Mr. Knightley had not.",
    "",
    '"Oh! my dear," said he; "you must indeed come."',
]
VERSES = "Ge1:1 In the beginning God created the heaven.\nGe1:2 " + "And the earth was without form, and void; " * 6


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The packages as `dpkg-deb -x` unpacks them, with a few of their sentences."""
    usr = tmp_path / "unpacked" / "usr"
    novels = usr / "lib" / "R" / "site-library" / "janeaustenr" / "data"
    for folder in (usr / "share" / "wordnet", novels, usr / "bin"):
        folder.mkdir(parents=True)
    for part, line in (("noun", NOUN), ("verb", VERB), ("adj", ""), ("adv", "")):
        (usr / "share" / "wordnet" / f"data.{part}").write_text(LICENSE + line + "\n", encoding="latin-1")
    rdata.write_rds(tmp_path / "novel.rds", np.array(NOVEL), compression="gzip")
    novel = zlib.compress(gzip.decompress((tmp_path / "novel.rds").read_bytes()))
    (novels / "Rdata.rdb").write_bytes(b"\0" * 7 + b"size" + novel)
    rdata.write_rds(novels / "Rdata.rdx", {"variables": {"emma": np.array([7, 4 + len(novel)], np.int32)}})
    program = usr / "bin" / "bible"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{VERSES.strip()}\nEND\n")
    program.chmod(0o755)
    return usr.parent


def test_examples_and_definitions_are_sentences(unpacked: Path) -> None:
    found = list(filter(None, map(sentence, wordnet(unpacked / "usr" / "share" / "wordnet"))))
    assert "They sat under the fig tree." in found and "The clock ticked for twenty five years." in found
    (tree,) = (text for text in found if "bearing figs" in text)
    assert "fig tree" in tree.lower() and "several" not in tree and tree[0].isupper()
    assert not any("licensee" in text.lower() for text in found) and len(found) == 4


def test_novels_and_verses_are_sentences(unpacked: Path) -> None:
    assert list(austen(unpacked / "usr" / "lib" / "R" / "site-library" / "janeaustenr" / "data")) == [
        "EMMA",
        "Emma Woodhouse, handsome, clever, and rich, had lived nearly twenty-one years in the world.",
        "Mr. Knightley had not.",
        "Oh! my dear, said he; you must indeed come.",
    ]
    first, *clauses = bible(unpacked / "usr")
    assert first == "In the beginning God created the heaven." and len(clauses) == 6
    assert {clause.strip() for clause in clauses} == {"And the earth was without form, and void;"}


def test_sentences_of_prose_end_where_they_end() -> None:
    text = 'Mrs. Weston came at 3. "Indeed!" She looked at St. James. It was late.'
    assert list(prose(text)) == ["Mrs. Weston came at 3.", "Indeed!", "She looked at St. James.", "It was late."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it was...cold, he said", "It was, cold, he said."),
        ("does it snow here?", "Does it snow here?"),
        ("a liquid ; formerly used (as salt) .", "A liquid; formerly used."),
        ("the Greek word λόγος (logos) here", None),
        ("a café by the sea side", None),
        ("too short", None),
        ("long " * 40, None),
    ],
)
def test_what_a_model_can_not_spell_is_left_out(text: str, expected: str | None) -> None:
    assert sentence(text) == expected


def test_a_bare_text_has_words_only() -> None:
    assert bare("Well-known, isn't it?  He said: No!") == "well known isn't it he said no"


def lettered(number: int) -> str:
    """A number in letters, which a bare text keeps."""
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:05d}")


def test_lines_are_of_a_few_seconds_and_keep_their_split() -> None:
    found = {
        name: [
            f"They {said} that {'word ' * (number % 17)}was item {lettered(number)} of the list."
            for number in range(900)
        ]
        for name, said in (("wordnet", "said"), ("austen", "thought"), ("bible", "spake"))
    }
    made = list(lines(found, hours=0.2, seed=1))
    assert made == list(lines(found, hours=0.2, seed=1)) != list(lines(found, hours=0.2, seed=2))
    assert max(len(line["text"]) for line in made) <= LONGEST
    tested = {bare(text) for texts in found.values() for text in texts if is_test(text)}
    assert 15 < len(tested) < 135
    for line in made:
        assert (line["split"] == "test") == any(text in bare(line["text"]) for text in tested)
    assert len({line["id"] for line in made}) == len(made)
    assert 0.15 < sum(len(line["text"]) for line in made) / 15 / 3600 < 0.25
    without = [line for line in made if line["text"] == bare(line["text"])]
    assert 0.2 < len(without) / len(made) < 0.5
    seconds = {name: sum(len(line["text"]) for line in made if line["id"].startswith(name)) for name in found}
    assert 1.6 < seconds["wordnet"] / seconds["bible"] < 2.4


def test_the_command_writes_a_spoken_source(unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = tmp_path / "evaluation.jsonl"
    held_out.write_text(json.dumps({"text": "had lived nearly twenty one years in a wood"}) + "\n")
    written = []
    for without in (None, held_out):
        main(unpacked, tmp_path / "made" / "texts.jsonl", 1.0, 0, without)
        read = [json.loads(line) for line in (tmp_path / "made" / "texts.jsonl").read_text().splitlines()]
        assert {"id", "role", "split", "text"} == read[0].keys() and "lines, about" in capsys.readouterr().out
        written.append(" ".join(bare(line["text"]) for line in read))
    assert "had lived nearly" in written[0] and "had lived nearly" not in written[1]
    assert "knightley had not" in written[1]

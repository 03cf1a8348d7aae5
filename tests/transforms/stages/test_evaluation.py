"""Decontamination: which texts share a run with an evaluation set, and files that hold no texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.pipeline.stage import recipe_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.stages.publish.evaluation import EvaluationTexts
from echo_targets.transforms.stages.publish.stage import EchoSetParameters, PublishEcho, PublishS2T, S2TParameters
from tests.transforms.stages.test_publish import ROW, dropped

WORDS = [
    "he",
    "should",
    "make",
    "inquiries",
    "as",
    "to",
    "symptoms",
    "and",
    "time",
    "at",
    "which",
    "food",
    "or",
    "medicine",
    "was",
    "last",
    "taken",
]
LINES = (Path(__file__).parents[1] / "data" / "librispeech_texts.tsv").read_text(encoding="utf-8").splitlines()[1:]
TEXTS = [line.split("\t")[1] for line in LINES]


def said(*words: str) -> str:
    return " ".join(words)


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        (said(*WORDS), said(*WORDS[:13])),
        (said("so", *WORDS[4:], "by", "him"), said(*WORDS[4:])),
        (said("so", *WORDS[5:], "by", "him"), None),  # twelve words in common
        (said(*WORDS[:12], "drink", *WORDS[13:]), None),
        ("He should make inquiries—as to symptoms, and TIME at which food, or medicine…", said(*WORDS[:13])),
        ("", None),
        (None, None),
    ],
)
def test_a_run_of_thirteen_words(text: str | None, shared: str | None) -> None:
    assert EvaluationTexts([said(*WORDS)]).shared(text) == shared


@pytest.mark.parametrize("length", [7, 8, 12])
def test_a_shorter_text_must_occur_whole_and_have_eight_words(length: int) -> None:
    """`Yes.` in an evaluation set must not drop every yes."""
    texts = EvaluationTexts([said(*WORDS[:length]), said(*WORDS[1:]), "Yes."])
    found = texts.shared(said("well", *WORDS[:length], "indeed"))
    assert found == (said(*WORDS[:length]) if length >= 8 else None)
    assert texts.shared(said(*WORDS[: length - 1])) is None and texts.shared("yes yes yes") is None


def test_characters_are_words_where_there_are_no_spaces() -> None:
    text = "人人生而自由，在尊严和权利上一律平等。"
    assert EvaluationTexts([text]).shared(f"他说：{text[:14]}") == " ".join("人人生而自由在尊严和权利上"[:13])
    assert EvaluationTexts([text]).shared(text[:12]) is None


def test_of_real_texts_only_their_own_are_found() -> None:
    """Of 210 utterances of LibriSpeech, of which some follow one another in a book, none shares a run with another."""
    half = EvaluationTexts(TEXTS[::2])
    assert [text for text in TEXTS[1::2] if half.shared(text)] == []
    missed = [text for text in TEXTS[::2] if not half.shared(f"and then {text.upper()}!")]
    assert all(len(text.split()) < 8 for text in missed) and len(missed) == 10


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_runs_are_those_of_a_plain_search(one: list[str], two: list[str]) -> None:
    length = min(len(one), 13)
    runs = [one[start : start + length] for start in range(len(one) - length + 1)] if length >= 8 else []
    inside = any(two[start : start + length] in runs for start in range(len(two) - length + 1)) if runs else False
    assert (EvaluationTexts([said(*one)]).shared(said(*two)) is not None) == inside


def test_text_and_reply_are_looked_at_and_held_out_rows_stay(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"id": "eval-1", "text": said(*WORDS)}) + "\n", encoding="utf-8-sig")
    transform = PublishS2T(S2TParameters(evaluation_texts=str(file), max_chars_per_s=None))
    found = dropped(transform, {}, {"reference_text": said(*WORDS)}, {"reference_text": said(*WORDS[:12])})
    reason = ("filtered_evaluation_texts", f"shares {said(*WORDS[:13])!r} with evaluation_texts")
    assert found == [None, reason, None]
    reply = ROW["echo_targets"] | {"response_text": said(*WORDS[:13]), "segment_char_ends": [4, len(said(*WORDS[:13]))]}
    echo = PublishEcho(EchoSetParameters(evaluation_texts=str(file)))
    assert dropped(echo, {"echo_targets": reply}, {}) == [reason, None]


def test_two_folders_one_recipe(tmp_path: Path) -> None:
    recipes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "texts.txt").write_text(said(*WORDS))
        parameters = S2TParameters(evaluation_texts=str(tmp_path / name / "texts.txt"))
        recipes.append(recipe_of(PublishS2T(parameters), {}))
    assert recipes[0] == recipes[1] and recipes[0].weights.keys() == {"evaluation_texts"}
    assert "evaluation_texts" not in recipes[0].parameters


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory; evaluation_texts names a file of texts"),
        (b"", "no text has 8 words or more"),
        (b"yes\nno\n", "no text has 8 words or more"),
        (b'{"text": "a"}\n{"sentence": "b"}\n', "f:2: `text` is NoneType; expected a string"),
        (b'{"text": ["a", "b"]}\n', "f:1: `text` is list; expected a string"),
        (b'{"text": "a"\n', "f:1: "),
        (b'[{"text": "a"}]', "single JSON array"),
        (b"PAR1....", "Parquet"),
        (b"plain\ncaf\xe9\n", "f:2: "),
    ],
)
def test_files_without_texts_are_named(content: bytes | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "f"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError) as refused:
        PublishS2T(S2TParameters(evaluation_texts=str(file))).weight_digests()
    assert says in str(refused.value) and str(file) in str(refused.value)


def test_plain_lines_of_any_system(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "f").write_bytes(f"\ufeff{said(*WORDS)}{end}{end}Yes.{end}".encode())
        assert EvaluationTexts.load(tmp_path / "f").shared(said(*WORDS)) == said(*WORDS[:13])

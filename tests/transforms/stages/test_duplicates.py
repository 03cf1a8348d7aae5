"""Near-duplicates against exact similarities, and files of duplicates that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from echo_targets.transforms.stages.publish.duplicates import (
    Duplicate,
    DuplicatesError,
    held_out,
    load_duplicates,
    save_duplicates,
)
from echo_targets.transforms.stages.publish.likeness import UNIT_RUNS, WORD_RUNS, near_duplicates, runs_of
from echo_targets.transforms.stages.publish.stage import PublishS2T, S2TParameters
from tests.schemas.samples import key
from tests.transforms.stages.test_publish import dropped

FOUND = [Duplicate(key(1), key(0), "audio"), Duplicate(key(2), "ключ", "text"), Duplicate(key(3), key(0), "units")]


def similarity(one: set[bytes], two: set[bytes]) -> float:
    return len(one & two) / len(one | two)


def test_runs() -> None:
    assert runs_of(list("abcdef")) == {b"a b c d e", b"b c d e f"}
    assert runs_of(["a", "b"]) == {b"a b"} and runs_of([]) == set()


def test_near_duplicates_are_those_of_a_plain_search() -> None:
    """Copies with more and more changed words; what is within 0.12 of the least similarity may go either way."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        words = [str(word) for word in rng.integers(0, 5000, 60)]
        rows.append((f"{number:02}", runs_of(words)))
        for place in rng.integers(0, 60, number % 8):
            words[place] = "changed"
        rows.append((f"{number:02} again", runs_of(words)))
    runs = dict(rows)
    found = dict(near_duplicates(rows, WORD_RUNS))
    for number in range(40):
        name, again = f"{number:02}", f"{number:02} again"
        alike = similarity(runs[name], runs[again])
        assert name not in found
        if abs(alike - WORD_RUNS.least) > 0.12:
            assert (again in found) == (alike > WORD_RUNS.least), alike
        assert found.get(again, name) == name
    assert 5 < len(found) < 35


def test_short_and_empty_rows() -> None:
    """Texts without a run must not seem equal (data-juicer, issue 1051; DataFlow, issue 526)."""
    rows = [("a", runs_of([])), ("b", runs_of([])), ("c", runs_of(["cat"])), ("d", runs_of(["dog"]))]
    assert list(near_duplicates([*rows, ("e", runs_of(["cat"]))], WORD_RUNS)) == [("e", "c")]


def test_the_first_of_several_is_kept() -> None:
    rows = [(name, runs_of(list("123456"))) for name in ("z", "b", "a")]
    assert list(near_duplicates(rows, WORD_RUNS)) == list(near_duplicates(rows, UNIT_RUNS)) == [("b", "z"), ("a", "z")]


def test_held_out_splits() -> None:
    splits = ["train", "test", "test-other", "dev-clean", "Validation", "", "train-clean-100", "latest", "evaluation"]
    marks = held_out(pa.array(splits).dictionary_encode()).to_pylist()
    assert marks == [False, True, True, True, True, False, False, False, True]


def test_rows_that_the_file_lists_are_dropped_by_kind(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    save_duplicates(FOUND, file)
    assert list(load_duplicates(file)) == FOUND
    rows: list[dict[str, Any]] = [{}, {}, {}, {}]
    expected = [None, *(("filtered_duplicate", f"has the {d.by} of {d.duplicate_of} (duplicates)") for d in FOUND)]
    for kinds in (["audio"], ["text", "units"], ["audio", "units", "text"], []):
        parameters = S2TParameters.model_validate({"duplicates": str(file), "drop_duplicates": kinds})
        wanted = [reason if reason and reason[1].split()[2] in kinds else None for reason in expected]
        assert dropped(PublishS2T(parameters), *rows) == wanted
    assert dropped(PublishS2T(S2TParameters(duplicates=str(file))), *rows) == [expected[0], expected[1], None, None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file or directory; make one with `echo-targets fit-duplicates`"),
        ("{}", ":1: expected strings `id`, `duplicate_of` and `by`; make one"),
        ('{"id": 3, "duplicate_of": "b", "by": "audio"}', ":1: expected strings"),
        ('{"id": "a", "duplicate_of": "b", "by": "smell"}', ":1: `by` is 'smell'; expected audio, units, text"),
        ('{"id": "a", "duplicate_of": "b", "by": "text"}\nnonsense', ":2: expected strings"),
        ("[]", "single JSON array"),
    ],
)
def test_a_damaged_file_is_refused(text: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DuplicatesError) as refused:
        PublishS2T(S2TParameters(duplicates=str(file))).weight_digests()
    assert says in str(refused.value) and str(file) in str(refused.value)


def test_equal_duplicates_are_equal_bytes(tmp_path: Path) -> None:
    save_duplicates(iter(FOUND), tmp_path / "a")
    save_duplicates(load_duplicates(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_text().splitlines()[1])["duplicate_of"] == "ключ"

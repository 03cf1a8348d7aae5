"""Fences against numpy's quantiles, and files of fences that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.transforms.stages.publish.fences import MAX_FILE_BYTES, FencesError, RateFences

rates = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=50)
groups = st.dictionaries(st.tuples(st.text(max_size=3), st.sampled_from(["en", "de"])), rates, max_size=4)


@given(groups, st.randoms())
def test_fences_are_those_of_the_quartiles(values: dict[tuple[str, str], list[float]], random: Any) -> None:
    fences = RateFences.fit({group: np.array(found, np.float32) for group, found in values.items()}).fences
    assert [(fence.corpus, fence.language) for fence in fences] == sorted(values)
    for fence in fences:
        found = values[fence.corpus, fence.language]
        q1, q3 = np.percentile(found, 25), np.percentile(found, 75)
        expected = [q1, q3, q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)]
        assert [fence.q1, fence.q3, fence.low, fence.high] == pytest.approx(expected, abs=1e-3)
        assert fence.count == len(found)
        random.shuffle(found)
    again = {group: np.array(found, np.float32) for group, found in reversed(values.items())}
    assert RateFences.fit(again).fences == fences


def test_a_saved_file_is_read_as_it_was(tmp_path: Path) -> None:
    fences = RateFences.fit({("hörbuch", "de"): np.linspace(5, 20, 99, dtype=np.float32), ("none", "en"): np.zeros(0)})
    for name in "ab":
        fences.save(tmp_path / name)
    assert RateFences.load(tmp_path / "a") == fences and len(fences.fences) == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def changed(**values: Any) -> str:
    fence = {"corpus": "c", "language": "en", "count": 9, "q1": 2.0, "q3": 3.0, "low": 0.5, "high": 4.5}
    return json.dumps({"score": "chars_per_s", "fences": [fence | values]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Invalid JSON"),
        (changed()[:-9], "Invalid JSON"),
        ("[]", "Input should be an object"),
        ('{"fences": {}}', "fences: Input should be a valid array"),
        ('{"score": "wer", "fences": []}', "score: "),
        (changed(low=9.0), "low, q1, q3 and high of c, en are not in order"),
        (changed(high=float("nan")), "fences.0.high: "),
        (changed(low=float("-inf")), "fences.0.low: "),
        (changed(count=0), "fences.0.count: "),
        (changed(mood="good"), "fences.0.mood: Extra inputs"),
        (changed().replace("]", ", " + json.dumps(json.loads(changed())["fences"][0]) + "]"), "is listed twice"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "fences.json"
    file.write_text(changed())
    assert RateFences.load(file).fences[0].high == 4.5
    file.write_text(text)
    with pytest.raises(FencesError) as refused:
        RateFences.load(file)
    message = str(refused.value)
    assert message.startswith(f"{file}: not a fences file: ") and says in message
    assert message.endswith("; fit one with `echo-targets fit-fences`") and "\n" not in message


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "fences.json"
    with file.open("wb") as opened:
        opened.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(FencesError, match="bytes is too large for a fences file"):
        RateFences.load(file)

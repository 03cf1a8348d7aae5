from __future__ import annotations

import math
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.pipeline.commit import CommitError
from echo_targets.pipeline.plan import Plan, cut, plan
from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.registry import entries
from tests.pipeline.stand_ins import files
from tests.schemas.samples import key, sample, samples

groups = st.lists(st.tuples(st.integers(0, 12).map(str), st.floats(0, 50)), max_size=40)


@given(groups, st.floats(0.5, 200))
def test_cut(rows: list[tuple[str, float]], shard_seconds: float) -> None:
    names, seconds = [name for name, _ in rows], [duration for _, duration in rows]
    order, ends = cut([names.index(name) for name in names], seconds, shard_seconds)
    assert sorted(order) == list(range(len(rows)))
    starts = [0, *ends[:-1]]
    shards = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    assert ends[-1] == len(rows)
    assert all(shards) or (len(shards) == 1 and not rows)

    where = [{number for number, shard in enumerate(shards) for p in shard if names[p] == name} for name in set(names)]
    assert all(len(shards_of_group) == 1 for shards_of_group in where), "a dialogue is whole"
    placed = [names[position] for position in order]
    assert len(set(placed)) == 1 + sum(a != b for a, b in pairwise(placed)) if rows else True, "and together"

    total = sum(seconds)
    longest = max((sum(seconds[p] for p in order if names[p] == name) for name in set(names)), default=0.0)
    wanted = (math.ceil(total / shard_seconds - slack) for slack in (0, 0.0011))  # a sliver over is no shard
    assert len(shards) in {max(1, min(len(set(names)), shards)) for shards in wanted}
    for shard in shards:
        assert sum(seconds[position] for position in shard) <= total / len(shards) + longest + 1e-6


def test_cut_keeps_the_order_of_the_groups_first_members() -> None:
    order, ends = cut([0, 1, 0, 3, 1], [1.0] * 5, 2.0)
    assert (list(order), ends) == ([0, 2, 1, 4, 3], [2, 4, 5])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_many_short_items_make_shards_of_about_the_same_length(seconds: list[int]) -> None:
    order, ends = cut(range(len(seconds)), [float(value) for value in seconds], 100.0)
    lengths = [sum(seconds[p] for p in order[start:end]) for start, end in pairwise([0, *ends])]
    assert max(lengths) <= min(100, sum(seconds) / len(ends)) + 30


def planned(shard_hours: float = 1.0, **changes: Any) -> Plan:
    return plan([sample("entries", number) | changes for number in range(4)], shard_hours)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 1},
        {"locator": "b.wav"},
        {"seconds": 9.0},
        {"reference_text": "goodbye"},
        {"reference_text": None},
        {"channel": 0},
        {"language": "de"},
        {"license": "MIT"},
        {"role": "narrator"},
        {"error_class": "bad_line", "error": "line 3: not JSON"},
    ],
)
def test_the_fingerprint_changes_with_what_is_said_of_an_entry(changes: dict[str, Any]) -> None:
    assert planned(**changes).info.fingerprint != planned().info.fingerprint


def test_the_fingerprint_changes_with_order_number_and_shard_hours() -> None:
    rows = samples("entries", 4)
    prints = {
        plan(rows, 1.0).info.fingerprint,
        plan(rows[::-1], 1.0).info.fingerprint,
        plan(rows[:3], 1.0).info.fingerprint,
        plan([*rows[:3], rows[3] | {KEY: "utt"}], 1.0).info.fingerprint,
        plan(rows, 2.0).info.fingerprint,
    }
    assert len(prints) == 5


def test_an_item_that_lies_elsewhere_is_a_new_plan(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with wave.open(str(here / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 16_000, "NONE", ""))
        file.writeframes(bytes(32_000))
    (here / "calls.jsonl").write_text('{"id": "a", "audio": "a.wav", "text": "hush"}\n')
    before = fingerprint_of_manifest(here / "calls.jsonl")
    here.rename(there)
    assert fingerprint_of_manifest(there / "calls.jsonl") == before
    with (there / "a.wav").open("ab") as file:
        file.write(bytes(2))
    assert fingerprint_of_manifest(there / "calls.jsonl") != before


def fingerprint_of_manifest(path: Path) -> str:
    source = ManifestSource(kind="manifest", manifest=str(path), corpus="calls")
    return plan(entries([source]), 1.0).info.fingerprint


def test_shards_are_checked_and_committed_once(tmp_path: Path) -> None:
    made = plan(samples("entries", 40), 10 / 3600)
    dataset = Dataset(str(tmp_path))
    made.commit(dataset)
    assert made.info.shards == len(list(dataset.manifests("entries"))) > 3
    assert list(check_dataset(str(tmp_path))) == []
    assert dataset.read("entries").to_pylist() == [row for rows in made.shards() for row in rows.to_pylist()]
    counted = sum(manifest.samples for manifest in dataset.manifests("entries"))
    assert abs(counted - made.seconds * SAMPLE_RATE) <= made.info.shards
    before = {path: (tmp_path / path).stat().st_ino for path in files(tmp_path) if path.endswith("parquet")}
    made.commit(dataset)
    assert {path: (tmp_path / path).stat().st_ino for path in before} == before


def test_an_empty_plan_takes_no_version_s_place(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path))
    plan(samples("entries", 3), 1.0).commit(dataset)
    before = dataset.current("entries")
    with pytest.raises(UserError, match=r"there are no items to plan\. Name sources that have items"):
        plan([], 1.0).commit(dataset)
    assert dataset.current("entries") == before and dataset.read("entries").num_rows == 3


def test_an_id_that_comes_twice_is_refused_in_a_shard_and_found_across_shards(tmp_path: Path) -> None:
    within = plan([*samples("entries", 3), sample("entries", 1)], 1.0)
    with pytest.raises(CommitError, match=f"row {key(1)}: key_unique"):
        within.commit(Dataset(str(tmp_path / "within")))
    assert not (tmp_path / "within" / "index.json").exists()
    apart = plan([*samples("entries", 30), sample("entries", 1) | {"dialogue_id": "another"}], 10 / 3600)
    apart.commit(Dataset(str(tmp_path / "apart")))
    assert [finding.rule for finding in check_dataset(str(tmp_path / "apart"))] == ["key_unique"]

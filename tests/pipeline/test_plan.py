from __future__ import annotations

import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
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
from tests.schemas.samples import Row, key, sample, samples

groups = st.lists(st.tuples(st.integers(0, 12).map(str), st.floats(0, 50)), max_size=40)


@given(groups, st.floats(0.5, 200), st.integers(0, 9))
def test_cut(rows: list[tuple[str, float]], shard_seconds: float, seed: int) -> None:
    names, seconds = [name for name, _ in rows], [duration for _, duration in rows]
    order, ends = cut([names.index(name) for name in names], seconds, digests(len(rows), seed), shard_seconds)
    assert sorted(order) == list(range(len(rows)))
    shards = [order[start:end] for start, end in pairwise([0, *ends])]
    assert ends[-1] == len(rows)
    assert all(shards) or (len(shards) == 1 and not rows)

    where = [{number for number, shard in enumerate(shards) for p in shard if names[p] == name} for name in set(names)]
    assert all(len(shards_of_group) == 1 for shards_of_group in where), "a dialogue is whole"
    placed = [names[position] for position in order]
    assert len(set(placed)) == 1 + sum(a != b for a, b in pairwise(placed)) if rows else True, "and together"

    longest = max((sum(seconds[p] for p in order if names[p] == name) for name in set(names)), default=0.0)
    lengths = [sum(seconds[position] for position in shard) for shard in shards]
    slack = 0.001 * len(rows) + 1e-6  # lengths are counted in milliseconds
    assert all(0.5 * shard_seconds - slack <= length for length in lengths[:-1])
    assert all(length <= 1.5 * shard_seconds + longest + slack for length in lengths)


def digests(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, count, np.uint64)


def test_cut_keeps_the_order_of_the_groups_first_members() -> None:
    order, ends = cut([0, 1, 0, 3, 1], [1.0] * 5, np.array([9, 5, 0, 3, 0], np.uint64), 2.0)
    assert (list(order), ends) == ([0, 2, 1, 4, 3], [2, 5])


def test_shards_are_as_long_as_wanted_in_the_mean() -> None:
    lengths = np.random.default_rng(1).uniform(2, 16, 100_000)
    order, ends = cut(range(len(lengths)), lengths.tolist(), digests(len(lengths)), 3600.0)
    found = [lengths[list(order[start:end])].sum() for start, end in pairwise([0, *ends])]
    assert 0.97 < np.mean(found) / 3600 < 1.03 and min(found[:-1]) >= 0.5 * 3600 and max(found) <= 1.5 * 3600 + 16


def changed_share(change: Callable[[list[int]], list[int]], seed: int) -> int:
    """How many of about 100 shards are new after a change."""
    before = list(range(10_000))
    shards = []
    for items in (before, change(before)):
        drawn = digests(20_000, seed)[items]
        order, ends = cut(range(len(items)), [3.6] * len(items), drawn, 360.0)
        shards.append({tuple(items[p] for p in order[start:end]) for start, end in pairwise([0, *ends])})
    return len(shards[1] - shards[0])


@pytest.mark.parametrize("seed", range(5))
def test_a_change_reaches_few_shards(seed: int) -> None:
    assert changed_share(lambda items: [*items, 10_000], seed) == 1, "an append, the last one"
    assert changed_share(lambda items: [*items, *range(10_000, 10_300)], seed) <= 3 + 2
    inserted = [
        changed_share(lambda items, at=at: [*items[:at], 10_000, *items[at:]], seed) for at in range(0, 10_000, 999)
    ]
    removed = [
        changed_share(lambda items, at=at: [*items[:at], *items[at + 1 :]], seed) for at in range(0, 10_000, 999)
    ]
    assert np.mean(inserted + removed) < 2 and max(inserted + removed) <= 9
    assert changed_share(lambda items: [*range(10_000, 10_500), *items], seed) <= 5 + 6, "another corpus before it"


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
def test_a_shards_id_changes_with_what_is_said_of_an_entry(changes: dict[str, Any]) -> None:
    assert planned(**changes).snapshot.ids != planned().snapshot.ids


def test_a_snapshot_changes_with_order_number_and_attempts_and_not_with_what_makes_the_same_shards() -> None:
    def snapshot(rows: list[Row], shard_hours: float = 1.0, **attempts: int) -> str:
        return plan([dict(row) for row in rows], shard_hours, attempts).snapshot.id

    rows = samples("entries", 4)
    ids = [
        snapshot(rows),
        snapshot(rows[::-1]),
        snapshot(rows[:3]),
        snapshot([*rows[:3], rows[3] | {KEY: "utt"}]),
        snapshot(rows, 1e-6),
        snapshot(rows, **{key(2): 1}),
        snapshot(rows, **{key(2): 2}),
    ]
    assert len(set(ids)) == len(ids)
    assert snapshot(rows, 2.0) == snapshot(rows, nobody=7) == ids[0]


def test_a_retried_entry_says_so(tmp_path: Path) -> None:
    planned = plan(samples("entries", 4), 1.0, {key(2): 3, "nobody": 1})
    assert [entry["attempt"] for entry in planned.items()] == [0, 0, 3, 0]
    planned.commit(Dataset(str(tmp_path)))
    index = Dataset(str(tmp_path)).index()
    assert index is not None and index.attempts == {key(2): 3, "nobody": 1}, "also of rows that may come back"
    assert list(check_dataset(str(tmp_path))) == []


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
    return plan(entries([source]), 1.0).snapshot.id


def test_shards_are_checked_and_committed_once(tmp_path: Path) -> None:
    made = plan(samples("entries", 40), 10 / 3600)
    dataset = Dataset(str(tmp_path))
    made.commit(dataset)
    assert made.num_shards == len(list(dataset.manifests("entries"))) > 3
    assert list(check_dataset(str(tmp_path))) == []
    assert dataset.read("entries").to_pylist() == [row for rows in made.shards() for row in rows.to_pylist()]
    counted = sum(manifest.samples for manifest in dataset.manifests("entries"))
    assert abs(counted - made.seconds * SAMPLE_RATE) <= made.num_shards
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

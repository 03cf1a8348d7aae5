"""A corpus that grows, shrinks and is mended: what is computed again, and that the bytes are those of a fresh root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from echo_targets.pipeline.job import Job, StageReport
from echo_targets.pipeline.plan import Plan, plan
from echo_targets.pipeline.reuse import find_donors
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.transforms.base import Output
from tests.pipeline.stand_ins import Double, Faults, Follow, Inline, Listen, files, ids, stage
from tests.schemas.samples import Row, key, sample

SHARD_SECONDS = 20.0


class Counting(Double):
    """As `Double`; notes which rows it computes."""

    computed: ClassVar[list[str]] = []

    def __call__(self, batch: pa.Table) -> Output:
        self.computed.extend(batch[KEY].to_pylist())
        return super().__call__(batch)


def corpus(count: int = 120, first: int = 0) -> list[Row]:
    return [sample("entries", number) | {"seconds": 1.0 + number % 3} for number in range(first, first + count)]


def planned(entries: list[Row], seconds: float = SHARD_SECONDS, **attempts: int) -> Plan:
    return plan([dict(entry) for entry in entries], seconds / 3600, attempts)


def job(root: Path, entries: list[Row] | Plan, allowed: float = 1.0, **faults: Any) -> Job:
    counting = StageSpec(f"{__name__}:Counting", Faults(**faults).model_dump(mode="json"), batch_seconds=8.0)
    made = entries if isinstance(entries, Plan) else planned(entries)
    return Job(str(root), made, [stage(Listen), counting, stage(Follow)], allowed)


def run(work: Job) -> tuple[dict[str, int], list[str]]:
    """The number of shards that each stage ran, and the keys that the model computed."""
    Counting.computed.clear()
    reports = [event for event in work.run(Inline()) if isinstance(event, StageReport)]
    return {report.recipe.stage: report.shards_run for report in reports}, sorted(Counting.computed)


def kept(root: Path) -> dict[str, tuple[int, int]]:
    """What shows that a shard's file was not even opened for writing."""
    found = [path for path in sorted(root.rglob("*.parquet"))]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def shards_of(root: Path) -> dict[str, bytes]:
    """The files of the current versions, by path, without those of others."""
    wanted = set(ids(root))
    return {path: data for path, data in files(root).items() if path.rpartition("/")[2].partition(".")[0] in wanted}


def append(entries: list[Row]) -> list[Row]:
    return [*entries, *corpus(30, first=200)]


def append_one(entries: list[Row]) -> list[Row]:
    return [*entries, sample("entries", 200)]


def insert_in_the_middle(entries: list[Row]) -> list[Row]:
    return [*entries[:60], *corpus(2, first=200), *entries[60:]]


def put_another_corpus_first(entries: list[Row]) -> list[Row]:
    return [*corpus(30, first=200), *entries]


def remove(entries: list[Row]) -> list[Row]:
    return [*entries[:60], *entries[62:]]


def mend(entries: list[Row]) -> list[Row]:
    return [entry | ({"size": 7} if entry[KEY] == key(60) else {}) for entry in entries]


def change_a_text(entries: list[Row]) -> list[Row]:
    return [entry | ({"reference_text": "other words"} if entry[KEY] == key(61) else {}) for entry in entries]


CHANGES = {
    append: (30, 30 / 120 * 12 + 2),
    append_one: (1, 2),
    insert_in_the_middle: (2, 6),
    put_another_corpus_first: (30, 30 / 120 * 12 + 4),
    remove: (0, 3),
    mend: (2, 3),
    change_a_text: (2, 3),
}
"""How many rows are to be computed, dialogues whole, and how many shards at most."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_only_what_changed_is_computed_and_the_bytes_are_those_of_a_fresh_root(
    tmp_path: Path, change: Callable[[list[Row]], list[Row]]
) -> None:
    refuses, filters = [key(number) for number in (3, 61, 90)], [key(60), key(119)]
    run(job(tmp_path / "grown", corpus(), refuses=refuses, filters=filters))
    there, before = kept(tmp_path / "grown"), set(ids(tmp_path / "grown"))
    assert len(before) >= 10
    ran, computed = run(job(tmp_path / "grown", change(corpus()), refuses=refuses, filters=filters))
    rows, most = CHANGES[change]
    fresh = len(set(ids(tmp_path / "grown")) - before)
    assert ran == {"listen": fresh, "double": fresh, "follow": fresh} and 1 <= fresh <= most
    assert len(computed) == rows, "everything else is taken over"
    assert kept(tmp_path / "grown").items() >= there.items()
    run(job(tmp_path / "fresh", change(corpus()), refuses=refuses, filters=filters))
    assert shards_of(tmp_path / "grown") == shards_of(tmp_path / "fresh")
    assert list(check_dataset(str(tmp_path / "grown"))) == []
    assert (
        Dataset(str(tmp_path / "grown"))
        .read("transcripts")
        .equals(Dataset(str(tmp_path / "fresh")).read("transcripts"))
    )


def test_other_shard_hours_compute_nothing(tmp_path: Path) -> None:
    run(job(tmp_path, corpus(), refuses=[key(5)]))
    before = Dataset(str(tmp_path)).current("transcripts")
    ran, computed = run(job(tmp_path, planned(corpus(), 47.0), refuses=[key(5)]))
    assert computed == [] and ran["double"] == len(ids(tmp_path)) > 3
    after = Dataset(str(tmp_path)).current("transcripts")
    assert after.recipe == before.recipe and after.snapshot != before.snapshot
    assert len(Dataset(str(tmp_path)).read("transcripts")) == 119


def test_a_changed_parameter_computes_its_stage_and_what_follows(tmp_path: Path) -> None:
    run(job(tmp_path, corpus()))
    shards = len(ids(tmp_path))
    ran, computed = run(job(tmp_path, corpus(), word="no"))
    assert ran == {"listen": 0, "double": shards, "follow": shards} and len(computed) == 120
    both = job(tmp_path, append(corpus()), word="maybe")
    ran, computed = run(both)
    assert ran["double"] > shards and len(computed) == 150, "a new recipe has nothing to take over"
    assert ran["listen"] <= shards / 2


def test_a_root_that_shares_nothing_starts_afresh(tmp_path: Path) -> None:
    run(job(tmp_path, corpus()))
    ran, computed = run(job(tmp_path, corpus(50, first=500)))
    assert len(computed) == 50 and ran["double"] == len(ids(tmp_path))


def test_going_back_computes_nothing(tmp_path: Path) -> None:
    run(job(tmp_path, corpus()))
    before = Dataset(str(tmp_path)).tables()
    run(job(tmp_path, append(corpus())))
    assert run(job(tmp_path, corpus())) == ({"listen": 0, "double": 0, "follow": 0}, [])
    assert Dataset(str(tmp_path)).tables() == before


def test_a_retry_computes_the_rows_it_is_for_with_their_dialogues(tmp_path: Path) -> None:
    run(job(tmp_path, corpus(), refuses=[key(5), key(77)]))
    there = kept(tmp_path)
    ran, computed = run(job(tmp_path, planned(corpus(), **{key(5): 1})))
    assert ran["double"] == 1 and computed == [key(4), key(5)]
    rejected = Dataset(str(tmp_path)).read("rejects")[KEY].to_pylist()
    assert rejected == [key(77)], "what is not retried stays rejected"
    assert kept(tmp_path).items() >= there.items()


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_stopped_append_is_finished_by_the_next_run(tmp_path: Path, after: int) -> None:
    run(job(tmp_path, corpus()))
    events = job(tmp_path, append(corpus())).run(Inline())
    for _, event in zip(range(after + 4), events, strict=False):
        assert event
    events.close()
    _, computed = run(job(tmp_path, append(corpus())))
    assert len(computed) <= 30, "the current version still gives what did not change"
    assert len(Dataset(str(tmp_path)).read("transcripts")) == 150


def test_a_shard_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    run(job(tmp_path, corpus()))
    dataset = Dataset(str(tmp_path))
    lost = dataset.manifests("transcripts")[1].output.path
    whole = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    with pytest.raises(LayoutError, match=r"1 of .* shards of .* are missing.*Run the job again"):
        dataset.read("transcripts")
    ran, _ = run(job(tmp_path, corpus()))
    assert ran == {"listen": 0, "double": 1, "follow": 0} and (tmp_path / lost).read_bytes() == whole


def test_a_donor_whose_file_is_gone_or_cut_gives_nothing(tmp_path: Path) -> None:
    run(job(tmp_path, corpus()))
    last = tmp_path / Dataset(str(tmp_path)).manifests("transcripts")[-1].output.path
    last.write_bytes(last.read_bytes()[:-9])
    _, computed = run(job(tmp_path, append(corpus())))
    assert len(computed) > 30 and len(Dataset(str(tmp_path)).read("transcripts")) == 150


def test_what_a_preview_foretells(tmp_path: Path) -> None:
    (table, *_) = job(tmp_path, corpus()).preview()
    assert (table.committed, table.unchanged) == (0, 0) and table.rows == 120
    run(job(tmp_path, corpus()))
    assert [each.why for each in job(tmp_path, corpus()).preview()] == [[]] * 4
    previews = {each.recipe.table: each for each in job(tmp_path, append(corpus())).preview()}
    before = kept(tmp_path)
    ran, computed = run(job(tmp_path, append(corpus())))
    double = previews["transcripts"]
    assert double.shards - double.committed == ran["double"] and double.rows - double.unchanged == len(computed)
    assert double.why == ["30 items are new, changed or retried"] and before.items() <= kept(tmp_path).items()


def test_donors_are_looked_for_in_what_comes_and_goes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(job(tmp_path, corpus()))
    opened: list[str] = []
    original = Dataset.open
    monkeypatch.setattr(Dataset, "open", lambda self, path: opened.append(path) or original(self, path))
    grown = planned(append(corpus()))
    donors = find_donors(Dataset(str(tmp_path)), grown)
    assert len(opened) == len(set(ids(tmp_path)) - set(grown.snapshot.ids)) == 1
    assert sum(each.rows for each in donors.values()) > 0


def test_without_its_donors_a_shard_is_the_same(tmp_path: Path) -> None:
    for name in ("with", "without"):
        run(job(tmp_path / name, corpus()))
    run(job(tmp_path / "with", append(corpus())))
    work = job(tmp_path / "without", append(corpus()))
    for task in [work.stages[1]]:
        assert task.transform.endswith("Counting")
    for path in (tmp_path / "without" / "transcripts").rglob("*.json"):
        path.unlink()
    run(replace(work, max_reject_fraction=0.0))
    assert shards_of(tmp_path / "with") == shards_of(tmp_path / "without")

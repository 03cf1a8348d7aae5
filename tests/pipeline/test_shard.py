"""One shard: windows, batches, and what becomes of rows that fail."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.pipeline import shard as shard_module
from echo_targets.pipeline.commit import CommitError, open_recipe, set_current
from echo_targets.pipeline.failures import is_machine_error
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.pipeline.stage import StageSpec, recipe_of
from echo_targets.pipeline.worker_transform import loaded_transform, unload_transform
from echo_targets.schemas import KEY, TRANSCRIPTS, UTTERANCES
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest
from echo_targets.schemas.dataset.versions import Version
from echo_targets.transforms.base import Output, Transform, joined
from tests.pipeline.stand_ins import Double, Faults, Follow, Listen, files, ids, job, stage, temporary, texts
from tests.schemas.samples import arrow, key, sample


@pytest.fixture(autouse=True)
def fresh_worker() -> Iterator[None]:
    """No transform is kept from one test to the next."""
    unload_transform()
    yield
    unload_transform()


def prepared(root: Path, *stages: StageSpec, rows: int = 12) -> list[ShardTask]:
    """The one-shard tasks of the stages after `Listen`, which has run."""
    work = job(root, *stages, rows=rows, shards=1)
    work.plan.commit(Dataset(str(root)))
    tasks = []
    for spec, recipe in work.describe():
        open_recipe(Dataset(str(root)), recipe)
        tasks.append(ShardTask(str(root), spec, recipe, work.plan.snapshot.ids[0]))
    run_shard(tasks[0])
    make_current(root, tasks[0])
    return tasks[1:]


def make_current(root: Path, task: ShardTask) -> None:
    dataset = Dataset(str(root))
    set_current(dataset, {task.recipe.table: Version(task.recipe.fingerprint, dataset.current("entries").snapshot)})


def doubled(root: Path, rows: int = 12, batch_seconds: float = 8.0, **faults: Any) -> Manifest:
    (task,) = prepared(root, stage(Double, batch_seconds, **faults), rows=rows)
    manifest = run_shard(task)
    make_current(root, task)
    return manifest


def shard_bytes(root: Path, manifest: Manifest) -> bytes:
    return (root / manifest.output.path).read_bytes()


def refused(root: Path, manifest: Manifest) -> list[dict[str, Any]]:
    assert manifest.rejects is not None
    rows: list[dict[str, Any]] = Dataset(str(root)).open(manifest.rejects.path).read().to_pylist()
    return rows


def noted(root: Path, before: dict[str, bytes]) -> dict[str, Any]:
    """The note of an attempt that failed, the one file that it left."""
    (name,) = files(root).keys() - before.keys()
    assert name.endswith(f"/{ids(root)[0]}.attempt.json")
    note: dict[str, Any] = json.loads(files(root)[name])
    return note


def batches() -> list[list[str]]:
    """What the transform that ran last was given."""
    transform = loaded_transform()
    assert isinstance(transform, Double)
    return transform.batches


def test_a_shard(tmp_path: Path) -> None:
    manifest = doubled(tmp_path)
    assert (manifest.rows_in, manifest.output.rows, manifest.rejects, manifest.reasons) == (12, 12, None, {})
    assert manifest.samples == 16_000 * sum(1 + number % 3 for number in range(12))
    assert texts(tmp_path) == {key(number): "hello there yes hello there yes " for number in range(12)}
    assert list(texts(tmp_path)) == [key(number) for number in range(12)], "in the order of the input"
    assert list(check_dataset(str(tmp_path))) == []


def test_a_shard_that_is_there_is_not_run_again(tmp_path: Path) -> None:
    (task,) = prepared(tmp_path, stage(Double))
    first = run_shard(task)
    whole = files(tmp_path)
    unload_transform()
    assert run_shard(task) == first
    assert loaded_transform() is None and files(tmp_path) == whole


def test_progress_adds_up_to_the_samples(tmp_path: Path) -> None:
    (task,) = prepared(tmp_path, stage(Double, raises=[key(3)]))
    worked: list[int] = []
    manifest = run_shard(task, worked.append)
    assert sum(worked) == manifest.samples and len(worked) > 1


# -- promise 5: errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_rows", [1, 2, 3])
def test_out_of_memory_halves_the_batch_and_the_result_is_the_same(tmp_path: Path, most_rows: int) -> None:
    whole = doubled(tmp_path / "whole", batch_seconds=60)
    assert max(map(len, batches())) > 3
    halved = doubled(tmp_path / "halved", batch_seconds=60, most_rows=most_rows)
    assert min(map(len, batches())) <= most_rows and halved.rejects is None
    assert shard_bytes(tmp_path / "halved", halved) == shard_bytes(tmp_path / "whole", whole)


def test_a_row_that_is_too_much_by_itself_is_rejected(tmp_path: Path) -> None:
    manifest = doubled(tmp_path, sick_from=key(11), sick_with="MemoryError: an hour of audio")
    assert manifest.reasons == {"out_of_memory": 1}
    assert {row["message"] for row in refused(tmp_path, manifest)} == {"out_of_memory: an hour of audio"}


class Hungry(Transform):
    """Fails on more than one row, with an array alive in the frame that fails."""

    name: ClassVar[str] = "hungry"
    version: ClassVar[int] = 1
    reads = (UTTERANCES,)
    writes = TRANSCRIPTS
    held: ClassVar[list[weakref.ref[Any]]] = []

    def __call__(self, batch: pa.Table) -> Output:
        assert [ref for ref in self.held if ref() is not None] == [], "the batch that failed still holds its memory"
        activations = np.zeros(1000)
        self.held.append(weakref.ref(activations))
        if len(batch) > 1:
            raise MemoryError
        rows = [sample("transcripts") | {KEY: name, "segments": []} for name in batch[KEY].to_pylist()]
        return Output(pa.Table.from_pylist(rows, schema=TRANSCRIPTS.schema))


def test_the_batch_that_failed_has_let_go_of_its_memory(tmp_path: Path) -> None:
    """An exception holds the frames that it came through, and with them a model's activations."""
    (task,) = prepared(tmp_path, StageSpec(f"{__name__}:Hungry", {}, batch_seconds=60))
    gc.disable()
    try:
        assert run_shard(task).output.rows == 12
    finally:
        gc.enable()


def test_rows_that_raise_are_isolated_and_rejected_and_the_rest_go_through(tmp_path: Path) -> None:
    whole = doubled(tmp_path / "whole", batch_seconds=60)
    manifest = doubled(tmp_path / "some", batch_seconds=60, raises=[key(4), key(7)])
    assert whole.rows_in == manifest.rows_in == manifest.output.rows + 2
    assert manifest.reasons == {"ValueError": 2}
    rows = refused(tmp_path / "some", manifest)
    assert [(row[KEY], row["message"]) for row in rows] == [
        (key(number), f"ValueError: cannot double {key(number)}") for number in (4, 7)
    ]
    assert {row["stage"] for row in rows} == {"double"} and all(row["attempts"] == 1 for row in rows)
    expected = texts(tmp_path / "whole")
    assert texts(tmp_path / "some") == {name: text for name, text in expected.items() if name not in (key(4), key(7))}
    assert list(check_dataset(str(tmp_path / "some"))) == []


def test_rejects_of_the_transform_itself(tmp_path: Path) -> None:
    manifest = doubled(tmp_path, refuses=[key(2)], filters=[key(5), key(1)], raises=[key(9)])
    assert manifest.reasons == {"ValueError": 1, "filtered_dull": 2, "too_dull": 1}
    rows = refused(tmp_path, manifest)
    assert [row[KEY] for row in rows] == [key(1), key(2), key(5), key(9)], "in the order of the input"
    assert rows[1]["message"] == "2.wav: nothing to double"


def test_a_shard_of_which_nothing_is_left(tmp_path: Path) -> None:
    everything = [key(number) for number in range(5)]
    manifest = doubled(tmp_path, rows=5, refuses=everything)
    assert (manifest.rows_in, manifest.output.rows) == (5, 0)
    assert list(check_dataset(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [("unreachable", ConnectionResetError), ("broken_device", RuntimeError)],
)
def test_a_device_or_network_error_fails_the_shard_and_leaves_nothing(
    tmp_path: Path, fault: str, error: type[Exception]
) -> None:
    (task,) = prepared(tmp_path, stage(Double, **{fault: [key(6)]}, refuses=[key(0)]))
    before = files(tmp_path)
    with pytest.raises(error):
        run_shard(task)
    assert noted(tmp_path, before) == {"id": ANY, "reason": ANY, "final": False}


class AcceleratorError(RuntimeError):
    """Named as torch's."""


class OutOfMemoryError(RuntimeError):
    """Named as torch's, whose message speaks of CUDA too."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(5, "Input/output error"), True),
        (TimeoutError(), True),
        (AcceleratorError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (OutOfMemoryError("CUDA error: out of memory"), False),
        (MemoryError(), False),
        (ValueError("not a number"), False),
        (RuntimeError("shape mismatch"), False),
        (CommitError("2 rows in, 1 out"), False),
    ],
    ids=repr,
)
def test_which_errors_are_the_devices(error: Exception, expected: bool) -> None:
    assert is_machine_error(error) is expected


@pytest.mark.parametrize("fault", ["drops", "repeats"])
def test_a_transform_that_breaks_the_contract_is_refused(tmp_path: Path, fault: str) -> None:
    (task,) = prepared(tmp_path, stage(Double, **{fault: [key(8)]}, refuses=[key(1)]))
    before = files(tmp_path)
    with pytest.raises(CommitError, match=key(8)):
        run_shard(task)
    note = noted(tmp_path, before)
    assert note["final"] and key(8) in note["reason"]


class Stranger(Double):
    """Makes rows of another table."""

    def __call__(self, batch: pa.Table) -> Output:
        return Output(arrow("rejects", [sample("rejects") | {KEY: name} for name in batch[KEY].to_pylist()]))


def test_rows_of_another_table_are_refused(tmp_path: Path) -> None:
    (task,) = prepared(tmp_path, StageSpec(f"{__name__}:Stranger", Faults().model_dump(mode="json")))
    with pytest.raises((CommitError, pa.ArrowInvalid)):
        run_shard(task)
    assert temporary(tmp_path) == []


# -- promise 2: batches and windows do not show -----------------------------------------------------------------------


def test_the_size_of_a_batch_does_not_show_in_the_file(tmp_path: Path) -> None:
    made = {}
    for batch_seconds in (0.1, 5.0, 600.0):
        root = tmp_path / str(batch_seconds)
        made[batch_seconds] = shard_bytes(root, doubled(root, rows=40, batch_seconds=batch_seconds))
    assert len(set(made.values())) == 1


def test_windows_keep_the_order_and_lose_nothing(tmp_path: Path) -> None:
    count = 2 * Double.window_rows + 150
    refuses = [key(Double.window_rows - 1), key(0), key(count - 1), key(Double.window_rows)]
    manifest = doubled(tmp_path, rows=count, batch_seconds=1e6, refuses=refuses)
    assert (manifest.rows_in, manifest.output.rows, manifest.reasons) == (count, count - 4, {"too_dull": 4})
    assert list(texts(tmp_path)) == [key(number) for number in range(count) if key(number) not in refuses]
    assert [row[KEY] for row in refused(tmp_path, manifest)] == sorted(refuses)
    assert [len(batch) for batch in batches()] == [Double.window_rows, Double.window_rows, 150]
    assert list(check_dataset(str(tmp_path))) == []


@given(st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=8), min_size=1, max_size=6))
def test_neighbours_of_one_value_are_held_together(groups: list[list[str | None]]) -> None:
    rows = [value for group in groups for value in group]
    end = shard_module._last_start(pa.table({"dialogue_id": pa.array(rows, pa.string())}), "dialogue_id")
    held = rows[end:]
    assert len(set(held)) <= 1 and None not in held, "what goes on in the next window is of one value"
    assert end == len(rows) or rows[end - 1] != held[0], "and all of it does"
    if rows[-1] is not None and len(set(rows)) > 1:
        assert held, "a run at the end may go on"
    assert end > 0


# -- joins ------------------------------------------------------------------------------------------------------------


def follow(root: Path, *stages: StageSpec, rows: int = 12) -> dict[str, str]:
    for task in prepared(root, *stages, stage(Follow), rows=rows):
        run_shard(task)
        make_current(root, task)
    table = Dataset(str(root)).read("alignments", [KEY, "text_source"])
    return dict(zip(table[KEY].to_pylist(), table["text_source"].to_pylist(), strict=True))


def test_a_table_that_the_job_does_not_make_is_joined_as_nulls(tmp_path: Path) -> None:
    assert set(follow(tmp_path).values()) == {"reference"}


def test_a_row_that_another_stage_refused_is_joined_as_null(tmp_path: Path) -> None:
    sources = follow(tmp_path, stage(Double, refuses=[key(3)]))
    assert [name for name, source in sources.items() if source == "reference"] == [key(3)]


def test_a_joined_table_of_many_row_groups(tmp_path: Path) -> None:
    """More than one row group of transcripts, which hold lists of strings."""
    sources = follow(tmp_path, stage(Double, batch_seconds=600), rows=2_100)
    assert len(sources) == 2_100 and set(sources.values()) == {"transcript"}


def test_an_empty_table_is_joined_as_nulls(tmp_path: Path) -> None:
    sources = follow(tmp_path, stage(Double, refuses=[key(number) for number in range(12)]))
    assert set(sources.values()) == {"reference"}


def test_joined_takes_each_row_to_its_key() -> None:
    rows = arrow("utterances", [sample("utterances", number) for number in (4, 1, 9)])
    others = pa.concat_tables([arrow("transcripts", [sample("transcripts", n)]) for n in (1, 2, 4)])
    column = joined(rows, TRANSCRIPTS, others)["transcripts"].to_pylist()
    assert column == [sampled(4), sampled(1), None]
    assert joined(rows.slice(1, 1), TRANSCRIPTS, None)["transcripts"].to_pylist() == [None]
    assert joined(rows.slice(0, 0), TRANSCRIPTS, others)["transcripts"].to_pylist() == []


def sampled(number: int) -> dict[str, Any]:
    (row,) = arrow("transcripts", [sample("transcripts", number)]).to_pylist()
    return dict(row)


def test_a_shard_whose_input_is_not_committed_says_so(tmp_path: Path) -> None:
    (task,) = prepared(tmp_path, stage(Double))
    (tmp_path / "utterances" / task.recipe.upstream["utterances"] / f"{task.shard}.json").unlink()
    with pytest.raises(LayoutError, match=r"utterances .* is not committed"):
        run_shard(task)


# -- what a fingerprint is made of ------------------------------------------------------------------------------------


class Louder(Double):
    version: ClassVar[int] = 2


def test_a_fingerprint_is_of_what_shapes_the_output_and_of_nothing_else() -> None:
    def fingerprint(spec: StageSpec, upstream: str = "1") -> str:
        return recipe_of(spec.build(), {"utterances": upstream}).fingerprint

    base = fingerprint(stage(Double))
    assert fingerprint(stage(Double, batch_seconds=1.0)) == base
    assert fingerprint(StageSpec(stage(Double).transform, stage(Double).parameters, device="cuda:1")) == base
    assert fingerprint(stage(Double, folder="/elsewhere")) == base
    others = [
        fingerprint(stage(Double, word="no")),
        fingerprint(stage(Double), upstream="2"),
        fingerprint(stage(Follow)),
        fingerprint(stage(Listen)),
        fingerprint(StageSpec(f"{__name__}:Louder", stage(Double).parameters)),
    ]
    assert len({base, *others}) == len(others) + 1
    assert len(base) == 16 and set(base) <= set("0123456789abcdef")


# -- decoding ahead of the model --------------------------------------------------------------------------------------


class Prepared(Double):
    """As `Double`, on rows that were prepared; notes what was prepared, and in which threads."""

    seen: ClassVar[list[tuple[str, int]]] = []

    def prepare(self, batch: pa.Table) -> pa.Table:
        keys = batch[KEY].to_pylist()
        self.seen.append((keys[0], threading.get_ident()))
        if key(3) in keys:
            raise ValueError(f"cannot decode {key(3)}")
        return batch.append_column("ready", pa.array([True] * len(batch)))

    def __call__(self, batch: pa.Table) -> Output:
        assert batch["ready"].to_pylist() == [True] * len(batch)
        return super().__call__(batch.drop_columns(["ready"]))


def test_batches_are_prepared_ahead_in_a_thread_and_a_row_that_cannot_be_is_refused(tmp_path: Path) -> None:
    Prepared.seen.clear()
    (task,) = prepared(tmp_path, stage(Double))
    spec = StageSpec(f"{__name__}:Prepared", task.spec.parameters, batch_seconds=8.0)
    manifest = run_shard(replace(task, spec=spec))
    assert manifest.reasons == {"ValueError": 1} and manifest.output.rows == 11
    (reject,) = refused(tmp_path, manifest)
    assert (reject[KEY], reject["message"]) == (key(3), f"ValueError: cannot decode {key(3)}")
    elsewhere = [first for first, thread in Prepared.seen if thread != threading.get_ident()]
    assert len(elsewhere) == len(set(elsewhere)) > 2, "each batch once"


def test_rows_by_the_hour_end_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = doubled(tmp_path / "whole", rows=350, batch_seconds=1e6)
    assert [len(batch) for batch in batches()] == [350]
    monkeypatch.setattr(shard_module, "WINDOW_BYTES", 1)
    unload_transform()
    cut = doubled(tmp_path / "cut", rows=350, batch_seconds=1e6)
    assert [len(batch) for batch in batches()] == [100, 100, 100, 50], "a row group each"
    assert shard_bytes(tmp_path / "cut", cut) == shard_bytes(tmp_path / "whole", whole)


# -- notes of attempts ------------------------------------------------------------------------------------------------


class Panic(BaseException):
    """As extensions in Rust raise it: no Exception, and no order to stop."""


class Panicking(Double):
    """Panics at a row."""

    def __call__(self, batch: pa.Table) -> Output:
        if key(5) in batch[KEY].to_pylist():
            raise Panic("index out of bounds")
        return super().__call__(batch)


def test_a_panic_is_a_death_and_its_row_is_refused_next_time(tmp_path: Path) -> None:
    (task,) = prepared(tmp_path, stage(Double))
    task = replace(task, spec=StageSpec(f"{__name__}:Panicking", task.spec.parameters, batch_seconds=8.0))
    with pytest.raises(Panic):
        run_shard(task)
    manifest = run_shard(task)
    assert manifest.reasons == {"crashed": 1} and manifest.output.rows == 11
    (reject,) = refused(tmp_path, manifest)
    assert reject[KEY] == key(5)


@pytest.mark.parametrize("content", ["", "{", '{"id": "x", "colour": "red"}', "[]"])
def test_half_a_note_is_taken_for_a_death(tmp_path: Path, content: str) -> None:
    (task,) = prepared(tmp_path, stage(Double))
    note = tmp_path / task.recipe.table / task.recipe.fingerprint / f"{task.shard}.attempt.json"
    note.write_text(content)
    assert run_shard(task).output.rows == 12
    assert not note.exists()

"""The commit, and every way in which it must not happen."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from echo_targets.pipeline.commit import CommitError, ShardWriter, open_recipe, set_current, write_snapshot, write_whole
from echo_targets.schemas import KEY, REJECTS, TABLES
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, Manifest
from echo_targets.schemas.dataset.versions import Recipe, ShardEntry, Snapshot, Version
from echo_targets.transforms.base import Reject
from tests.pipeline.stand_ins import files, temporary
from tests.schemas.samples import Row, arrow, key, put_target, sample, samples

SHARD = "fedcba9876543210"
SNAPSHOT = Snapshot((ShardEntry(SHARD, 5, 0),))


def about(table: str, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "stage": "hear",
        "version": 1,
        "table": table,
        "schema_version": TABLES[table].version,
        "parameters": {},
        "weights": {"ears": "abc"},
        "upstream": {},
    }
    return Recipe(**(values | changes))


RECIPE = about("transcripts")
FINGERPRINT = RECIPE.fingerprint


def make_current(dataset: Dataset, recipe: Recipe, snapshot: Snapshot = SNAPSHOT) -> None:
    open_recipe(dataset, recipe)
    write_snapshot(dataset, snapshot)
    set_current(dataset, {recipe.table: Version(recipe.fingerprint, snapshot.id)})


def keys(count: int, first: int = 0) -> list[str]:
    return [key(number) for number in range(first, first + count)]


def reject(number: int, error_class: str = "too_short") -> Reject:
    return Reject(key(number), error_class, f"{number}.wav: {error_class}")


def rows(*numbers: int, table: str = "transcripts") -> pa.Table:
    return arrow(table, [sample(table, number) for number in numbers])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "root"))


def committed(dataset: Dataset, *windows: tuple[list[str], pa.Table, list[tuple[Reject, int]]]) -> Manifest:
    with ShardWriter(dataset, TABLES[RECIPE.table], RECIPE, SHARD) as writer:
        for names, out, refused in windows:
            writer.write(names, 100 * len(names), out, refused)
        return writer.commit()


# -- promise 1: one row in, one row or one reject out -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "out", "refused"),
    [
        ((0, 1, 2), (0, 1), ()),  # a row is lost
        ((0, 1, 2), (0, 1, 2, 2), ()),  # comes twice
        ((0, 1, 2), (0, 1, 3), ()),  # is another
        ((0, 1, 2), (0, 1, 2), (2,)),  # goes through and is refused
        ((0, 1, 2), (0, 1), (2, 2)),  # is refused twice
        ((0, 1, 2), (0, 1, 2), (3,)),  # comes from nowhere
        ((0,), (), ()),
        ((), (0,), ()),
        ((0, 0), (0,), ()),
    ],
)
def test_counts_that_do_not_add_up_are_refused(
    dataset: Dataset, numbers: tuple[int, ...], out: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    with pytest.raises(CommitError, match=r"each row must have exactly one outcome, but not .*utt-0000"):
        committed(dataset, ([key(n) for n in numbers], rows(*out), [reject(n) for n in refused]))
    assert files(Path(dataset.root)) == {}


def test_a_key_in_two_windows_is_refused(dataset: Dataset) -> None:
    with pytest.raises(CommitError, match="key_unique"):
        committed(dataset, (keys(2), rows(0, 1), []), (keys(1), rows(0), []))
    assert files(Path(dataset.root)) == {}


def test_the_manifest_says_what_became_of_the_rows(dataset: Dataset) -> None:
    manifest = committed(
        dataset,
        (keys(3), rows(2, 0), [reject(1)]),
        (keys(2, 3), rows(), [reject(4, "filtered_dull"), reject(3)]),
        (keys(1, 5), rows(5), []),
    )
    assert (manifest.rows_in, manifest.samples, manifest.output.rows) == (6, 600, 3)
    assert manifest.rejects is not None and manifest.rejects.rows == 3
    assert manifest.reasons == {"filtered_dull": 1, "too_short": 2}
    assert dataset.manifest("transcripts", FINGERPRINT, SHARD) == manifest
    for entry in (manifest.output, manifest.rejects):
        data = (Path(dataset.root) / entry.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size, entry.sha256)


def test_nothing_but_rejects_and_nothing_at_all(dataset: Dataset) -> None:
    manifest = committed(dataset, (keys(2), rows(), [reject(0), reject(1)]))
    assert (manifest.rows_in, manifest.output.rows, manifest.reasons) == (2, 0, {"too_short": 2})
    with ShardWriter(dataset, TABLES["transcripts"], RECIPE, "0" * 16) as writer:
        manifest = writer.commit()
    assert (manifest.rows_in, manifest.output.rows, manifest.rejects) == (0, 0, None)


def test_rows_and_rejects_are_in_the_order_of_the_input(dataset: Dataset) -> None:
    order = [5, 1, 4, 0, 3, 2]
    refused = [reject(2), reject(4), reject(1)]
    manifest = committed(dataset, ([key(n) for n in order], rows(0, 3, 5), refused))
    assert manifest.rejects is not None
    assert dataset.open(manifest.output.path).read()[KEY].to_pylist() == [key(5), key(0), key(3)]
    assert dataset.open(manifest.rejects.path).read()[KEY].to_pylist() == [key(1), key(4), key(2)]


# -- promise 2: a pure function of its input --------------------------------------------------------------------------


def echo_rows(count: int) -> list[Row]:
    """Rows whose categories differ, so that the order of dictionaries can show."""
    varied = samples("echo_targets", count)
    for number, row in enumerate(varied):
        row |= {"echo_model_id": f"model-{number % 7}", "tokenizer_id": f"tokens-{number % 5}"}
        put_target(row, stop_reason=[("end", "length", "repetition")[number % 3], ("repetition", "end")[number % 2]])
    return varied


def written_in_batches(root: Path, varied: list[Row], order: list[int], size: int) -> dict[str, bytes]:
    """The files of a shard whose rows came out in another order and in batches of `size`."""
    dataset, info = Dataset(str(root)), about("echo_targets")
    with ShardWriter(dataset, TABLES[info.table], info, SHARD) as writer:
        for start in range(0, len(varied), 700):
            window = [number for number in order if start <= number < start + 700]
            parts = [arrow("echo_targets", [varied[n] for n in window[i : i + size]]) for i in range(0, 700, size)]
            refused = [reject(number + 10_000) for number in window[:3]]
            names = [row[KEY] for row in varied[start : start + 700]] + [key(n + 10_000) for n in sorted(window[:3])]
            writer.write(names, 0, pa.concat_tables(parts), refused)
        writer.commit()
    return files(root)


def test_any_order_and_size_of_batches_gives_the_same_bytes(tmp_path: Path) -> None:
    varied = echo_rows(1_500)
    order = list(range(len(varied)))
    straight = written_in_batches(tmp_path / "straight", varied, order, 700)
    first_three = [number for start in (0, 700, 1400) for number in order[start : start + 3]]
    rest = [number for number in order if number not in first_three]
    for seed, size in ((1, 700), (2, 64), (3, 7)):
        random.Random(seed).shuffle(rest)
        assert written_in_batches(tmp_path / str(seed), varied, first_three + rest, size) == straight


def test_the_bytes_tell_no_time_no_host_and_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "one place", tmp_path / "another%20place#é"
    committed(Dataset(str(first)), (keys(3), rows(0, 1), [reject(2)]))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("time.time", lambda: 1e9)
    committed(Dataset(str(second)), (keys(3), rows(0, 1), [reject(2)]))
    assert files(first) == files(second) != {}
    for data in files(first).values():
        assert str(tmp_path).encode() not in data and socket.gethostname().encode() not in data


def test_the_file_says_what_it_is(dataset: Dataset) -> None:
    manifest = committed(dataset, (keys(1), rows(0), []))
    with dataset.open(manifest.output.path) as file:
        carried = {name.decode(): value.decode() for name, value in file.schema_arrow.metadata.items()}
        chunk = file.metadata.row_group(0).column(0)
        assert (chunk.compression, chunk.has_column_index, chunk.has_offset_index) == ("ZSTD", True, True)
    assert carried == {
        "schema_name": "transcripts",
        "schema_version": TABLES["transcripts"].version,
        "fingerprint": FINGERPRINT,
        "weights.ears": "abc",
    }


def test_row_groups_are_of_the_tables_size_whatever_the_windows(dataset: Dataset) -> None:
    count = 2_500
    everything = arrow("transcripts", samples("transcripts", count))
    parts = [everything[first : first + 700] for first in range(0, count, 700)]
    manifest = committed(dataset, *((part[KEY].to_pylist(), part, []) for part in parts))
    with dataset.open(manifest.output.path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sizes == [1000, 1000, 500]
    make_current(dataset, RECIPE)
    assert dataset.read("transcripts").equals(everything.unify_dictionaries())


# -- promise 3: whole and checked, or not at all ----------------------------------------------------------------------


def test_a_shard_that_breaks_a_rule_is_refused_and_leaves_nothing(dataset: Dataset) -> None:
    broken = [sample("transcripts", number) | ({"chars_per_s": -1.0} if number == 1 else {}) for number in range(3)]
    with pytest.raises(CommitError, match=f"row {key(1)}: chars_per_s_range"):
        committed(dataset, (keys(4), arrow("transcripts", broken), [reject(3)]))
    assert files(Path(dataset.root)) == {}


def test_a_reject_without_a_message_is_refused(dataset: Dataset) -> None:
    with pytest.raises(CommitError, match="message_present"):
        committed(dataset, (keys(1), rows(), [Reject(key(0), "odd", "")]))
    assert files(Path(dataset.root)) == {}


def test_a_message_that_is_not_unicode_is_written_as_it_can_be(dataset: Dataset) -> None:
    """A file's name in Latin-1, as Python gives it."""
    refused = Reject(key(0), "odd", b"caf\xe9.wav".decode(errors="surrogateescape"))
    manifest = committed(dataset, (keys(1), rows(), [refused]))
    assert manifest.rejects is not None
    assert dataset.open(manifest.rejects.path).read()["message"].to_pylist() == [r"caf\udce9.wav"]


TARGET = put_target({"t2c": None})["t2c"]
NULLS: list[tuple[str, str, Any]] = [
    ("transcripts", "text", None),
    ("transcripts", "language", None),
    ("transcripts", "chars_per_s", None),
    ("transcripts", "flags", None),
    ("transcripts", "flags", ["loud", None]),
    ("transcripts", "segments", None),
    ("transcripts", "segments", [None]),
    ("alignments", "items", [sample("alignments")["items"][0] | {"symbol": None}]),
    ("utterances", "audio", None),
    ("units", "units", None),
    ("units", "units", [[1, 2, 1], None]),
    ("units", "units", [[1, None, 1]]),
    ("units", "durations", [1, None, 2]),
    ("echo_targets", "t2c", TARGET | {"units": None}),
    ("echo_targets", "t2c", TARGET | {"units": [[[1, 2, 1]], None]}),
    ("echo_targets", "t2c", TARGET | {"units": [[[1, 2, 1]], [None]]}),
    ("echo_targets", "t2c", TARGET | {"units": [[[1, None, 1]], [[7]]]}),
    ("echo_targets", "recorded", TARGET | {"durations": [[1, 2, 1], None]}),
    ("echo_targets", "t2c", TARGET | {"stop_reason": ["end", None]}),
    ("echo_targets", "voice", TARGET | {"codebook_id": None}),
    ("echo_targets", "user_audio_ids", [None]),
]


@pytest.mark.parametrize(("table", "name", "value"), NULLS, ids=str)
def test_a_null_where_there_can_be_none_is_refused_not_made_empty(
    dataset: Dataset, table: str, name: str, value: Any
) -> None:
    out = arrow(table, [sample(table, 0), sample(table, 1) | {name: value}])
    with (
        ShardWriter(dataset, TABLES[table], about(table), SHARD) as writer,
        pytest.raises(CommitError, match=f"{name}.*must not be null"),
    ):
        writer.write(keys(2), 0, out, [])
        writer.commit()
    assert files(Path(dataset.root)) == {}


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {"rejects"}))
def test_every_table_comes_back_as_it_went_in(dataset: Dataset, table: str) -> None:
    info = about(table)
    with ShardWriter(dataset, TABLES[info.table], info, SHARD) as writer:
        writer.write(keys(5), 0, arrow(table, samples(table, 5)), [])
        writer.commit()
    make_current(dataset, info)
    assert dataset.read(table).to_pylist() == arrow(table, samples(table, 5)).to_pylist()
    found = [finding.rule for finding in check_dataset(dataset.root)]
    assert found == (["shard_id"] if table == "entries" else []), "this id is no digest of its entries"


def test_columns_of_another_schema_are_refused(dataset: Dataset) -> None:
    with pytest.raises((CommitError, ValueError, KeyError)):
        committed(dataset, (keys(2), rows(0, 1).drop_columns(["flags"]), []))
    with pytest.raises((CommitError, ValueError)):
        committed(dataset, (keys(2), rows(0, 1, table="rejects"), []))
    assert files(Path(dataset.root)) == {}


def test_an_exception_anywhere_leaves_nothing(dataset: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(dataset, TABLES[RECIPE.table], RECIPE, SHARD) as writer:
        writer.write(keys(2_000), 0, arrow("transcripts", samples("transcripts", 1_999)), [reject(1_999)])
        assert len(temporary(Path(dataset.root))) == 2
        raise KeyboardInterrupt
    assert files(Path(dataset.root)) == {}


def test_the_manifest_comes_last(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its first byte is written, the files that it vouches for are in place under their names."""
    seen: list[list[str]] = []
    original = write_whole

    def watched(where: Dataset, path: str, data: bytes) -> None:
        seen.append(list(files(Path(where.root))))
        original(where, path, data)

    monkeypatch.setattr("echo_targets.pipeline.commit.write_whole", watched)
    committed(dataset, (keys(2), rows(0), [reject(1)]))
    part = f"{FINGERPRINT}/{SHARD}"
    assert seen == [[f"rejects/hear/{part}.parquet", f"transcripts/{part}.parquet"]]
    assert list(files(Path(dataset.root))) == [
        f"rejects/hear/{part}.parquet",
        f"transcripts/{part}.json",
        f"transcripts/{part}.parquet",
    ]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_can_not_grow_leaves_nothing(tmp_path: Path, share: float) -> None:
    windows = [(keys(1200), arrow("transcripts", samples("transcripts", 1199)), [reject(1199)])]
    size = committed(Dataset(str(tmp_path / "whole")), *windows).output.size
    dataset = Dataset(str(tmp_path / "short"))
    with largest_file(int(size * share)), pytest.raises(OSError):
        committed(dataset, *windows)
    assert files(Path(dataset.root)) == {}


class SmallDisk(LocalFileSystem):  # type: ignore[misc]
    """A disk that is full after so many bytes."""

    cachable = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file = super()._open(path, mode, **options)
        if "w" in mode:
            write = file.write

            def limited(data: bytes) -> int:
                self.room -= len(data)
                if self.room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(write(data))

            file.write = limited
        return file


def on_small_disk(root: Path, room: int) -> Dataset:
    dataset = Dataset(str(root))
    dataset.filesystem = PyFileSystem(FSSpecHandler(SmallDisk(room)))
    return dataset


def test_a_full_disk_leaves_nothing_at_whatever_byte(tmp_path: Path) -> None:
    """Through the shard, its rejects and the manifest itself."""
    windows = [(keys(4), rows(0, 1, 2), [reject(3)])]
    manifest = committed(Dataset(str(tmp_path / "whole")), *windows)
    assert manifest.rejects is not None
    needed = sum(map(len, files(tmp_path / "whole").values()))
    unfinished = manifest.output.size + manifest.rejects.size
    for room in [-1, *range(0, needed, 97), *range(unfinished, needed, 29), needed - 1]:
        root = tmp_path / str(room)
        dataset = on_small_disk(root, room)
        with pytest.raises(OSError, match="No space left"):
            committed(dataset, *windows)
        assert temporary(root) == []
        assert dataset.manifest("transcripts", FINGERPRINT, SHARD) is None
        assert committed(Dataset(str(root)), *windows) == manifest, "there is room again"
    dataset = on_small_disk(tmp_path / "enough", needed)
    assert committed(dataset, *windows) == manifest
    assert files(tmp_path / "enough") == files(tmp_path / "whole")


def test_the_index_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    make_current(Dataset(str(tmp_path)), RECIPE)
    before = files(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        set_current(on_small_disk(tmp_path, 10), {"transcripts": Version("f" * 16, SNAPSHOT.id)})
    assert files(tmp_path) == before


def test_a_newly_current_table_is_named_last_and_once(dataset: Dataset) -> None:
    versions = [Version(digit * 16, SNAPSHOT.id) for digit in "123"]
    for table, version in zip(("units", "transcripts", "units"), versions, strict=True):
        set_current(dataset, {table: version})
    assert list(dataset.tables().items()) == [("transcripts", versions[1]), ("units", versions[2])]


def test_the_index_says_when_a_version_was_replaced_until_it_is_current_again(dataset: Dataset) -> None:
    first, second = (Version(digit * 16, SNAPSHOT.id) for digit in "12")
    set_current(dataset, {"units": first})
    before = files(Path(dataset.root))
    set_current(dataset, {"units": first})
    assert files(Path(dataset.root)) == before
    index = dataset.index()
    assert index is not None and index.replaced == {}
    set_current(dataset, {"units": second})
    index = dataset.index()
    assert index is not None and list(index.replaced["units"]) == [first]
    since = datetime.now(UTC) - datetime.fromisoformat(index.replaced["units"][first])
    assert timedelta(seconds=-2) < since < timedelta(minutes=5)
    set_current(dataset, {"units": first})
    index = dataset.index()
    assert index is not None and list(index.replaced["units"]) == [second]


def test_opening_a_stage_sweeps_what_killed_workers_left_there_and_nothing_else(dataset: Dataset) -> None:
    manifest = committed(dataset, (keys(2), rows(0), [reject(1)]))
    root = Path(dataset.root)
    whole = files(root)
    other = root / "transcripts" / ("f" * 16)
    other.mkdir()
    left = [
        root / f"{manifest.output.path}.tmp-1",
        root / "rejects" / "hear" / FINGERPRINT / f"{SHARD}.parquet.tmp-2",
        root / "index.json.tmp-4",
        other / f"{SHARD}.parquet.tmp-3",
    ]
    for path in left:
        path.write_bytes(b"PAR1")
    open_recipe(dataset, RECIPE)
    assert [path.exists() for path in left] == [False, False, False, True]
    assert files(root).items() >= whole.items()


def test_a_shard_written_again_replaces_what_an_unfinished_commit_left(dataset: Dataset) -> None:
    manifest = committed(dataset, (keys(2), rows(0), [reject(1)]))
    whole = files(Path(dataset.root))
    (Path(dataset.root) / "transcripts" / FINGERPRINT / f"{SHARD}.json").unlink()
    (Path(dataset.root) / manifest.output.path).write_bytes(b"half")
    assert committed(dataset, (keys(2), rows(0), [reject(1)])) == manifest
    assert files(Path(dataset.root)) == whole


def test_schemas_of_the_writer_and_the_check_are_one(dataset: Dataset) -> None:
    manifest = committed(dataset, (keys(2), rows(0), [reject(1)]))
    assert manifest.rejects is not None
    assert pq.read_schema(Path(dataset.root) / manifest.rejects.path).equals(REJECTS.schema)
    assert json.loads(manifest.to_json())["rejects"]["path"] == manifest.rejects.path

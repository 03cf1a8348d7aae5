"""Streams of targets: every row once, whatever the readers; the rest exactly, wherever they stopped."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.layout import LayoutError
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.dataset import EchoTargetDataset, TargetLoader
from echo_targets.transforms.loading.stream import Row, TargetStream, lengths_of, prefetch, values_of
from tests.schemas.samples import Root, samples

UNITS = pa.schema([(KEY, pa.string()), ("units", pa.list_(pa.int16())), ("score", pa.float32())])


def written(folder: Path, sizes: list[int], row_group_rows: int = 3) -> Root:
    """A table `units` of shards of these sizes; row n has n % 7 + 1 units and the score n."""
    root = Root(folder)
    root.put("units", *([] for _ in sizes))
    rows = iter(range(sum(sizes)))
    for shard, size in enumerate(sizes):
        own = [{KEY: f"row-{n}", "units": list(range(n % 7 + 1)), "score": float(n)} for n in islice(rows, size)]
        sink = io.BytesIO()
        table = pa.Table.from_pylist(own, UNITS)
        pq.write_table(table, sink, row_group_size=row_group_rows, compression="none", write_page_checksum=True)
        root.put_file("units", shard, sink.getvalue(), size, len(sizes))
    return root


def keys(batches: list[list[Row]]) -> list[list[str]]:
    return [[row[KEY] for row in batch] for batch in batches]


def numbered(count: int) -> list[str]:
    return sorted(f"row-{n}" for n in range(count))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Forty rows in three shards."""
    return written(tmp_path_factory.mktemp("root"), [17, 3, 20])


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    row_group_rows=st.integers(1, 6),
    readers=st.integers(1, 9),
    window_rows=st.integers(1, 30),
    batch_tokens=st.integers(1, 40),
    seed=st.none() | st.integers(0, 5),
    epoch=st.integers(0, 3),
    least=st.none() | st.integers(0, 20),
)
def test_every_row_once_and_the_rest_from_any_place(
    sizes: list[int],
    row_group_rows: int,
    readers: int,
    window_rows: int,
    batch_tokens: int,
    seed: int | None,
    epoch: int,
    least: int | None,
) -> None:
    with TemporaryDirectory() as folder:
        reader = TargetStream(
            str(written(Path(folder), sizes, row_group_rows).folder),
            "units",
            filters=[] if least is None else [("score", ">=", least)],
            window_rows=window_rows,
            batch_tokens=batch_tokens,
            seed=seed,
        )
        found: list[str] = []
        shares = []
        for number in range(readers):
            given = list(reader.batches(epoch, number, readers))
            shares.append(sum(len(batch) for _, batch in given))
            for after, (place, batch) in enumerate(given, 1):
                longest = max(len(row["units"]) for row in batch)
                assert len(batch) == 1 or longest * len(batch) <= batch_tokens
                assert all(len(row["units"]) == int(row["score"]) % 7 + 1 for row in batch)
                found += [row[KEY] for row in batch]
                rest = [rows for _, rows in reader.batches(epoch, number, readers, place)]
                assert keys(rest) == keys([rows for _, rows in given[after:]])
        assert sorted(found) == sorted(f"row-{n}" for n in range(least or 0, sum(sizes)))
        assert least is not None or max(shares) - min(shares) <= 1


def test_order_follows_from_seed_and_epoch(root: Root) -> None:
    def read(seed: int | None, epoch: int) -> list[list[str]]:
        reader = TargetStream(str(root.folder), "units", seed=seed, batch_tokens=20)
        return keys([batch for _, batch in reader.batches(epoch)])

    orders = [read(0, 0), read(0, 1), read(1, 0), read(None, 0)]
    assert read(0, 0) == orders[0] and read(None, 5) == orders[3]
    assert all(sorted(chain(*order)) == numbered(40) for order in orders)
    assert len({str(order) for order in orders}) == 4


def test_a_long_row_is_a_batch_of_its_own(root: Root) -> None:
    batches = [batch for _, batch in TargetStream(str(root.folder), "units", batch_tokens=6).batches()]
    assert all(len(batch) == 1 for batch in batches if max(len(row["units"]) for row in batch) > 3)
    assert max(map(len, batches)) == 6


def test_row_groups_that_the_statistics_rule_out_are_not_read(tmp_path: Path) -> None:
    root = written(tmp_path, [12], row_group_rows=4)
    file = root.file("units")
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(1)
    data = bytearray(file.read_bytes())
    start, size = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size
    data[start : start + size] = bytes(size)
    file.write_bytes(data)

    def read(*filters: tuple[str, str, Any]) -> list[str]:
        reader = TargetStream(str(tmp_path), "units", filters=filters, columns=[KEY])
        return sorted(row[KEY] for _, batch in reader.batches() for row in batch)

    assert read(("score", ">=", 9)) == ["row-10", "row-11", "row-9"]
    assert read(("score", "<=", 1)) == ["row-0", "row-1"]
    with pytest.raises(OSError):
        read(("score", ">=", 7))


def test_filters_on_every_kind_of_column(tmp_path: Path) -> None:
    root = Root(tmp_path)
    rows = samples("training/echo", 6)
    for number, row in enumerate(rows):
        row |= {"unit_error_rate": None if number == 5 else number / 10, "split": ("train", "test")[number % 2]}
    root.put("training/echo", rows)

    def read(*filters: tuple[str, str, Any]) -> list[int]:
        batches = EchoTargetDataset(str(tmp_path), columns=[KEY], filters=filters)
        assert all(list(row) == [KEY] for batch in batches for row in batch)
        return sorted(int(row[KEY].removeprefix("utt-")) for batch in batches for row in batch)

    assert read(("unit_error_rate", "<=", 0.3)) == [0, 1, 2, 3]
    assert read(("unit_error_rate", "<", 0.3), ("split", "==", "test")) == [1]
    assert read(("split", "in", ["test", "dev"])) == [1, 3, 5]
    assert read(("unit_error_rate", "!=", 0.1)) == read(("unit_error_rate", "not in", {0.1})) == [0, 2, 3, 4]
    assert read(("unit_error_rate", "in", np.array([0.1, 0.4]))) == [1, 4]


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_every_table_are_those_written(name: str, tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put(name, samples(name, 3), samples(name, 3, 3))
    read = [row for batch in EchoTargetDataset(str(tmp_path), name, seed=None, batch_tokens=10**9) for row in batch]
    assert _plain(sorted(read, key=lambda row: row[KEY])) == root.dataset.read(name).to_pylist()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize(
    ("kind", "rows", "lengths"),
    [
        (pa.list_(pa.int16()), [[1, 2], [], None, [3]], [2, 0, 0, 1]),
        (pa.list_(pa.list_(pa.int16())), [[[1], [2, 3]], [], None, [[], [4]]], [3, 0, 0, 1]),
        (pa.list_(pa.int16()), [[1, None], []], [2, 0]),
        (pa.list_(pa.bool_()), [[True], [False]], [1, 1]),
        (pa.int32(), [5, 6], [5, 6]),
        (pa.int32(), [5, None], [5, 0]),
        (pa.float32(), [0.5, None], None),
        (pa.string(), ["a", None], None),
        (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), [{"bytes": b"a", "path": None}, None], None),
        (pa.list_(pa.struct([("a", pa.int8())])), [[{"a": 1}, {"a": None}], []], None),
        (pa.dictionary(pa.int32(), pa.string()), ["x", None, "x"], None),
    ],
    ids=str,
)
def test_values_and_lengths(kind: pa.DataType, rows: list[Any], lengths: list[int] | None) -> None:
    whole = pa.array([*rows, *rows], kind)
    for array in (whole, whole.slice(len(rows)), whole.slice(1, len(rows) - 1)):
        assert _plain(values_of(array)) == array.to_pylist()
    if lengths:
        assert lengths_of(whole.slice(1)).tolist() == [*lengths, *lengths][1:]


def test_a_plain_loop_resumes(root: Root) -> None:
    def made() -> EchoTargetDataset:
        return EchoTargetDataset(str(root.folder), "units", batch_tokens=15, window_rows=8, rank=1, world_size=2)

    dataset = made()
    first = keys(list(dataset))
    assert dataset.epoch == 1
    second = keys(list(dataset))
    assert first != second and sorted(chain(*second)) != sorted(chain(*first))
    for count in range(len(second) + 1):
        dataset = made()
        dataset.set_epoch(1)
        given = keys(list(islice(dataset, count)))
        state = json.loads(json.dumps(dataset.state_dict()))
        resumed = made()
        resumed.load_state_dict(state)
        resumed.set_epoch(1)  # as a loop over epochs does
        assert resumed.state_dict() == state
        assert given + keys(list(resumed)) == second
        assert resumed.epoch == 2


def test_to_iterate_anew_starts_the_epoch_anew(root: Root) -> None:
    dataset = EchoTargetDataset(str(root.folder), "units", batch_tokens=15)
    assert keys([next(iter(dataset))]) == keys([next(iter(dataset))])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes(workers: int, root: Root) -> None:
    def made() -> TargetLoader:
        dataset = EchoTargetDataset(str(root.folder), "units", batch_tokens=15, window_rows=8)
        return TargetLoader(dataset, collate=_keys, num_workers=workers)

    whole = list(made())
    assert sorted(chain(*whole)) == numbered(40)
    for count in (0, 3, len(whole) - 1, len(whole)):
        loader = made()
        given = list(islice(loader, count))
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = made()
        resumed.load_state_dict(state)
        assert given + list(resumed) == whole
        assert resumed.dataset.epoch == 1


def _keys(rows: list[Row]) -> list[str]:
    return [row[KEY] for row in rows]


def test_workers_of_a_plain_data_loader_share_the_rows(root: Root) -> None:
    found: list[str] = []
    for rank in range(2):
        dataset = EchoTargetDataset(str(root.folder), "units", batch_tokens=15, rank=rank, world_size=2)
        found += chain(*DataLoader(dataset, batch_size=None, collate_fn=_keys, num_workers=2))
    assert sorted(found) == numbered(40)


def test_ranks_are_those_of_torch_distributed(root: Root) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=2, world_size=5)
    try:
        dataset = EchoTargetDataset(str(root.folder), "units")
        assert (dataset.rank, dataset.world_size) == (2, 5)
        assert sum(map(len, dataset)) == 8
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seed": 1}, "its seed is 0, but here it is 1"),
        (
            {"batch_tokens": 7},
            "its batch_tokens is 15, but here it is 7. Resume with batch_tokens=15, or load no state",
        ),
        ({"filters": [("score", ">", 3)]}, "its filters is"),
        ({"world_size": 2}, r"its world_size is 1, but here it is 2. Resume with world_size=1, .* set_epoch\(0\)"),
        ({"world_size": 2, "rank": 1}, "its rank is 0, but here it is 1. Load the state that this rank saved"),
    ],
)
def test_the_state_of_another_stream_is_refused(changes: dict[str, Any], complaint: str, root: Root) -> None:
    def made(**changes: Any) -> EchoTargetDataset:
        settings: dict[str, Any] = {"batch_tokens": 15, "rank": 0, "world_size": 1} | changes
        return EchoTargetDataset(str(root.folder), "units", **settings)

    other = made(**changes)
    with pytest.raises(UserError, match=complaint):
        other.load_state_dict(made().state_dict())
    with pytest.raises(UserError, match=complaint):
        TargetLoader(other).load_state_dict(TargetLoader(made()).state_dict())


def test_the_state_of_other_workers_is_refused(root: Root) -> None:
    dataset = EchoTargetDataset(str(root.folder), "units")
    with pytest.raises(
        UserError, match=r"from num_workers=1, but this loader has num_workers=3: resume with num_workers=1, or load no"
    ):
        TargetLoader(dataset, num_workers=3).load_state_dict(TargetLoader(dataset).state_dict())
    dataset.load_state_dict(dataset.state_dict() | {"worker": [1, 2]})
    with pytest.raises(UserError, match=r"worker 1 of 2, but this is worker 0 of 1"):
        next(iter(dataset))


def test_a_root_over_a_network(root: Root) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{root.folder}/", "/targets/", recursive=True)
    try:
        remote = EchoTargetDataset("memory://targets", "units", batch_tokens=15)
        assert keys(list(remote)) == keys(list(EchoTargetDataset(str(root.folder), "units", batch_tokens=15)))
        assert len(list(islice(remote, 2))) == 2
    finally:
        memory.rm("/targets", recursive=True)


def test_reading_ahead_keeps_order_and_raises() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("gone")

    given = []
    with pytest.raises(OSError, match="gone"):
        for item in prefetch(items()):
            given.append(item)
    assert given == [0, 1, 2, 3, 4]


def test_what_is_not_there(root: Root, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no table 'unit'\. Tables are units"):
        EchoTargetDataset(str(root.folder), "unit")
    with pytest.raises(UserError, match="there is no rank 2 in a world of 2"):
        EchoTargetDataset(str(root.folder), "units", rank=2, world_size=2)
    short = written(tmp_path, [4, 4])
    short.edit_manifest("units", 1, 2, output=short.read_manifest("units", 1, 2)["output"] | {"rows": 5})
    with pytest.raises(LayoutError, match=rf"{short.ids[1]}\.parquet: has 4 rows, but its manifest says 5"):
        list(EchoTargetDataset(str(tmp_path), "units"))


class DataLoaderDispatcher:
    """Like accelerate's, whose first process reads for all."""

    def __init__(self, dataset: EchoTargetDataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[list[Row]]:
        yield from self.dataset


@pytest.mark.parametrize("splitter", ["IterableDatasetShard", "DataLoaderDispatcher"])
def test_a_dataset_is_not_split_twice(splitter: str, root: Root) -> None:
    """transformers and accelerate split every IterableDataset over processes, and offer no way to say that it is split
    already. A loader that is not a DataLoader stays as it is; a dataset of one rank may be split."""
    from transformers.trainer_pt_utils import IterableDatasetShard

    def made(dataset: EchoTargetDataset, process: int = 0) -> Any:
        if splitter == "DataLoaderDispatcher":
            return DataLoaderDispatcher(dataset)
        return IterableDatasetShard(dataset, batch_size=1, num_processes=2, process_index=process)

    def share(rank: int, world_size: int) -> EchoTargetDataset:
        return EchoTargetDataset(str(root.folder), "units", batch_tokens=15, rank=rank, world_size=world_size)

    with pytest.raises(UserError, match=f"{splitter} would split this dataset again.*rank 1 of 2.*TargetLoader"):
        next(iter(made(share(1, 2), 1)))
    loaders = [TargetLoader(share(rank, 2)) for rank in range(2)]
    assert sorted(key for loader in loaders for key in chain(*keys(list(loader)))) == numbered(40)
    found = {key for process in range(2) for key in chain(*keys(list(made(share(0, 1), process))))}
    assert sorted(found) == numbered(40)


def test_a_dataset_that_was_made_before_its_ranks(root: Root) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    early, chosen = (
        EchoTargetDataset(str(root.folder), "units"),
        EchoTargetDataset(str(root.folder), "units", rank=0, world_size=1),
    )
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=2, world_size=5)
    try:
        with pytest.raises(UserError, match=r"made for 1 rank\(s\), but torch.distributed has 5 now.*init_process_"):
            next(iter(early))
        assert sum(map(len, chosen)) == 40
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_without_rows_says_why(workers: int, root: Root, tmp_path: Path) -> None:
    def read(folder: Path, table: str, **settings: Any) -> None:
        dataset = EchoTargetDataset(str(folder), table, **settings)
        loader: Any = TargetLoader(dataset, num_workers=workers)
        with pytest.raises(UserError) as plain:
            next(iter(DataLoader(dataset, batch_size=None, num_workers=workers)))
        with pytest.raises(UserError) as raised:
            next(iter(loader))
        assert str(raised.value) in str(plain.value)
        raise raised.value

    filters = [("score", ">=", 30), ("score", "<", 0)]
    with pytest.raises(
        UserError, match=r"no row of units passes.*Of 40 rows, \('score', '>=', 30\) drops 30, .* drops 40"
    ):
        read(root.folder, "units", filters=filters)
    Root(tmp_path).put("units", [])
    with pytest.raises(UserError, match=r"units has no rows, .*echo-targets status"):
        read(tmp_path, "units")


def test_a_rank_without_rows_is_warned(root: Root) -> None:
    settings: dict[str, Any] = {"filters": [("score", "==", 3)], "world_size": 2, "seed": None}
    first, second = (EchoTargetDataset(str(root.folder), "units", rank=rank, **settings) for rank in range(2))
    assert keys(list(first)) == [["row-3"]]
    for loader in (second, TargetLoader(second)):
        with pytest.warns(UserWarning, match="rank 1 of 2 has no rows in epoch"):
            assert not list(loader)
    list(first)
    resumed = EchoTargetDataset(str(root.folder), "units", rank=0, **settings)
    resumed.load_state_dict(first.state_dict() | {"epoch": 0, "place": [20, 0]})
    assert not list(resumed)  # the end of an epoch that had rows is no reason to warn


def test_tokens_of_audio_are_20_ms(tmp_path: Path) -> None:
    Root(tmp_path).put("training/s2t", samples("training/s2t", 40))  # 1.0 to 1.3 s each
    batches = list(EchoTargetDataset(str(tmp_path), "training/s2t", batch_tokens=500))
    assert all(sum(row["num_samples"] for row in rows) <= 10 * 16_000 < 1.4 * 16_000 * 10 for rows in batches)
    assert 4 <= len(batches) <= 7
    assert len(list(EchoTargetDataset(str(tmp_path), "training/s2t"))) == 1


def test_a_budget_below_nearly_every_row_is_warned(tmp_path: Path) -> None:
    Root(tmp_path).put("training/s2t", samples("training/s2t", 40))
    with pytest.warns(UserWarning, match=r"batch_tokens=20 makes batches of one row: 40 of 40 rows .*median 56 tokens"):
        assert all(len(rows) == 1 for rows in EchoTargetDataset(str(tmp_path), "training/s2t", batch_tokens=20))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"batch_tokens": 0}, "batch_tokens is 0; pass at least 1"),
        ({"window_rows": -1}, "window_rows is -1; pass at least 1"),
        ({"lengths": ["utterance_id"]}, "lengths: utterance_id of units is string; name a column of lists or integers"),
    ],
)
def test_parameters_that_mean_nothing(settings: dict[str, Any], complaint: str, root: Root) -> None:
    with pytest.raises(UserError, match=complaint):
        EchoTargetDataset(str(root.folder), "units", **settings)

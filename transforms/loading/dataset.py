"""Targets for torch: a dataset that streams batches, and a loader that resumes with any number of workers."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.filters import Filter
from echo_targets.transforms.loading.stream import Place, Row, TargetStream

State = dict[str, Any]
SPLITTERS = ("IterableDatasetShard", "DataLoaderDispatcher")
"""Classes of transformers and accelerate that split a dataset over processes, whether or not it is split already."""


class EchoTargetDataset(IterableDataset[list[Row]]):
    """Batches of a table's rows, each row once per epoch over all ranks and workers; none is padded or dropped.

    Ranks have equal numbers of rows, to within one, but may have different numbers of batches. Iterating starts an
    epoch, or continues from a loaded state; the end of an epoch increments `epoch`. An epoch in which no row passes the
    filters raises UserError.

    Args:
        root, table, version, columns, filters, lengths, batch_tokens, window_rows, seed: as for `TargetStream`.
        rank, world_size: None uses those of torch.distributed if it is initialized by now, else 0 and 1.

    Attributes:
        epoch: the current or next epoch; part of the seed.

    Raises:
        LayoutError: there is no such table.
        UserError: it has no such column, there is no such rank, or a filter or a parameter is invalid.
    """

    def __init__(
        self,
        root: str,
        table: str = "training/echo",
        *,
        version: str | None = None,
        columns: Sequence[str] | None = None,
        filters: Sequence[Filter] | None = None,
        lengths: Sequence[str] | None = None,
        batch_tokens: int = 20_000,
        window_rows: int = 1000,
        seed: int | None = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.reader = TargetStream(
            root,
            table,
            version=version,
            columns=columns,
            filters=filters,
            lengths=lengths,
            batch_tokens=batch_tokens,
            window_rows=window_rows,
            seed=seed,
        )
        self._found = rank is None and world_size is None
        found = _rank_and_world_size()
        self.rank = found[0] if rank is None else rank
        self.world_size = found[1] if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"there is no rank {self.rank} in a world of {self.world_size}")
        self.epoch = 0
        self._place = Place()
        self._loaded: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, and start it from its beginning. No effect if it is the current epoch already."""
        if epoch != self.epoch:
            self.epoch, self._place, self._loaded = epoch, Place(), None

    def __iter__(self) -> Iterator[list[Row]]:
        number, workers = self._worker()
        if self._loaded not in (None, (number, workers)):
            other, others = self._loaded or (0, 1)
            raise UserError(
                f"the state is from worker {other} of {others}, but this is worker {number} of {workers}: resume with "
                f"{others} workers, or start over with set_epoch and no state"
            )
        start = self._place if self._loaded else Place()
        self._loaded = None
        empty = start == Place()
        for place, rows in self.share(number, workers, start):
            self._place, empty = place, False
            yield rows
        if empty:
            self.must_have_rows(quiet=workers > 1)
        self.set_epoch(self.epoch + 1)

    def share(self, worker: int, workers: int, start: Place) -> Iterator[tuple[Place, list[Row]]]:
        """Yield a worker's batches for this rank from a place on, each with the place after it."""
        self._must_be_split_once()
        reader, readers = self.rank * workers + worker, self.world_size * workers
        return self.reader.batches(self.epoch, reader, readers, start)

    def _must_be_split_once(self) -> None:
        splitter = _splitter()
        if splitter and self.world_size > 1:
            raise UserError(
                f"{splitter} would split this dataset again, and most rows would never be read: rank {self.rank} of "
                f"{self.world_size} already reads its own share. Give the trainer a TargetLoader instead of a "
                "DataLoader: accelerate does not change it; see docs/TRAINING.md."
            )
        now = _rank_and_world_size()[1]
        if self._found and not splitter and now not in (1, self.world_size):
            raise UserError(
                f"the dataset was made for {self.world_size} rank(s), but torch.distributed has {now} now, so ranks "
                "would read the same rows: make the dataset after init_process_group, or pass rank and world_size"
            )

    def must_have_rows(self, quiet: bool = False) -> None:
        """Explain an epoch in which this rank got no rows.

        Args:
            quiet: True only raises, and does not warn.

        Raises:
            UserError: no row of the table passes the filters. If other ranks have rows, a warning says so instead.
        """
        self.reader.must_have_rows()
        if not quiet:
            warnings.warn(
                f"rank {self.rank} of {self.world_size} has no rows in epoch {self.epoch}: use fewer ranks, or relax "
                "the filters",
                stacklevel=2,
            )

    def state_dict(self) -> State:
        """Return this process's position after the last batch that it returned. JSON-serializable."""
        return {**self.identity, "epoch": self.epoch, "worker": [*self._worker()], "place": [*self._place]}

    def load_state_dict(self, state: State) -> None:
        """Make the next iteration continue from a state.

        Raises:
            UserError: the state is from another stream: other shards, parameters or ranks.
        """
        check_state(state, self.identity)
        number, workers = state["worker"]
        self.epoch, self._place, self._loaded = state["epoch"], Place(*state["place"]), (number, workers)

    @property
    def identity(self) -> State:
        """What must be equal between a state and this dataset."""
        return {**self.reader.stream, "rank": self.rank, "world_size": self.world_size}

    def _worker(self) -> tuple[int, int]:
        info = get_worker_info()
        return (info.id, info.num_workers) if info else (0, 1)


class TargetLoader:
    """A DataLoader over an `EchoTargetDataset` that tracks each worker's position: exact resume with any `num_workers`.

    A resumed epoch returns the remaining batches of the interrupted one in the same order. Batches that workers had
    prefetched are loaded again.

    Args:
        dataset: only its `epoch` is changed, not its other state.
        collate: called on each batch of rows, in the worker.
        num_workers: number of processes; 0 loads in this process.
        options: options of `torch.utils.data.DataLoader`, such as `pin_memory`, `prefetch_factor`,
            `multiprocessing_context`.
    """

    def __init__(
        self,
        dataset: EchoTargetDataset,
        collate: Callable[[list[Row]], Any] = list,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        self.dataset, self.collate, self.num_workers, self.options = dataset, collate, num_workers, options
        self._begin()
        self._loaded = False

    def _begin(self) -> None:
        self._places, self._turn = [Place()] * max(1, self.num_workers), 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, and start it from its beginning. No effect if it is the current epoch already."""
        if epoch != self.dataset.epoch:
            self.dataset.set_epoch(epoch)
            self._begin()

    def __iter__(self) -> Iterator[Any]:
        if not self._loaded:
            self._begin()
        self._loaded = False
        shares = _Shares(self.dataset, self.collate, self._places, self._turn)
        loader = DataLoader(shares, batch_size=None, collate_fn=_as_it_is, num_workers=self.num_workers, **self.options)
        empty = all(place == Place() for place in self._places)
        for worker, place, batch in loader:
            empty = False
            self._places[worker] = Place(*place)
            self._turn = (worker + 1) % len(self._places)
            yield batch
        if empty:
            self.dataset.must_have_rows()
        self.set_epoch(self.dataset.epoch + 1)

    def state_dict(self) -> State:
        """Return the workers' positions after the last batch that was returned. JSON-serializable."""
        places = [[*place] for place in self._places]
        return {**self.dataset.identity, "epoch": self.dataset.epoch, "places": places, "turn": self._turn}

    def load_state_dict(self, state: State) -> None:
        """Make the next iteration continue from a state.

        Raises:
            UserError: the state is from another stream: other shards, parameters, ranks or number of workers.
        """
        check_state(state, self.dataset.identity)
        if len(state["places"]) != len(self._places):
            raise UserError(
                f"the state is from num_workers={len(state['places'])}, but this loader has "
                f"num_workers={self.num_workers}: {_remedy('num_workers', len(state['places']), state)}"
            )
        self.dataset.set_epoch(state["epoch"])
        self._places, self._turn = [Place(*place) for place in state["places"]], state["turn"]
        self._loaded = True


class _Shares(IterableDataset[tuple[int, Place, Any]]):
    """Each worker's remaining share. DataLoader asks worker 0 first, so worker 0 takes the share whose turn it is."""

    def __init__(
        self, dataset: EchoTargetDataset, collate: Callable[[list[Row]], Any], places: Sequence[Place], turn: int
    ) -> None:
        self._dataset, self._collate, self._places, self._turn = dataset, collate, list(places), turn

    def __iter__(self) -> Iterator[tuple[int, Place, Any]]:
        info = get_worker_info()
        workers = len(self._places)
        worker = ((info.id if info else 0) + self._turn) % workers
        for place, rows in self._dataset.share(worker, workers, self._places[worker]):
            yield worker, place, self._collate(rows)


def check_state(state: State, expected: State) -> None:
    """Raise UserError if a state is from another stream; the message says what differs and what to do."""
    for name, value in expected.items():
        if (there := state.get(name)) != value:
            raise UserError(
                f"the state is from another stream: its {name} is {there!r}, but here it is {value!r}. "
                f"{_remedy(name, there, state).capitalize()}."
            )


def _remedy(name: str, value: Any, state: State) -> str:
    if name == "rank":
        return "load the state that this rank saved; each rank saves its own"
    return f"resume with {name}={value!r}, or load no state and start an epoch with set_epoch({state.get('epoch')})"


def _splitter() -> str | None:
    """Return the class of `SPLITTERS` that is iterating over the dataset, if any: none of them offers a hook."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        if (owner := frame.f_code.co_qualname.split(".")[0]) in SPLITTERS:
            return owner
        frame = frame.f_back
    return None


def _as_it_is(batch: Any) -> Any:
    return batch


def _rank_and_world_size() -> tuple[int, int]:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1

"""Small real transforms, which misbehave where they are told to, and what runs them.

Workers are processes of their own and import these by name: `tests.pipeline.stand_ins:Double`.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from echo_targets.pipeline.attempt import error_text
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Plan, plan
from echo_targets.pipeline.runners.base import Chain, Done, Events, Failed, Runner, RunShard
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import ALIGNMENTS, ENTRIES, KEY, TRANSCRIPTS, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import FILTERED, Output, Parameters, Reject, Transform, table_of
from tests.schemas.samples import Row, sample

HERE = "tests.pipeline.stand_ins"


class Listen(Transform):
    """Utterances from entries, the key for audio."""

    name: ClassVar[str] = "listen"
    version: ClassVar[int] = 1
    reads = (ENTRIES,)
    writes = UTTERANCES

    def costs(self, rows: pa.Table) -> list[int]:
        return [int(seconds * 16_000) for seconds in rows["seconds"].to_pylist()]

    def __call__(self, batch: pa.Table) -> Output:
        rows = []
        for entry in batch.to_pylist():
            row = sample("utterances") | {name: entry[name] for name in UTTERANCES.columns if name in entry}
            row["audio"] = {"bytes": entry[KEY].encode(), "path": Path(entry["locator"]).name}
            rows.append(row | {"num_samples": int(entry["seconds"] * 16_000)})
        return Output(table_of(rows, UTTERANCES))


class Faults(Parameters):
    """What to say, and what goes wrong. Only what is said is part of the fingerprint.

    Attributes:
        raises: keys that raise a ValueError, alone or in a batch.
        most_rows: batches of more rows run out of memory.
        unreachable, broken_device: keys that raise an OSError, or an error of CUDA.
        sick_from, sick_with: from the first such key on, the machine raises this error for every row, in every process
            that shares `folder`.
        refuses, filters: keys that are rejected, and keys that a threshold holds back.
        drops, repeats, breaks: keys of which there is no row, two rows, a row that breaks a rule.
        kills: how often each key kills its worker.
        waits: keys at which a worker waits until it is stopped.
        folder: where workers leave notes for the test.
    """

    word: str = "yes"
    raises: list[str] = []
    most_rows: int = 1_000_000
    unreachable: list[str] = []
    broken_device: list[str] = []
    sick_from: str = "~"
    sick_with: str = ""
    refuses: list[str] = []
    filters: list[str] = []
    drops: list[str] = []
    repeats: list[str] = []
    breaks: list[str] = []
    kills: dict[str, int] = {}
    waits: list[str] = []
    folder: str = ""


class Double(Transform):
    """Transcripts that say the reference text and a word, twice."""

    name: ClassVar[str] = "double"
    version: ClassVar[int] = 1
    reads = (UTTERANCES,)
    writes = TRANSCRIPTS
    wants_audio = True
    Parameters = Faults
    parameters: Faults

    def __init__(self, parameters: Any, device: str = "cpu") -> None:
        super().__init__(parameters, device)
        self.batches: list[list[str]] = []

    def fingerprint_parameters(self) -> dict[str, Any]:
        return {"word": self.parameters.word}

    def __call__(self, batch: pa.Table) -> Output:
        faults = self.parameters
        keys = batch[KEY].to_pylist()
        self.batches.append(keys)
        for key in keys:
            self._kill_or_wait(key)
            if key in faults.raises:
                raise ValueError(f"cannot double {key}")
            if key in faults.unreachable:
                raise ConnectionResetError(f"lost the connection at {key}")
            if self._is_sick(key):
                name, _, message = faults.sick_with.partition(": ")
                raise getattr(builtins, name)(message)
            if key in faults.broken_device:
                raise RuntimeError("CUDA error: device-side assert triggered")
        if len(keys) > faults.most_rows:
            raise MemoryError(f"{len(keys)} rows")
        rows, rejects = list[Row](), list[Reject]()
        for row in batch.to_pylist():
            key = row[KEY]
            if key in faults.refuses:
                rejects.append(Reject(key, "too_dull", f"{row['audio']['path']}: nothing to double"))
            elif key in faults.filters:
                rejects.append(Reject(key, f"{FILTERED}_dull", f"{row['audio']['path']}: dull"))
            elif key not in faults.drops:
                rows += [self._double(row)] * (2 if key in faults.repeats else 1)
        return Output(table_of(rows, TRANSCRIPTS), rejects)

    def _double(self, row: Row) -> Row:
        assert row["audio"]["bytes"] == row[KEY].encode()
        text = f"{row['reference_text']} {self.parameters.word} " * 2
        changed = {KEY: row[KEY], "text": text, "language": row["language"], "flags": [row["corpus"]], "segments": []}
        broken = {"chars_per_s": -1.0} if row[KEY] in self.parameters.breaks else {}
        return sample("transcripts") | changed | broken

    def _is_sick(self, key: str) -> bool:
        note = Path(self.parameters.folder) / "sick"
        if key >= self.parameters.sick_from and self.parameters.folder:
            note.touch()
        return key >= self.parameters.sick_from or (bool(self.parameters.folder) and note.exists())

    def _kill_or_wait(self, key: str) -> None:
        notes = Path(self.parameters.folder)
        if len(list(notes.glob(f"{key}.*"))) < self.parameters.kills.get(key, 0):
            (notes / f"{key}.{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if key in self.parameters.waits:
            (notes / f"waits.{os.getpid()}").touch()
            while True:
                time.sleep(0.01)


class Greedy(Double):
    """As `Double`, with a great deal of memory for each row."""

    refused = 0

    def __call__(self, batch: pa.Table) -> Output:
        try:
            taken = np.empty((len(batch), 150_000_000), np.uint8)
        except MemoryError:
            self.refused += 1
            raise
        output = super().__call__(batch)
        assert len(taken) == len(output.rows)
        return output


class Follow(Transform):
    """Alignments that tell whether there was a transcript."""

    name: ClassVar[str] = "follow"
    version: ClassVar[int] = 1
    reads = (UTTERANCES, TRANSCRIPTS)
    writes = ALIGNMENTS

    def __call__(self, batch: pa.Table) -> Output:
        rows = []
        for row in batch.to_pylist():
            assert row["audio"] is None if "audio" in row else True
            heard = row["transcripts"]
            assert heard is None or heard[KEY] == row[KEY]
            source = {"text_source": "reference" if heard is None else "transcript"}
            failed = {"items": [], "coverage": 0.0, "status": "failed", "reason": "stands in for an aligner"}
            rows.append(sample("alignments") | {KEY: row[KEY], **failed, **source})
        return Output(table_of(rows, ALIGNMENTS))


class Inline(Runner):
    """Runs shards here, one after the other, a stage at a time."""

    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        waiting = [list(chain) for chain in chains if chain]
        while waiting:
            chain = max(waiting, key=len)
            task = chain.pop(0)
            try:
                yield Done(task.recipe.stage, task.shard, run_shard(task, lambda samples: None))
            except Exception as error:
                chain.clear()
                yield Failed(task.recipe.stage, task.shard, error_text(error), True)
            waiting = [chain for chain in waiting if chain]


def stage(kind: type[Transform], batch_seconds: float = 8.0, **parameters: Any) -> StageSpec:
    values = kind.Parameters(**parameters).model_dump(mode="json")
    return StageSpec(f"{HERE}:{kind.__name__}", values, batch_seconds=batch_seconds)


def job(root: Path, *stages: StageSpec, rows: int = 12, shards: int = 3, allowed: float = 0.05) -> Job:
    """A job over `rows` entries of one second to three, in `shards` shards."""
    return Job(str(root), in_shards(entries_of(rows), shards), [stage(Listen), *stages], allowed)


def entries_of(rows: int) -> list[Row]:
    return [sample("entries", number) | {"seconds": 1.0 + number % 3} for number in range(rows)]


@cache
def _numbers() -> dict[str, int]:
    sizes = [(12, 3), (1_000, 1), (40, 8)]
    return {shard: n for size in sizes for n, shard in enumerate(in_shards(entries_of(size[0]), size[1]).snapshot.ids)}


def number_of(shard: str) -> int:
    """The position of a shard of `job` or `long_job`."""
    return _numbers()[shard]


def in_shards(entries: list[Row], shards: int) -> Plan:
    """A plan of so many shards."""
    hours = sum(entry["seconds"] for entry in entries) / 3600 or 1.0
    for percent in range(40, 300):
        planned = plan([dict(entry) for entry in entries], hours / shards * percent / 100)
        if planned.num_shards == shards:
            return planned
    raise AssertionError(f"{len(entries)} entries in {shards} shards?")


def ids(root: Path | str, table: str = "entries") -> list[str]:
    """The ids of a table's shards, in order."""
    dataset = Dataset(str(root))
    return dataset.snapshot(dataset.current(table).snapshot).ids


def files(root: Path) -> dict[str, bytes]:
    """Every file below a root, by its path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def temporary(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if ".tmp-" in path.name]


def texts(root: Path) -> dict[str, str]:
    table = Dataset(str(root)).read("transcripts", [KEY, "text"])
    return dict(zip(table[KEY].to_pylist(), table["text"].to_pylist(), strict=True))


def long_job(root: Path, **faults: Any) -> Job:
    """A job of one shard, of two windows: when row 999 has its turn, the first 800 are in a temporary file."""
    return job(root, stage(Double, 600.0, **faults), rows=1_000, shards=1)


def drive(root: str, faults: str) -> None:
    """A driver in a process of its own, for tests that stop it."""
    with LocalRunner(workers=1) as runner:
        for _ in long_job(Path(root), **Faults.model_validate_json(faults).model_dump(mode="json")).run(runner):
            pass


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2])

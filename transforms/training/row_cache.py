"""Outputs of a frozen model for each row, computed once for all epochs and stored in a memory-mapped file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE = 32
SAY_EVERY = 1000


class RowCache:
    """(length, width) float16 per row. An interrupted filling resumes; a file for other rows is replaced.

    Args:
        path: the file; a JSON file next to it describes the contents.
        lengths: length of each row.
        width: width of all rows.
        key: identifies the rows and the model that computes them.
    """

    def __init__(self, path: Path, lengths: Sequence[int], width: int, key: str) -> None:
        self._path, self._key = path, key
        self._ends = [0, *accumulate(lengths)]
        self._about_file = path.with_name(f"{path.name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.is_file() and self._rows_there() > 0
        shape = (max(1, self._ends[-1]), width)
        self._rows = np.memmap(path, np.float16, "r+" if there else "w+", shape=shape)

    def fill(self, compute: Callable[[list[int]], Sequence[Tensor]]) -> RowCache:
        """Compute the missing rows, in batches of row numbers; return the cache."""
        count = len(self._ends) - 1
        for first in range(self._rows_there(), count, ROWS_AT_ONCE):
            numbers = list(range(first, min(count, first + ROWS_AT_ONCE)))
            for number, row in zip(numbers, compute(numbers), strict=True):
                self._rows[self._ends[number] : self._ends[number + 1]] = row.float().cpu().numpy()
            done = numbers[-1] + 1
            if done == count or done % SAY_EVERY < ROWS_AT_ONCE:
                self._rows.flush()
                self._about_file.write_text(json.dumps({"key": self._key, "rows": done}))
                print(f"{self._path.name}: {done}/{count} rows", flush=True)
        return self

    def __getitem__(self, row: int) -> Tensor:
        """Return a row as float32."""
        import torch

        return torch.from_numpy(self._rows[self._ends[row] : self._ends[row + 1]].astype(np.float32))

    def length(self, row: int) -> int:
        """Return the length of a row."""
        return self._ends[row + 1] - self._ends[row]

    def _rows_there(self) -> int:
        if not self._about_file.is_file():
            return 0
        about = json.loads(self._about_file.read_text())
        return int(about["rows"]) if about["key"] == self._key else 0

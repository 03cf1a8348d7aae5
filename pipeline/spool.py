"""Keep a table's rows in a temporary file and read them by position, because a plan may not fit into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from echo_targets.schemas import Table


class Spool:
    """Rows in an unnamed temporary file, which vanishes with the process.

    Args:
        table: table of the rows.
        chunk: number of rows of each call to `add`, except the last; rows are read in chunks of this size.
    """

    def __init__(self, table: Table, chunk: int) -> None:
        self._schema, self._chunk = table.schema, chunk
        # An Arrow file has a single dictionary for all its batches, so categories are stored as strings.
        self._plain = pa.schema(
            [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in table.schema]
        )
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the spool)
        self._place = f"/dev/fd/{self._file.fileno()}"
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(pa.OSFile(self._place, "wb"), self._plain, options=options)

    def add(self, rows: pa.Table) -> None:
        """Append rows."""
        for batch in rows.cast(self._plain).combine_chunks().to_batches():
            self._writer.write_batch(batch)

    def close(self) -> None:
        """Finish writing."""
        self._writer.close()

    def take(self, positions: Sequence[int]) -> pa.Table:
        """Return the rows at the given positions, in the given order."""
        chunks, places = np.divmod(np.asarray(positions, np.int64), self._chunk)
        parts, found = [self._plain.empty_table()], [np.zeros(0, np.int64)]
        with pa.OSFile(self._place, "rb") as source, pa.ipc.open_file(source) as file:
            for chunk in np.unique(chunks):
                here = np.flatnonzero(chunks == chunk)
                parts.append(pa.Table.from_batches([file.get_batch(int(chunk))]).take(places[here]))
                found.append(here)
        rows = pa.concat_tables(parts).take(np.argsort(np.concatenate(found)))
        return rows.combine_chunks().cast(self._schema)

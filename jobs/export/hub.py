"""Hugging Face Hub: the training sets as Parquet by split, and a card that `datasets` reads and the Hub shows.

README.md                              written last; until then, one that loads nothing
data/train-00000-of-00190.parquet      of a single training set
data/echo/train-00000-of-00190.parquet of one of several
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from echo_targets.jobs.export.base import OUT, Format, Tick, Wrote
from echo_targets.jobs.export.files import writing
from echo_targets.jobs.export.hub_card import CARD, UNFINISHED, Config, Split, card
from echo_targets.jobs.export.names import hub_splits
from echo_targets.jobs.export.source import Piece, Source
from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.layout import LayoutError
from echo_targets.schemas.dataset.storage import Storage
from echo_targets.schemas.errors import UserError

TRAINING = "training/"


class Hub(Format):
    """Each training set as a config of the card. The first one is the default."""

    name: ClassVar[str] = "hub"

    def open(self, version: str | None, filters: Sequence[str]) -> list[Source]:
        tables = [name for name in self.dataset.tables() if name.startswith(TRAINING)]
        if not tables:
            raise UserError(
                f"{self.dataset.root}: no training set to export. Run the job with publish_s2t, publish_t2c or "
                "publish_echo."
            )
        named, errors = list[str](), list[LayoutError]()
        for name in tables:
            try:
                if version:
                    self.dataset.named(name, version)
                named.append(name)
            except LayoutError as error:
                errors.append(error)
        if not named:
            raise errors[0]
        try:
            return [Source(self.dataset, name, version, filters=filters) for name in named]
        except UserError as error:
            if not filters or len(named) == 1:
                raise
            raise UserError(
                f"{error}. A filter applies to each training set; to export one alone, name its version with --version"
            ) from None

    def begin(self, out: Storage, pieces: Sequence[Piece]) -> None:
        self._splits = {
            source.table: hub_splits(piece.split for piece in pieces if piece.source is source)
            for source in self.sources
        }
        out.write(CARD, UNFINISHED.encode())

    def write(self, out: Storage, piece: Piece, tick: Tick) -> Wrote:
        schema = piece.source.schemas[piece.source.table].remove_metadata()
        group = TABLES[piece.source.table].row_group_rows
        size, corpora = 0, set[str]()
        with writing(out, self._path(piece)) as sink:
            options = {"write_page_index": True, "use_content_defined_chunking": True}
            with pq.ParquetWriter(sink, schema, compression="zstd", **options) as writer:
                for rows in _regrouped(piece.source.batches(piece, schema.names), group):
                    writer.write_table(rows.cast(schema), row_group_size=group)
                    size += rows.nbytes
                    corpora.update(rows["corpus"].to_pylist())
                    tick(len(rows))
        return Wrote(piece.rows, about={"bytes": size, "corpora": sorted(corpora)})

    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        pieces = defaultdict[str, list[tuple[Piece, Wrote]]](list)
        for piece, wrote in done:
            pieces[piece.source.table].append((piece, wrote))
        configs = [self._config(source, pieces[source.table]) for source in self.sources if pieces[source.table]]
        out.write(CARD, card(self.dataset, configs).encode())
        return [
            f'load_dataset("{OUT}"' + (f', "{config.name}")' if number else ")")
            for number, config in enumerate(configs)
        ]

    def _config(self, source: Source, done: Sequence[tuple[Piece, Wrote]]) -> Config:
        splits: dict[str, Split] = {}
        for piece, wrote in done:
            name = self._splits[source.table][piece.split]
            split = splits.setdefault(name, Split(name, f"{self._folder(source)}/{name}-*-of-{piece.of:05d}.parquet"))
            split.rows += wrote.rows
            split.size += wrote.about["bytes"]
        corpora = {corpus for _, wrote in done for corpus in wrote.about["corpora"]}
        schema, version = source.schemas[source.table], source.versions[source.table]
        name = source.table.removeprefix(TRAINING)
        return Config(name, source.table, version, schema, list(splits.values()), corpora)

    def _folder(self, source: Source) -> str:
        return "data" if len(self.sources) == 1 else f"data/{source.table.removeprefix(TRAINING)}"

    def _path(self, piece: Piece) -> str:
        split = self._splits[piece.source.table][piece.split]
        return f"{self._folder(piece.source)}/{split}-{piece.number:05d}-of-{piece.of:05d}.parquet"


def _regrouped(batches: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables in tables of `rows` rows; the last may have fewer."""
    held = list[pa.Table]()
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows).combine_chunks()
            held = [whole.slice(rows)]
    if any(map(len, held)):
        yield pa.concat_tables(held).combine_chunks()

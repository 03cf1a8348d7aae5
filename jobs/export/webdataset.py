"""WebDataset: tar archives by split, with `KEY.flac` and `KEY.json` for each utterance.

train-000000.tar
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from echo_targets.jobs.export.base import OUT, Format, Tick, Wrote
from echo_targets.jobs.export.files import Tar, json_line, writing
from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.record import open_utterances, records
from echo_targets.jobs.export.source import Piece, Source
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.storage import Storage


class WebDataset(Format):
    """Utterances with all that the tables know of them."""

    name: ClassVar[str] = "webdataset"

    def open(self, version: str | None, filters: Sequence[str]) -> list[Source]:
        return open_utterances(self.dataset, version, filters)

    def write(self, out: Storage, piece: Piece, tick: Tick) -> Wrote:
        with writing(out, f"{safe_name(piece.split)}-{piece.number:06d}.tar") as sink:
            tar = Tar(sink)
            for row, flac in records(piece, tick):
                name = safe_name(row[KEY])
                tar.add(f"{name}.flac", flac)
                tar.add(f"{name}.json", json_line(row))
            tar.close()
        return Wrote(piece.rows)

    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        archives = Counter(safe_name(piece.split) for piece, _ in done)
        names = [f"{split}-{{000000..{count - 1:06d}}}.tar" for split, count in archives.items()]
        return [f'wds.WebDataset("{OUT}/{name}")' for name in names]

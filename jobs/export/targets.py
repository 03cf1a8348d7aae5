"""The reply's units in rows of `training/echo`: the one place that knows how the table stores them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echo_targets.jobs.export.source import Source
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.units.codebook import expand

TABLE = "training/echo"
UNITS, DURATIONS = "unit_targets", "unit_durations"
COLUMNS = (UNITS, DURATIONS)
SYSTEM = "system_text"
OF_CODEBOOK = ("codebook_id", "codebook_size", "num_codebooks", "sampling_rate", "hop_samples")
REMEDY = (
    "Publish units of a recording or of a voice: run the job again with stages.publish_echo.target=recorded or "
    "stages.publish_echo.target=voice."
)


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of all rows.

    Attributes:
        codebook_id: its id.
        size: units are 0 to size - 1.
        frame_rate: frames per second.
    """

    codebook_id: str
    size: int
    frame_rate: float


def one_codebook(source: Source, format: str) -> Tokens:
    """Return the tokenizer of the rows that pass the filters.

    Raises:
        UserError: there are no rows or several tokenizers, a frame has several units, or the frames are not known.
    """
    where = f"{source.dataset.root}: {source.table}"
    if missing := [name for name in (*COLUMNS, *OF_CODEBOOK, SYSTEM) if name not in source.schemas[source.table].names]:
        raise UserError(f"{where} has no column {', '.join(missing)}: an earlier version wrote it. Run the job again.")
    found = sorted(source.values(OF_CODEBOOK))
    if not found:
        raise UserError(f"Nothing to export: {source.why_nothing()}")
    if len(found) > 1:
        ids = ", ".join(str(each[0]) for each in found)
        raise UserError(
            f"{where} has units of {len(found)} codebooks ({ids}), but {format} takes one: choose one with "
            f"--filter 'codebook_id == {found[0][0]}'"
        )
    ((codebook_id, size, num_codebooks, rate, hop),) = found
    if num_codebooks != 1:
        raise UserError(
            f"{where} has {num_codebooks} units per frame ({codebook_id}), but {format} takes one: publish units of a "
            "tokenizer with one codebook, or with num_codebooks=1"
        )
    if not any(_has_durations(source, shard) for shard in source.shards):
        raise UserError(
            f"{where}: the units of {codebook_id} are collapsed and their durations are not known, but {format} takes "
            f"frames. {REMEDY}"
        )
    return Tokens(codebook_id, size, rate / hop)


def one_system_text(source: Source, format: str) -> str | None:
    """Return the system text of the rows that pass the filters; None if they have none.

    Raises:
        UserError: they have several, or some have none.
    """
    found = [text for (text,) in source.values([SYSTEM])]
    if len(found) < 2:
        return found[0] if found else None
    texts = sorted(text for text in found if text is not None)
    several = f"{len(texts)} system text{'s' * (len(texts) > 1)}{' and rows without one' if None in found else ''}"
    chosen = shlex.quote(f"{SYSTEM} == {json.dumps(texts[0], ensure_ascii=False)}")
    raise UserError(
        f"{source.dataset.root}: {source.table} has rows of {several}, but {format} takes one prompt for all rows: "
        f"make an export of each text, the first with --filter {chosen}"
    )


def _has_durations(source: Source, shard: str) -> bool:
    durations = source.read(shard, source.table, [DURATIONS])[DURATIONS]
    return durations.null_count < len(durations)


def frames_of(row: Mapping[str, Any]) -> list[int] | None:
    """Return the unit of each frame of the reply, or None if the frames are not known.

    Args:
        row: a row with `unit_targets` (by segment, codebook and run) of one codebook, and `unit_durations` (by segment
            and run).
    """
    if row[DURATIONS] is None:
        return None
    segments: Sequence[Any] = list(zip(row[UNITS], row[DURATIONS], strict=True))
    frames = [expand(codebooks[0], np.asarray(durations, np.int64)) for codebooks, durations in segments]
    return [unit for segment in frames for unit in segment.tolist()]

"""Read dialogues of a root, and run the echo stage on them in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import Levenshtein

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.models.readers.ctc import UnitReader, readable, target_cer
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.stage import Echo
from echo_targets.transforms.stages.echo.turns import user_turns

BATCH = 16
MAX_TOKENS = 128
ONE_SEGMENT = {"min_tokens": 10_000, "max_tokens": 10_000}
"""A segment rule that never cuts, so that recorded units of the whole reply need no alignment."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Dialogues:
    """Complete dialogues: their utterances with audio, and the utterances' units."""

    utterances: pa.Table
    units: pa.Table

    @classmethod
    def read(cls, root: str, split: str, limit: int | None = None) -> Dialogues:
        """Read the first dialogues of a split, or all of them without a limit."""
        dataset = Dataset(root)
        parts, dialogues = [], 0
        for manifest in dataset.manifests("utterances"):
            if limit is None or dialogues < limit:
                rows = dataset.open(manifest.output.path).read().unify_dictionaries()
                rows = rows.filter(pc.equal(rows["split"].cast(pa.string()), split))
                kept = pc.unique(rows["dialogue_id"])[: None if limit is None else limit - dialogues]
                parts.append(rows.filter(pc.is_in(rows["dialogue_id"], value_set=kept)))
                dialogues += len(kept)
        utterances = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
        units = dataset.read("units")
        keys = utterances[KEY].combine_chunks()
        return cls(utterances, units.filter(pc.is_in(units[KEY], value_set=keys)).combine_chunks())

    @cached_property
    def questions(self) -> list[Row]:
        """Return the user turns, each with its `reply` and, if available, the reply's `units`."""
        rows = self.utterances.drop_columns(["audio"]).to_pylist()
        units = {row[KEY]: row["units"][0] for row in self.units.select([KEY, "units"]).to_pylist()}
        replies = {(row["dialogue_id"], row["turn"]): row for row in rows if row["role"] == "assistant"}
        asked = [(row, replies.get((row["dialogue_id"], row["turn"] + 1))) for row in rows if row["role"] == "user"]
        return [
            row | {"reply": reply["reference_text"], "units": units.get(reply[KEY])} for row, reply in asked if reply
        ]

    def audio(self) -> Iterator[bytes]:
        """Return the audio of the questions, as files."""
        by_key = {
            row[KEY]: row["audio"]["bytes"] for row in user_turns(self.utterances).select([KEY, "audio"]).to_pylist()
        }
        return (by_key[question[KEY]] for question in self.questions)

    def echoed(self, origin: str = "t2c", batch: int = BATCH, **parameters: Any) -> dict[str, Row]:
        """Return rows of `echo_targets` by the question's key; rejected rows are missing.

        Args:
            origin: the target of the rows, as columns; `recorded` is one of them too.
            parameters: parameters of the stage.
        """
        chosen = {"max_tokens": MAX_TOKENS, "targets": [origin, "recorded"]} | parameters
        echo = Echo(EchoParameters.model_validate(chosen))
        echo.setup()
        shard = {"utterances": self.utterances, "units": self.units}
        rows = echo.rows(self.utterances, shard)
        outputs = (echo(echo.prepare(rows.slice(first, batch))) for first in range(0, len(rows), batch))
        return {row[KEY]: row | row[origin] for output in outputs for row in output.rows.to_pylist()}


def error_rate(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float | None:
    """Return the edit distance divided by the length of the references, both summed over all pairs."""
    length = sum(len(wanted) for _, wanted in pairs)
    return sum(Levenshtein.distance(said, wanted) for said, wanted in pairs) / length if length else None


def joined_units(row: Row) -> list[int]:
    """Return the concatenated units of a row's segments."""
    return list(chain.from_iterable(segments_of(row)))


def segments_of(target: Row) -> list[list[int]]:
    """Return the units of each segment of a target of one codebook."""
    return [units for (units,) in target["units"]]


def spoken_error_rate(reader: UnitReader, spoken: Sequence[tuple[str, list[list[int]]]]) -> float | None:
    """Return `target_cer` over all texts with the units of their segments: total errors by total characters."""
    rates = target_cer(
        reader, [text for text, _ in spoken], [[[units] for units in segments] for _, segments in spoken]
    )
    lengths = [len(readable(text)) for text, _ in spoken]
    errors = sum(rate * length for rate, length in zip(rates, lengths, strict=True) if rate is not None)
    return errors / sum(lengths) if any(lengths) else None

"""How much an utterance sounds like the others of its speaker.

A shard's worker sees only that shard, so `echo-targets fit-speakers` compares the embeddings of all of them first;
publish loads its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from echo_targets.schemas.errors import UserError

LEAST_UTTERANCES = 3
"""A speaker with fewer utterances says nothing about which of them is wrong."""
COLUMNS = pa.schema([pa.field("utterance_id", pa.string()), pa.field("speaker_similarity", pa.float32())])
REMEDY = "make one with `echo-targets fit-speakers`"


class SimilaritiesError(UserError):
    """A file of similarities can't be used."""


@dataclass(frozen=True)
class SpeakerSimilarities:
    """Similarity of each utterance to the others of its speaker, as a table of `COLUMNS`."""

    rows: pa.Table

    @classmethod
    def fit(cls, speakers: Mapping[tuple[str, str], tuple[list[str], np.ndarray]]) -> SpeakerSimilarities:
        """Return the cosine of each embedding and the mean of the speaker's others.

        Args:
            speakers: keys and embeddings, (n, dimension) float32 unit vectors, of each corpus and speaker. Speakers of
                fewer than `LEAST_UTTERANCES` are left out.
        """
        keys, found = list[str](), [np.zeros(0)]
        for mine, vectors in speakers.values():
            if len(mine) >= LEAST_UTTERANCES:
                wide = vectors.astype(np.float64)
                others = wide.sum(axis=0) - wide
                norms = np.maximum(np.linalg.norm(others, axis=1) * np.linalg.norm(wide, axis=1), 1e-12)
                keys += mine
                found.append((wide * others).sum(axis=1) / norms)
        values = pa.array(np.concatenate(found).round(4), pa.float32())
        return cls(pa.table([pa.array(keys, pa.string()), values], schema=COLUMNS).sort_by("utterance_id"))

    def of(self, keys: pa.Array) -> pa.FloatArray:
        """Return the similarity of each utterance; null if the file lacks it."""
        place = pc.index_in(keys, value_set=self.rows["utterance_id"].combine_chunks())
        return self.rows["speaker_similarity"].combine_chunks().take(place)

    def save(self, path: Path) -> None:
        """Write a CSV file; equal similarities give equal bytes."""
        csv.write_csv(self.rows, path)

    @classmethod
    def load(cls, path: Path) -> SpeakerSimilarities:
        """Load saved similarities.

        Raises:
            SimilaritiesError: the file is missing, is damaged, or holds something else.
        """
        types = csv.ConvertOptions(column_types=COLUMNS, include_columns=COLUMNS.names, null_values=[])
        try:
            rows = csv.read_csv(path, csv.ReadOptions(), csv.ParseOptions(newlines_in_values=True), types)
        except OSError as error:
            raise SimilaritiesError(f"{path}: {error.strerror or error}; {REMEDY}") from error
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise SimilaritiesError(f"{path}: not a file of similarities ({error}); {REMEDY}") from error
        if not pc.all(pc.less_equal(pc.abs(rows["speaker_similarity"]), 1.0001), min_count=0).as_py():
            raise SimilaritiesError(f"{path}: a speaker_similarity is not in [-1, 1]; {REMEDY}")
        return cls(rows)

"""Compare exports with writing the same rows by the target's own library: `datasets`, lhotse, webdataset.

python -m benchmarks.export [--limit N] [--rounds 5]

Rows are recorded speech, each clip several times. Ours reads, joins and filters the tables of a root, and syncs each
file before it has its name; the others are given the same rows in memory (`datasets`: the same Parquet files).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.common import chosen, compare, speech_rows
from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.record import Record, open_utterances, records
from echo_targets.jobs.export.registry import FORMATS
from echo_targets.jobs.export.resume import export
from echo_targets.pipeline.commit import ShardWriter
from echo_targets.schemas import KEY, S2T, SAMPLE_RATE, UNITS, UTTERANCES, Table
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Recipe, ShardEntry, Snapshot, Version
from echo_targets.transforms.base import table_of

TIMES = 8
HOP = 320
FILTER = "split == train"


def main(limit: int | None, rounds: int) -> None:
    clips = speech_rows()[:limit] * TIMES
    with tempfile.TemporaryDirectory() as temporary:
        root, out = Path(temporary) / "root", Path(temporary) / "out"
        seconds = write_root(root, clips)
        dataset = Dataset(str(root))
        (source,) = open_utterances(dataset, None, [])
        utterances = [row for piece in source.pieces() for row in records(piece, lambda rows: None)]
        others: dict[str, Callable[[], object]] = {
            "hub": lambda: by_datasets(dataset, out),
            "lhotse": lambda: by_lhotse(utterances, out),
            "webdataset": lambda: by_webdataset(utterances, out),
        }
        for format, other in others.items():
            size = exported(dataset, format, out)
            print(f"\n{format}: {len(clips)} rows, {size / 1e6:.0f} MB\n")
            ours = partial(exported, dataset, format, out)
            library = {
                "hub": "datasets, to_parquet",
                "lhotse": "lhotse, to_shar",
                "webdataset": "webdataset, TarWriter",
            }
            compare({f"echo-targets, {format}": ours, library[format]: other}, seconds, rounds, len(clips), size)


def exported(dataset: Dataset, format: str, out: Path) -> int:
    """Export everything; return the bytes that were written."""
    shutil.rmtree(out, ignore_errors=True)
    export(FORMATS[format](dataset, None, [FILTER]), [FILTER], str(out))
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def by_datasets(dataset: Dataset, out: Path) -> None:
    from datasets import Audio, disable_progress_bars, load_dataset

    disable_progress_bars()
    shutil.rmtree(out, ignore_errors=True)
    files = [dataset.path(manifest.output.path) for manifest in dataset.manifests(S2T.name)]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(out / "cache"))
    rows.cast_column("audio", Audio(sampling_rate=SAMPLE_RATE, decode=False)).to_parquet(out / "train.parquet")


def by_lhotse(utterances: list[tuple[Record, bytes]], out: Path) -> None:
    import lhotse

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    cuts = lhotse.CutSet.from_cuts(_cut(row, flac) for row, flac in utterances)
    cuts.to_shar(out, fields={"recording": "flac"}, shard_size=None)


def _cut(row: Record, flac: bytes) -> Any:
    import lhotse

    name = safe_name(row[KEY])
    cut = lhotse.Recording.from_bytes(flac, recording_id=name).to_cut()
    cut.supervisions = [lhotse.SupervisionSegment(name, name, 0, cut.duration, text=row["text"])]
    cut.custom = row
    return cut


def by_webdataset(utterances: list[tuple[Record, bytes]], out: Path) -> None:
    import webdataset as wds

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with wds.TarWriter(str(out / "train-000000.tar")) as writer:
        for row, flac in utterances:
            writer.write({"__key__": safe_name(row[KEY]), "flac": flac, "json": row})


# -- a root to export -------------------------------------------------------------------------------------------------


def write_root(root: Path, clips: list[dict[str, Any]]) -> float:
    """Write utterances, units and training/s2t of some clips in one shard; return the seconds of audio."""
    rows = [_utterance(number, clip) for number, clip in enumerate(clips)]
    above = Recipe("ingest", 1, UTTERANCES.name, UTTERANCES.version, {}, {}, {})
    upstream = {UTTERANCES.name: above.fingerprint}
    _put(root, UTTERANCES, above, rows)
    _put(root, UNITS, Recipe("tokenize", 1, UNITS.name, UNITS.version, {}, {}, upstream), [_units(row) for row in rows])
    scores = {"response_text": None, "wer_vs_reference": None, "alignment_coverage": None}
    published = [row | {"text": row["reference_text"]} | scores for row in rows]
    _put(root, S2T, Recipe("publish_s2t", 1, S2T.name, S2T.version, {}, {}, upstream), published)
    return sum(row["num_samples"] for row in rows) / SAMPLE_RATE


def _put(root: Path, table: Table, recipe: Recipe, rows: list[dict[str, Any]]) -> None:
    """Commit rows as the one shard of a table, and make it current."""
    dataset, shard = Dataset(str(root)), "0" * 16
    with ShardWriter(dataset, table, recipe, shard) as writer:
        writer.write([row[KEY] for row in rows], 0, table_of(rows, table), [])
        writer.commit()
    snapshot = Snapshot((ShardEntry(shard, len(rows), 0),))
    tables = {
        name: str(version) for name, version in (dataset.tables() if (root / "index.json").exists() else {}).items()
    }
    tables[table.name] = str(Version(recipe.fingerprint, snapshot.id))
    dataset.storage.write(f"{table.name}/{recipe.fingerprint}/recipe.json", recipe.to_json())
    dataset.storage.write(f"snapshots/{snapshot.id}.json", snapshot.to_json())
    dataset.storage.write("index.json", json.dumps({"tables": tables}).encode())


def _utterance(number: int, clip: dict[str, Any]) -> dict[str, Any]:
    flac, name = Path(clip["audio"]).read_bytes(), f"{clip['id']}-{number}"
    about = {"role": "narrator", "corpus": "speech", "split": "train", "language": "en", "license": "CC-BY-4.0"}
    return {
        KEY: name,
        "dialogue_id": None,
        "turn": None,
        **about,
        "audio": {"bytes": flac, "path": f"{clip['id']}.flac"},
        "audio_sha256": hashlib.sha256(name.encode()).digest(),
        "sampling_rate": SAMPLE_RATE,
        "num_samples": soundfile.info(clip["audio"]).frames,
        "channel": -1,
        "speaker_id": None,
        "reference_text": clip["text"],
        "synthetic": False,
    }


def _units(row: dict[str, Any]) -> dict[str, Any]:
    frames = -(-row["num_samples"] // HOP)
    return {
        KEY: row[KEY],
        "codebook_id": "k500",
        "codebook_size": 500,
        "num_codebooks": 1,
        "layer": None,
        "sampling_rate": SAMPLE_RATE,
        "hop_samples": HOP,
        "num_frames": frames,
        "units": [np.arange(frames) % 500],
        "durations": np.ones(frames, np.int32),
        "unit_words": None,
        "unit_language_id": None,
    }


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

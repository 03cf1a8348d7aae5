"""Valid rows of every table, and a root to put them in, written with pyarrow alone."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from echo_targets.schemas import REJECTS, TABLES, Table
from echo_targets.schemas.dataset.check import metadata
from echo_targets.schemas.dataset.layout import Dataset, FileEntry, Manifest
from echo_targets.schemas.dataset.versions import Recipe, ShardEntry, Snapshot, Version, entry_digest, shard_id
from echo_targets.schemas.tables.targets import ORIGINS, TARGET
from echo_targets.schemas.tables.training import OF_TARGET

HOP = 320
Row = dict[str, Any]


def key(number: int) -> str:
    return f"utt-{number:05d}"


def num_samples(number: int) -> int:
    return 16_000 + 100 * (number % 50)


def sample(name: str, number: int = 0) -> Row:
    """Row `number` of a table; rows of one number belong together across tables."""
    row = {"utterance_id": key(number), **_SAMPLES[name](number)}
    assert list(row) == TABLES[name].columns, f"the sample of {name} is not up to date"
    return row


def samples(name: str, count: int, first: int = 0) -> list[Row]:
    return [sample(name, number) for number in range(first, first + count)]


def _entry(number: int) -> Row:
    return {
        "source": "calls/train",
        "source_fingerprint": "44136fa355b3678a",
        "where": None,
        "locator": f"/corpus/d/{number}.wav",  # its digest decides where the stand-ins' shards are cut
        "size": 32_044,
        "timed_text": None if number % 3 else f"{number}.srt",
        "timed_text_sha256": None if number % 3 else f"{number:064x}",
        "error_class": None,
        "error": None,
        "seconds": num_samples(number) / 16_000,
        "start_seconds": None if number % 2 else 12.5,
        "section_seconds": None if number % 2 else num_samples(number) / 16_000,
        "declared_seconds": num_samples(number) / 16_000 if number % 2 else None,
        "recording_id": None,
        **_dialogue(number),
        "role": ("user", "assistant")[number % 2],
        "corpus": "calls",
        "split": "train",
        "language": "en",
        "channel": -1,
        "speaker_id": None,
        "reference_text": "hello there",
        "system_text": _system_text(number),
        "license": "CC-BY-4.0",
        "attempt": 0,
    }


def _dialogue(number: int) -> Row:
    return {"dialogue_id": f"dialogue-{number // 2}", "turn": number % 2}


def _system_text(number: int) -> str | None:
    """Every second dialogue has one."""
    return None if number // 2 % 2 else "You are a concise travel agent."


def _cuts(number: int) -> Row:
    """A recording in which a user speaks, an assistant answers over a second user remark, and the user closes."""
    length = num_samples(number)
    cut = {"speaker_id": f"call-{number}-1", "overlap": 0.25, "level_dbfs": -31.5, "border": "turn", "text": None}
    user = {"channel": 1, "role": "user", **cut}
    assistant = {"channel": 0, "role": "assistant", **cut, "speaker_id": None, "text": "It is nine."}
    return {
        "sampling_rate": 8_000,
        "num_channels": 2,
        "num_samples": length,
        "cuts": [
            {**user, "start_sample": 100, "end_sample": 4_000, "turn": 0},
            {**assistant, "start_sample": 3_900, "end_sample": 12_000, "turn": 1},
            {**user, "start_sample": 5_000, "end_sample": 6_000, "turn": None},
            {**user, "start_sample": 12_500, "end_sample": length, "turn": 2, "border": "end"},
        ],
        "gaps": [
            {"channel": 0, "start_sample": 0, "end_sample": 3_900, "why": "cross_talk"},
            {"channel": 0, "start_sample": 12_000, "end_sample": length, "why": "no_speech"},
            {"channel": 1, "start_sample": 0, "end_sample": 100, "why": "no_speech"},
            {"channel": 1, "start_sample": 4_000, "end_sample": 5_000, "why": "no_speech"},
            {"channel": 1, "start_sample": 6_000, "end_sample": 12_500, "why": "no_speech"},
        ],
    }


def _utterance(number: int) -> Row:
    return {
        **dict.fromkeys(("recording_id", "start_sample", "end_sample")),
        **_dialogue(number),
        "role": ("user", "assistant")[number % 2],
        "corpus": "calls",
        "split": "train",
        "language": "en",
        "audio": {"bytes": f"fLaC {number}".encode(), "path": f"{number}.flac"},
        "audio_sha256": hashlib.sha256(str(number).encode()).digest(),
        "sampling_rate": 44_100,
        "num_samples": num_samples(number),
        "channel": -1,
        "speaker_id": "Äsa",
        "reference_text": "hello there you",
        "spoken_text": None if number % 2 else "hello there you",
        "system_text": _system_text(number),
        "license": "CC-BY-4.0",
        "synthetic": False,
    }


def _transcript(number: int) -> Row:
    segment = {"text": "hello", "avg_logprob": -0.2, "no_speech_prob": 0.0, "compression_ratio": 1.1}
    return {
        "text": "Hello there.",
        "text_normalized": "hello there",
        "language": "en",
        "language_prob": None if number % 2 else 0.99,
        "segments": [
            {"start_sample": 0, "end_sample": 8_000, **segment},
            {"start_sample": 8_000, "end_sample": num_samples(number), **segment},
        ],
        "speech_covered": None if number % 2 else 0.97,
        "wer_vs_reference": 0.5,
        "wer_unit": "word",
        "chars_per_s": 11.0,
        "flags": ["loud", "short"] if number % 3 else [],
    }


def _measure(number: int) -> Row:
    return {
        "loudness_lufs": None if number % 2 else -23.5,
        "speech_share": 0.75,
        "longest_silence_samples": 4_000,
        "bandwidth_hz": 7_968.75,
        "clipped_share": 0.0625,
        "snr_db": None if number % 2 else 21.5,
        "dnsmos_sig": None if number % 2 else 3.5,
        "dnsmos_bak": None if number % 2 else 4.25,
        "dnsmos_ovrl": None if number % 2 else 3.25,
        "dnsmos_p808": None if number % 2 else 3.75,
        "speaker_embedding": None if number % 2 else [0.6, 0.0, -0.8],
        "chars_per_s": 11.0,
        "unique_word_share": 1.0,
        "longest_word": 5,
        "longest_word_excess": 0.0,
        "repeated_share": 0.0,
    }


def _alignment(number: int) -> Row:
    def item(symbol: str, char_start: int, start: int | None, end: int | None) -> Row:
        return {
            "symbol": symbol,
            "char_start": char_start,
            "char_end": char_start + len(symbol),
            "start_sample": start,
            "end_sample": end,
            "score": None if start is None else 0.9,
            "interpolated": False,
        }

    return {
        "tier": "word",
        "text_source": "reference",
        "items": [
            item("hello", 0, 100, 7_000),
            item("there", 6, None, None),
            item("you", 12, 7_000, num_samples(number)),
        ],
        "coverage": 0.6667,
        "status": "partial",
        "reason": None,
    }


def _features(number: int) -> Row:
    return {
        "encoder": "whisper-tiny.en",
        "layer": 3,
        "hop_samples": 320,
        "width": 2,
        "frames": [0, 4, number % 50 + 5],
        "features": [0.5, -1.0, 2.5, 0.0, 1.0, -3.5],
    }


def _unit_counts(number: int) -> Row:
    words = [b"\0\1", b"\0\1\0\7", b"\0\7"]
    return {"utterances": number + 1, "words": words, "counts": [5 + number, 2, 9]}


def _units(number: int) -> Row:
    several = number % 4 == 2
    rate = 24_000 if several else 16_000
    frames = -(-num_samples(number) * rate // (16_000 * HOP))
    return {
        "codebook_id": "codec" if several else "k100",
        "codebook_size": 100,
        "num_codebooks": 2 if several else 1,
        "layer": None if several else 3,
        "sampling_rate": rate,
        "hop_samples": HOP,
        "num_frames": frames,
        "units": [[99, 0, 99], [7, 7, 8]] if several else [[99, 0, 99]],
        "durations": [1, frames - 3, 2],
        "unit_words": [5, 6] if number % 2 else None,
        "unit_language_id": "words" if number % 2 else None,
    }


def _echo_target(number: int) -> Row:
    return {
        "dialogue_id": f"dialogue-{number // 2}",
        "turn": 0,
        "user_audio_ids": [key(number)],
        "system_text": _system_text(number),
        "prompt_template_id": "plain",
        "tokenizer_id": "chars",
        "asr_target_ids": [1, 2],
        "assistant_after_audio_shift": 2,
        "response_text": "Très bien 👍",
        "response_source": "reference",
        "response_token_ids": [4, 5, 6, 7],
        "sub_lengths": [1, 3],
        "segment_char_ends": [5, 11],
        "echo_model_id": "echo",
        "seed": 0,
        "hidden_text_agreement": None,
        "denoising_cosine": [1.0, -1.0],
        "t2c": _decoded(number),
        "echo": None if number % 2 else _decoded(number) | {"decode_id": "echo-greedy"},
        "recorded": _recorded() if number % 2 else None,
        "voice": None,
    }


def put_target(row: Row, **changes: Any) -> Row:
    """Give a row of echo_targets or training/echo a target of one codebook with durations, with some fields changed."""
    target = _decoded(1) | {"durations": [[1, 4, 2], [3]]} | changes
    row |= {"t2c": target} if "t2c" in row else {OF_TARGET[name]: value for name, value in target.items()}
    return row


def _decoded(number: int) -> Row:
    """A model's target: one codebook, without durations."""
    return {
        **dict.fromkeys(field.name for field in TARGET),
        "model_id": "t2c",
        "decode_id": "t2c-hidden-greedy",
        "codebook_id": "k100",
        "codebook_size": 100,
        "num_codebooks": 1,
        "sampling_rate": 16_000,
        "hop_samples": 320,
        "units": [[[1, 2, 1]], [[7]]],
        "unit_words": [[3], []] if number % 2 else None,
        "mean_logprob": [-0.5, -1.25],
        "stop_reason": ["end", "length"],
        "unit_error_rate": 0.2,
    }


def _recorded() -> Row:
    """A recording's target: three codebooks, with durations; equal neighbors in some of them; an empty segment."""
    return {
        **dict.fromkeys(field.name for field in TARGET),
        "codebook_id": "codec",
        "codebook_size": 2048,
        "num_codebooks": 3,
        "sampling_rate": 24_000,
        "hop_samples": 1920,
        "units": [[[9, 9], [5, 2047], [0, 0]], [[], [], []]],
        "durations": [[2, 11], []],
    }


def _reject(number: int) -> Row:
    return {"stage": "ingest", "error_class": "too_short", "message": "a.wav: 0.01 s", "attempts": 1}


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _s2t(number: int) -> Row:
    whole = _utterance(number)
    return {
        **{name: whole[name] for name in ("corpus", "split", "language", "speaker_id", "audio", "num_samples")},
        "text": whole["reference_text"],
        "response_text": None if number % 2 else _utterance(number + 1)["reference_text"],
        "system_text": whole["system_text"],
        "wer_vs_reference": _transcript(number)["wer_vs_reference"],
        "alignment_coverage": _alignment(number)["coverage"],
    }


def _t2c(number: int) -> Row:
    whole = _utterance(number)
    named = {name: whole[name] for name in ("corpus", "split", "language", "speaker_id")}
    named["text"] = whole["reference_text"]
    units = _without(_units(number), "layer", "sampling_rate", "hop_samples")
    borders = [{"char_start": 5, "char_end": 7, "frame": 1}, {"char_start": 12, "char_end": 13, "frame": 30}]
    return {**named, **units, "borders": borders[number % 3 :]}


def _echo(number: int) -> Row:
    whole = _utterance(number)
    joined = {name: whole[name] for name in ("corpus", "split", "language", "audio", "num_samples")}
    reply = _without(_echo_target(number), *ORIGINS)
    origin, target = ("t2c", _decoded(number)) if number % 2 else ("recorded", _recorded())
    said = {OF_TARGET[name]: value for name, value in target.items()}
    return {**reply, "target": origin, **said, **joined, "text": whole["reference_text"]}


_SAMPLES = {
    "entries": _entry,
    "cuts": _cuts,
    "utterances": _utterance,
    "transcripts": _transcript,
    "measures": _measure,
    "alignments": _alignment,
    "units": _units,
    "features": _features,
    "unit_counts": _unit_counts,
    "echo_targets": _echo_target,
    "rejects": _reject,
    "training/s2t": _s2t,
    "training/t2c": _t2c,
    "training/echo": _echo,
}


def arrow(name: str, rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES[name].schema)


def parquet(rows: pa.Table, table: Table, fingerprint: str, about: dict[str, str] | None = None) -> bytes:
    """A shard's file; `about` overrides the metadata, and removes what it gives as the empty string."""
    wanted = {name: value for name, value in (metadata(table, fingerprint) | (about or {})).items() if value}
    sink = io.BytesIO()
    schema = rows.schema.with_metadata(wanted)
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(rows.replace_schema_metadata(wanted).unify_dictionaries(), row_group_size=2_000)
    return sink.getvalue()


def opened(data: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)


class Root:
    """A dataset whose files a test may write and damage as it likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.ids = [hashlib.sha256(f"shard {number}".encode()).hexdigest()[:16] for number in range(64)]
        self.dataset = Dataset(str(folder))

    def put(
        self, name: str, *shards: list[Row] | pa.Table, variant: str = "", of: Row | None = None, **about: str
    ) -> None:
        """Commits shards of a table, and makes them its current version; `variant` and `of` change the recipe."""
        above = {"entries": None, "utterances": "entries"}.get(name, "utterances")
        values = {
            "stage": name.replace("/", "_"),
            "version": 1,
            "parameters": {"variant": variant} if variant else {},
            "weights": {},
            "upstream": {above: self.tables[above]} if above in self.tables else {},
        }
        recipe = Recipe(table=name, schema_version=TABLES[name].version, **values | (of or {}))
        tables = [rows if isinstance(rows, pa.Table) else arrow(name, rows) for rows in shards]
        if name == "entries" and self.tables.keys() <= {name}:
            self.ids = [shard_id(TABLES[name].version, map(entry_digest, table.to_pylist())) for table in tables]
        self.tables[name] = recipe.fingerprint
        for number, table in enumerate(tables):
            self.put_file(
                name, number, parquet(table, TABLES[name], recipe.fingerprint, about), len(table), len(shards)
            )
        (self.folder / name / recipe.fingerprint / "recipe.json").write_bytes(recipe.to_json())
        snapshot = Snapshot(tuple(ShardEntry(shard, 0, 0) for shard in self.ids[: len(shards)]))
        self.versions[name] = str(Version(recipe.fingerprint, snapshot.id))
        (self.folder / "snapshots").mkdir(exist_ok=True)
        (self.folder / "snapshots" / f"{snapshot.id}.json").write_bytes(snapshot.to_json())
        (self.folder / "index.json").write_text(json.dumps({"tables": self.versions}))

    def put_file(self, name: str, shard: int, data: bytes, rows: int, shards: int = 1) -> None:
        """A shard's file with a manifest that vouches for it, whatever is in it."""
        entry = self._write(f"{name}/{self.tables[name]}/{self.ids[shard]}.parquet", data, rows)
        manifest = Manifest(name, self.tables[name], self.ids[shard], rows_in=rows, samples=0, output=entry)
        self.manifest(name, shard, shards).write_bytes(manifest.to_json())

    def put_rejects(self, name: str, refused: list[Row], shard: int = 0, shards: int = 1) -> None:
        """Rejects beside a shard that is there, under the name of its stage."""
        stage, fingerprint = name.replace("/", "_"), self.tables[name]
        refused = [row | {"stage": stage} for row in refused]
        data = parquet(arrow("rejects", refused), REJECTS, fingerprint)
        entry = self._write(f"rejects/{stage}/{fingerprint}/{self.ids[shard]}.parquet", data, len(refused))
        rejects = {"path": entry.path, "size": entry.size, "sha256": entry.sha256, "rows": entry.rows}
        reasons = {"too_short": len(refused)}
        rows_in = self.read_manifest(name, shard, shards)["rows_in"] + len(refused)
        self.edit_manifest(name, shard, shards, rejects=rejects, reasons=reasons, rows_in=rows_in)

    def _write(self, path: str, data: bytes, rows: int) -> FileEntry:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)
        return FileEntry(path, len(data), hashlib.sha256(data).hexdigest(), rows)

    def file(self, name: str, shard: int = 0, shards: int = 1) -> Path:
        return self.folder / name / self.tables[name] / f"{self.ids[shard]}.parquet"

    def manifest(self, name: str, shard: int = 0, shards: int = 1) -> Path:
        return self.file(name, shard, shards).with_suffix(".json")

    def read_manifest(self, name: str, shard: int = 0, shards: int = 1) -> Row:
        value: Row = json.loads(self.manifest(name, shard, shards).read_bytes())
        return value

    def edit_manifest(self, name: str, shard: int = 0, shards: int = 1, /, **changes: Any) -> None:
        changed = self.read_manifest(name, shard, shards) | changes
        self.manifest(name, shard, shards).write_text(json.dumps(changed))

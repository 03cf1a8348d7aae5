"""`check --level deep`: checks that decode audio and run the tokenizer."""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echo_targets.schemas import KEY, SAMPLE_RATE, TABLES, UNITS, UTTERANCES
from echo_targets.schemas.dataset.check import UNREADABLE, Finding, shortened
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest
from echo_targets.schemas.dataset.storage import split
from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.transforms.assets import PREFIX, asset
from echo_targets.transforms.audio.waveforms import with_waveforms
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters

SAMPLE = 4
"""Utterances per shard whose units are recomputed."""


def check_deep(root: str) -> Iterator[Finding]:
    """Yield findings about all audio and about the units of a sample, in addition to those of `check_dataset`.

    Every utterance is decoded and its samples are hashed; training sets must hold the same bytes. The units of a few
    utterances per shard, drawn with a fixed seed, are recomputed with the tokenizer that the stage's digests identify.

    Raises:
        LayoutError: the index, or the description of a table that it names, is missing or damaged.
        ImportError: a library for decoding or tokenizing is not installed.
    """
    import soundfile  # noqa: F401 (fails here rather than in the threads)

    dataset = Dataset(root)
    made = [
        (dataset.recipe(name, version.recipe), version) for name, version in dataset.tables().items() if name in TABLES
    ]
    for recipe, version in made:
        shards = dataset.snapshot(version.snapshot).ids
        if recipe.table == UTTERANCES.name:
            same = [other for other, at in made if at.snapshot == version.snapshot and _holds_audio_of(other, recipe)]
            pool = ThreadPoolExecutor(os.cpu_count())
            try:
                for found in pool.map(lambda shard, of=recipe, same=same: _audio(dataset, of, same, shard), shards):
                    yield from found
            finally:
                pool.shutdown(cancel_futures=True)
        if recipe.table == UNITS.name:
            yield from _units(dataset, recipe, shards)


def _holds_audio_of(recipe: Recipe, utterances: Recipe) -> bool:
    return "audio" in TABLES[recipe.table].columns and recipe.upstream.get(utterances.table) == utterances.fingerprint


def check_deep_file(path: str) -> Iterator[Finding]:
    """Yield findings about the audio of one Parquet file of utterances; files of other tables have no deep checks."""
    folder, name = split(path)
    try:
        with Dataset(folder).open(name) as file:
            if file.schema_arrow.equals(UTTERANCES.schema):
                yield from _decoded(file, name, {})
    except UNREADABLE:
        return  # the other levels report unreadable files


def _audio(dataset: Dataset, utterances: Recipe, training: list[Recipe], shard: str) -> list[Finding]:
    """Return the findings of one shard of utterances and of the training sets that hold its audio."""
    digests: dict[str, bytes] = {}
    found: list[Finding] = []
    for recipe in (utterances, *training):
        try:
            with dataset.open(_manifest(dataset, recipe, shard).output.path) as file:
                of_utterances = recipe is utterances
                found += _decoded(file, shard, digests) if of_utterances else _same(file, recipe.table, shard, digests)
        except (LayoutError, *UNREADABLE) as error:
            found.append(Finding(recipe.table, shard, "readable", str(error)))
    return found


def _manifest(dataset: Dataset, recipe: Recipe, shard: str) -> Manifest:
    manifest = dataset.manifest(recipe.table, recipe.fingerprint, shard)
    if manifest is None:
        raise LayoutError(f"{recipe.table}/{recipe.fingerprint} has no manifest of {shard}")
    return manifest


def _decoded(file: pq.ParquetFile, shard: str, digests: dict[str, bytes]) -> Iterator[Finding]:
    """Yield findings about the audio of utterances; record the digest of each one's bytes in `digests`."""
    for row in _rows(file, [KEY, "audio", "audio_sha256", "num_samples"]):
        data = row["audio"]["bytes"] or b""
        digests[row[KEY]] = hashlib.sha256(data).digest()
        for rule, says in _broken(data, row):
            yield Finding(UTTERANCES.name, shard, rule, says, row[KEY])


def _broken(data: bytes, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            about = (file.format, file.subtype, file.samplerate, file.channels)
            samples = file.read(dtype="int16")
    except soundfile.SoundFileError as error:
        yield "audio_decodes", str(error)
        return
    if about != (wanted := ("FLAC", "PCM_16", SAMPLE_RATE, 1)):
        yield "audio_format", f"is {about}, expected {wanted}"
    if len(samples) != row["num_samples"]:
        yield "audio_length", f"the audio has {len(samples)} samples, but num_samples is {row['num_samples']}"
    if (found := hashlib.sha256(samples.astype("<i2").tobytes())).digest() != row["audio_sha256"]:
        yield "audio_sha256", f"the samples hash to {found.hexdigest()}, the row says {row['audio_sha256'].hex()}"


def _same(file: pq.ParquetFile, table: str, shard: str, digests: dict[str, bytes]) -> Iterator[Finding]:
    for row in _rows(file, [KEY, "audio"]):
        if row[KEY] in digests and hashlib.sha256(row["audio"]["bytes"] or b"").digest() != digests[row[KEY]]:
            yield Finding(table, shard, "audio_agrees", "audio differs from that of the utterance", row[KEY])


def _rows(file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, columns).to_pylist()


def _units(dataset: Dataset, recipe: Recipe, shards: list[str]) -> Iterator[Finding]:
    """Yield findings about a recomputed sample of units, or a notice if the tokenizer is not a shipped one."""
    tokenize = tokenizer_of(recipe)
    if tokenize is None:
        message = f"no units were recomputed: no shipped tokenizer has the digests {shortened(recipe.weights)}"
        yield Finding(recipe.table, "-", "units_recomputed", message, breaks=False)
        return
    tokenize.setup()
    for shard in shards:
        try:
            rows, audio = _sample(dataset, recipe, shard)
        except (LayoutError, *UNREADABLE) as error:
            yield Finding(recipe.table, shard, "readable", str(error))
            continue
        again = {row[KEY]: row for row in _computed(tokenize, audio)}
        for row in rows:
            for column, expected in again.get(row[KEY], {}).items():
                if row[column] != expected:
                    message = f"{column} should be {shortened(expected)}"
                    yield Finding(recipe.table, shard, "units_recomputed", message, row[KEY], shortened(row[column]))


def _computed(tokenize: Tokenize, audio: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield recomputed rows of units; skip audio that does not decode, which is reported for the utterance."""
    import soundfile

    for number in range(len(audio)):
        with suppress(soundfile.SoundFileError, ValueError):
            yield from tokenize(with_waveforms(audio.slice(number, 1))).rows.to_pylist()


def tokenizer_of(recipe: Recipe) -> Tokenize | None:
    """Return the shipped tokenizer whose digests match a version of `units`, or None. Its model is not loaded yet."""
    folder = asset(PREFIX)
    languages = (None, *(f"{PREFIX}{path.name}" for path in sorted(folder.glob("unit-language-*.json"))))
    for codebook in sorted(folder.glob("codebook-*.safetensors")):
        for language in languages:
            tokenize = Tokenize(TokenizeParameters(codebook=f"{PREFIX}{codebook.name}", unit_language=language))
            if (recipe.stage, recipe.version, recipe.weights) == (
                tokenize.name,
                tokenize.version,
                tokenize.weight_digests(),
            ):
                return tokenize
    return None


def _sample(dataset: Dataset, recipe: Recipe, shard: str) -> tuple[list[dict[str, Any]], pa.Table]:
    """Return sampled rows of units, the same at every check of a version, and their utterances with audio."""
    with dataset.open(_manifest(dataset, recipe, shard).output.path) as file:
        units = file.read()
    chosen = random.Random(f"{recipe.fingerprint} {shard}").sample(range(len(units)), min(SAMPLE, len(units)))
    units = units.take(pa.array(sorted(chosen), pa.int64()))
    utterances = dataset.recipe(UTTERANCES.name, recipe.upstream[UTTERANCES.name])
    parts = []
    with dataset.open(_manifest(dataset, utterances, shard).output.path) as file:
        for group in range(file.num_row_groups):
            wanted = pc.is_in(file.read_row_group(group, [KEY])[KEY], value_set=units[KEY].combine_chunks())
            if pc.any(wanted).as_py():
                parts.append(file.read_row_group(group, [KEY, "num_samples", "audio"]).filter(wanted))
        audio = pa.concat_tables(parts) if parts else file.schema_arrow.empty_table()
    return units.to_pylist(), audio

"""Any data set that HF `datasets` loads: Parquet with audio bytes, `audiofolder`, a name on the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.dataset.storage import is_url
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.blocks import MAX_RATE, MIN_RATE
from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Item, Source, SourceError, bad_line, check_url
from echo_targets.transforms.sources.record import FIELDS, ColumnNames, Fields, item_from
from echo_targets.transforms.sources.values import BadLine, integer, is_missing, place

if TYPE_CHECKING:
    from datasets import Dataset

ASSUMED_SECONDS = 10.0
CSV_ROWS = 10_000
RATES = ("sampling_rate", "sample_rate")
SAMPLES = (pa.float16(), pa.float32(), pa.float64(), pa.int16())


class HuggingFaceSource(Source):
    """Rows of a data set; the audio is taken undecoded. docs/MANIFESTS.md describes the columns.

    Attributes:
        path, name, revision, data_dir, data_files: as for `datasets.load_dataset`. Relative audio paths start from
            `data_dir`, or else from the data file's folder.
        hf_split: the split of the data set.
        columns: names of its columns if they are not the usual ones, such as {"text": "sentence"}. Without an `id`
            column, the row's number is the id.
        ignore: columns to ignore, although they have a known name.
    """

    listed_in: ClassVar[str] = "path"
    kind: Literal["huggingface"]
    path: str
    name: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: str | list[str] | None = None
    hf_split: str = "train"
    columns: ColumnNames = {}
    ignore: list[str] = []

    def items(self) -> Iterator[Item]:
        dataset, audio = self._load()
        fields = Fields(self.columns, self.ignore)
        numbered = not any(name in dataset.column_names for name in fields.names["id"])
        texts = dataset.remove_columns([audio.column])
        labels = {name: kind.int2str for name, kind in texts.features.items() if hasattr(kind, "int2str")}
        self._ignored.clear()
        records = texts if texts.column_names else repeat({}, len(dataset))  # a Dataset without columns has no rows
        for number, (record, measured) in enumerate(zip(records, audio.measure(dataset), strict=True)):
            where = f"{self.path.rstrip('/').split('/')[-1]}[{self.hf_split}] row {number}"
            self._ignored.update(fields.ignored(record))
            names = {name: label(record[name]) for name, label in labels.items() if record[name] is not None}
            try:
                named = fields(record | names)
                if numbered:
                    named["id"] = ("id", f"{self.corpus}-{self.hf_split}-{number:08d}")
                item = item_from(named, where)
                if isinstance(measured, BadLine):
                    raise measured
            except BadLine as error:
                yield bad_line(where, f"{where}: {error}")
                continue
            size, lasts = measured
            seconds = item.section_seconds or item.declared_seconds or lasts or ASSUMED_SECONDS
            yield replace(item, locator=str(number), size=size, seconds=seconds)

    def open(self, locator: str) -> Raw:
        dataset, audio = self._load()
        raw = audio.raw(dataset.with_format("arrow")[int(locator) : int(locator) + 1])
        return self.files(self._folder()).open(raw) if isinstance(raw, str) else raw

    def _folder(self) -> str:
        """Return the folder that relative audio paths start from.

        Raises:
            SourceError: there is more than one such folder.
        """
        base = self.path if os.path.isdir(self.path) else ""
        if self.data_dir:
            return os.path.join(base, self.data_dir)
        named = [self.data_files] if isinstance(self.data_files, str) else self.data_files or []
        folders = {os.path.join(base, os.path.dirname(name)) for name in named} or {base}
        if len(folders) > 1:
            raise SourceError(
                f"{self.path}: data_files are in several folders, so relative audio paths are ambiguous: set data_dir, "
                "or make a source of each folder"
            )
        return folders.pop() or "."

    def _load(self) -> tuple[Dataset, _Audio]:
        """Return the data set and its audio column."""
        from datasets import Audio

        data_files = tuple(self.data_files) if isinstance(self.data_files, list) else self.data_files
        dataset = _load_dataset(self.path, self.name, self.revision, self.data_dir, data_files, self.hf_split)
        there = ", ".join(dataset.column_names)
        for field, column in self.columns.items():
            if column not in dataset.column_names:
                raise SourceError(f"{self.path}: columns.{field} is {column!r}, but its columns are {there}")
        names = (self.columns["audio"],) if "audio" in self.columns else FIELDS["audio"]
        column = next((name for name in names if name in dataset.column_names), "")
        if not column:
            raise SourceError(
                f"{self.path}: no audio column among {there}; name it in the source's `columns: {{audio: NAME}}`"
            )
        if isinstance(dataset.features[column], Audio):
            dataset = dataset.cast_column(column, Audio(decode=False))
        return dataset, _Audio(dataset, column, self)


@cache
def _load_dataset(
    path: str,
    name: str | None,
    revision: str | None,
    data_dir: str | None,
    data_files: tuple[str, ...] | str | None,
    split: str,
) -> Dataset:
    import datasets
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

    class AudioPath(datasets.Value):
        def __init__(self) -> None:
            super().__init__("string")

    datasets.disable_progress_bars()
    files = list(data_files) if isinstance(data_files, tuple) else data_files
    arguments: dict[str, Any] = {"revision": revision, "data_dir": data_dir, "data_files": files}
    try:
        builder = datasets.load_dataset_builder(path, name, **arguments)
        if isinstance(builder, Csv):
            # Every column is loaded as text: pandas would take "null" for a missing text, and "007" for 7.
            builder = datasets.load_dataset_builder(path, name, nrows=1, **arguments)
            builder.download_and_prepare()
            columns = datasets.Features({column: datasets.Value("string") for column in builder.info.features})
            arguments |= {"features": columns, "keep_default_na": False}
            builder = datasets.load_dataset_builder(path, name, **arguments)
        if isinstance(builder, FolderBasedBuilder):
            # An audio feature needs torchcodec even to store a path, so the paths are stored as strings in a separate
            # cache. So are the columns of a metadata.csv.
            cache = Path(datasets.config.HF_DATASETS_CACHE, "as-written")
            builder = datasets.load_dataset_builder(path, name, cache_dir=str(cache), **arguments)
            builder.BASE_FEATURE = AudioPath
            builder._read_metadata = partial(_read_metadata, builder._read_metadata)
        builder.download_and_prepare()
        return builder.as_dataset(split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = str(error.__cause__ or error)
        if "BatchSize must be greater than 0" in reason:  # datasets' error for a Parquet file without rows
            reason = "a Parquet file has no rows; leave it out of data_files"
        raise SourceError(f"data set {path}: {reason}") from error


def _read_metadata(
    other: Callable[..., Iterator[pa.Table]], metadata_file: str, metadata_ext: str = ""
) -> Iterator[pa.Table]:
    """Yield an `audiofolder`'s metadata.csv with every column as text; other metadata as the builder does."""
    if metadata_ext != ".csv":
        yield from other(metadata_file, metadata_ext)
        return
    import pandas

    for rows in pandas.read_csv(metadata_file, dtype=str, keep_default_na=False, chunksize=CSV_ROWS):
        yield pa.Table.from_pandas(rows, preserve_index=False)


class _Audio:
    """A column of audio: files as bytes or paths, or samples with their rate in another field or column."""

    def __init__(self, dataset: Dataset, column: str, source: HuggingFaceSource) -> None:
        self.column, self._source = column, source
        schema = dataset.features.arrow_schema
        kind = schema.field(column).type
        names = [field.name for field in kind] if pa.types.is_struct(kind) else []
        samples = kind.field("array").type if "array" in names else kind
        self._has_samples = _is_list(samples) and samples.value_type in SAMPLES
        self._fields = names
        rates = [name for name in RATES if name in schema.names]
        self._rate_column = rates[0] if rates and self._has_samples and not names else None
        is_file = _is_text(kind) or _is_bytes(kind) or ("array" not in names and {"bytes", "path"} & set(names))
        if not (is_file or self._has_samples):
            raise SourceError(
                f"{source.path}: column {column} holds {kind}; expected audio bytes, paths, or lists of samples, as "
                "floating-point numbers in [-1, 1] or as int16, with their sampling_rate"
            )

    def measure(self, dataset: Dataset) -> Iterator[tuple[int | None, float | None] | BadLine]:
        """Yield, for each row, its audio's bytes (None for a path) and its seconds if it holds samples."""
        columns = [self.column, *([self._rate_column] if self._rate_column else [])]
        for batch in dataset.select_columns(columns).with_format("arrow").iter(1000):
            data, rates = self._parts(batch)
            lengths = (pc.list_value_length if self._has_samples else pc.binary_length)(data)
            yield from map(self._measured, lengths.to_pylist(), rates.to_pylist(), self._paths(batch))

    def raw(self, row: pa.Table) -> Raw | str:
        """Return the audio of a one-row table, or its locator."""
        data, rates = self._parts(row)
        (path,) = self._paths(row)
        if self._has_samples and not (path and not data[0].is_valid):
            samples = data[0].values.to_numpy(zero_copy_only=False)
            scale = 32768 if data.type.value_type == pa.int16() else 1
            return (samples / scale).astype(np.float32), self._rate(rates[0].as_py())
        return bytes(data[0].as_py()) if data[0].is_valid else place((self.column, path))

    def _measured(self, length: int | None, rate: Any, path: Any) -> tuple[int | None, float | None] | BadLine:
        try:
            if length:
                return length, length / self._rate(rate) if self._has_samples else None
            if length == 0 or is_missing(path):
                return BadLine(f"`{self.column}` holds no audio")
            if is_url(locator := place((self.column, path))):
                check_url(locator, self._source)
            return None, None
        except BadLine as error:
            return error
        except SourceError:
            raise
        except UserError as error:
            return BadLine(str(error))

    def _paths(self, rows: pa.Table) -> list[str | None]:
        """Return the path of each row's audio, or None."""
        audio = self._stored(rows)
        if _is_text(audio.type):
            return audio.to_pylist()
        if "path" not in self._fields:
            return [None] * len(audio)
        return pc.struct_field(audio, "path").to_pylist()

    def _stored(self, rows: pa.Table) -> pa.Array:
        audio = rows[self.column].combine_chunks()
        return audio.storage if isinstance(audio, pa.ExtensionArray) else audio

    def _rate(self, value: Any) -> int:
        rate = integer(("sampling_rate", value), MIN_RATE, MAX_RATE)
        if rate is None:
            raise BadLine(f"`{self.column}` holds samples without a sampling_rate")
        return rate

    def _parts(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return each row's bytes or samples, and the samples' rate."""
        audio = self._stored(rows)
        nothing = pa.nulls(len(audio))
        if self._fields:
            inner = {name: pc.struct_field(audio, name) for name in self._fields}
            data = inner.get("array" if self._has_samples else "bytes", nothing.cast(pa.binary()))
            return data, next((inner[name] for name in RATES if name in inner), nothing)
        if _is_text(audio.type):
            return nothing.cast(pa.binary()), nothing
        return audio, rows[self._rate_column].combine_chunks() if self._rate_column else nothing


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

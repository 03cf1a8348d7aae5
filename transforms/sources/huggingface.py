"""Any data set that HF `datasets` loads: Parquet with audio bytes, `audiofolder`, a name on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from transforms.audio import Raw
from transforms.sources.base import Item, Source, SourceError
from transforms.sources.manifest import ALIASES, BadLine, item_from

if TYPE_CHECKING:
    from datasets import Dataset

ASSUMED_SECONDS = 10.0


class HuggingFaceSource(Source):
    """Rows of a data set, its audio read undecoded.

    Attributes:
        path, name, revision, data_dir, data_files: as `datasets.load_dataset` takes them.
        hf_split: which split of the data set.
        columns: names of its columns where they are not the usual ones, as {"text": "sentence"}. Without an `id`
            column the row's number is the id.
    """

    kind: Literal["huggingface"]
    path: str
    name: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: str | list[str] | None = None
    hf_split: str = "train"
    columns: dict[str, str] = {}

    def items(self) -> Iterator[Item]:
        dataset, names = self._load()
        texts = dataset.remove_columns([column for column in dataset.column_names if column == names["audio"]])
        sizes = _audio_sizes(dataset, names["audio"])
        for number, (record, size) in enumerate(zip(texts, sizes, strict=True)):
            where = f"{self.path.rstrip('/').split('/')[-1]}[{self.hf_split}] row {number}"

            def value(name: str, record: dict[str, Any] = record, number: int = number) -> Any:
                if name == "id" and "id" not in names:
                    return f"{self.corpus}-{self.hf_split}-{number:08d}"
                return record.get(names[name]) if name in names else None

            try:
                item = item_from(value, where)
            except BadLine as error:
                yield Item(id=where, where=where, error_class="bad_line", error=f"{where}: {error}")
                continue
            values = vars(item) | {"locator": str(number), "size": size, "seconds": item.seconds or ASSUMED_SECONDS}
            yield Item(**values)

    def open(self, locator: str) -> Raw:
        dataset, names = self._load()
        audio = dataset[int(locator)][names["audio"]]
        if audio["bytes"] is not None:
            return bytes(audio["bytes"])
        if audio["path"] is None:
            raise FileNotFoundError("the row holds neither audio bytes nor a path")
        return Path(audio["path"])

    def _load(self) -> tuple[Dataset, dict[str, str]]:
        files = tuple(self.data_files) if isinstance(self.data_files, list) else self.data_files
        dataset = _load_dataset(self.path, self.name, self.revision, self.data_dir, files, self.hf_split)
        names: dict[str, str] = {}
        for name, aliases in ALIASES.items():
            for alias in (self.columns[name],) if name in self.columns else aliases:
                if alias in dataset.column_names:
                    names.setdefault(name, alias)
        if "audio" not in names:
            raise SourceError(
                f"{self.path}: no audio column among {', '.join(dataset.column_names)}; name it: columns.audio=NAME"
            )
        from datasets import Audio

        return dataset.cast_column(names["audio"], Audio(decode=False)), names


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
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

    class AudioPath(datasets.Value):
        def __init__(self) -> None:
            super().__init__("string")

    datasets.disable_progress_bars()
    files = list(data_files) if isinstance(data_files, tuple) else data_files
    arguments = {"revision": revision, "data_dir": data_dir, "data_files": files}
    try:
        builder = datasets.load_dataset_builder(path, name, **arguments)
        if isinstance(builder, FolderBasedBuilder):
            # An audio feature wants torchcodec even to note down a path, so the paths are kept as strings, in a cache
            # of their own.
            cache = Path(datasets.config.HF_DATASETS_CACHE, "paths")
            builder = datasets.load_dataset_builder(path, name, cache_dir=str(cache), **arguments)
            builder.BASE_FEATURE = AudioPath
        builder.download_and_prepare()
        return builder.as_dataset(split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise SourceError(f"data set {path}: {error.__cause__ or error}") from error


def _audio_sizes(dataset: Dataset, column: str) -> Iterator[int | None]:
    """Bytes of each row's audio, from the offsets alone; None for audio that is a path."""
    for batch in dataset.with_format("arrow").iter(1000):
        audio = batch[column].combine_chunks()
        if isinstance(audio, pa.ExtensionArray):
            audio = audio.storage
        yield from pc.binary_length(pc.struct_field(audio, "bytes")).to_pylist()

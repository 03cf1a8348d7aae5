"""Audio in the columns of Hugging Face data sets: bytes, paths, samples, and what is none of these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.registry import entries
from tests.transforms.sources.small_sources import TONE, parquet

SHORT = (TONE[:8000]).astype(np.float32)
STRUCT = pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())])
PATHS = pa.struct([*STRUCT, ("path", pa.string())])
FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def sound(folder: Path, kind: pa.DataType, values: list[Any], **columns: list[Any]) -> HuggingFaceSource:
    pytest.importorskip("datasets")
    table = pa.table({"audio": pa.array(values, kind), "text": ["Hi."] * len(values)} | columns)
    pq.write_table(table, folder / "d.parquet")
    return parquet(folder / "d.parquet")


def test_audio_in_every_form(folder: Path) -> None:
    file = (folder / "a.flac").read_bytes()
    in_16_bits = np.rint(SHORT * 32768).astype(np.int16)
    forms: list[tuple[pa.DataType, Any, dict[str, list[Any]]]] = [
        (STRUCT, {"array": SHORT, "sampling_rate": 8000}, {}),
        (pa.list_(pa.float64()), SHORT, {"sampling_rate": [8000, 8000]}),
        (pa.list_(pa.int16()), in_16_bits, {"sample_rate": ["8000", "8000"]}),
        (PATHS, {"array": None, "sampling_rate": 8000, "path": "a.flac"}, {}),
        (PATHS, {"array": SHORT, "sampling_rate": 8000, "path": "gone.flac"}, {}),
        (FILE, {"bytes": file, "path": "x"}, {}),
        (FILE, {"bytes": None, "path": "a.flac"}, {}),
        (pa.string(), "a.flac", {}),
        (pa.string(), (folder / "a.flac").as_uri(), {}),
        (pa.binary(), file, {}),
    ]
    for kind, value, columns in forms:
        source = sound(folder, kind, [value, None], **columns)
        good, null = source.items()
        assert null.error_class == "bad_line" and "row 1: " in str(null.error), null
        assert good.error is None and good.text == "Hi.", good
        opened = source.open(good.locator)
        if isinstance(opened, tuple):
            assert opened[1] == 8000 and opened[0].dtype == np.float32 and good.seconds == 1.0
            assert np.allclose(opened[0], SHORT, atol=1 / 32768)
        else:
            assert (opened if isinstance(opened, bytes) else Path(opened).read_bytes()) == file


@pytest.mark.parametrize(
    ("kind", "value", "columns", "says"),
    [
        (STRUCT, {"array": [0.1], "sampling_rate": None}, {}, "samples without a sampling_rate"),
        (STRUCT, {"array": [0.1], "sampling_rate": 0}, {}, "sampling_rate 0 is outside"),
        (STRUCT, {"array": [], "sampling_rate": 16_000}, {}, "`audio` holds no audio"),
        (STRUCT, {"array": None, "sampling_rate": 16_000}, {}, "`audio` holds no audio"),
        (pa.list_(pa.float32()), [0.1], {}, "samples without a sampling_rate"),
        (pa.list_(pa.float32()), [0.1], {"sampling_rate": ["fast"]}, "sampling_rate 'fast' is not a number"),
        (FILE, {"bytes": None, "path": None}, {}, "`audio` holds no audio"),
        (pa.list_(pa.int64()), [1], {}, r"column audio holds list<.*int64>; expected audio bytes, paths, or lists"),
        (pa.int64(), 1, {}, "column audio holds int64; expected"),
        (pa.list_(pa.list_(pa.float32())), [[0.1]], {}, "expected audio bytes, paths, or lists"),
    ],
)
def test_audio_that_is_none_is_one_message(folder: Path, kind: Any, value: Any, columns: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        list(entries([sound(folder, kind, [value], **columns)]))


def test_data_sets_without_rows_or_columns(folder: Path) -> None:
    with pytest.raises(SourceError, match="a Parquet file has no rows; leave it out"):
        list(entries([sound(folder, pa.string(), [])]))
    source = sound(folder, pa.string(), ["a.flac"])
    with pytest.raises(SourceError, match=r"columns\.text is 'txet', but its columns are audio, text"):
        list(source.model_copy(update={"columns": {"text": "txet"}}).items())
    with pytest.raises(ValidationError, match="'sentence' is not a field"):
        parquet(folder / "d.parquet", columns={"sentence": "text"})

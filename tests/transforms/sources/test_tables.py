"""Cells of tables keep their text: line breaks in quotes, and words that pandas takes for something else."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.manifest import ManifestSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.flac", np.sin(np.arange(2 * SAMPLE_RATE) * 0.05) * 0.3, SAMPLE_RATE)
    return tmp_path


def texts(folder: Path, rows: str | bytes) -> list[str | None]:
    """Texts of a manifest of tab-separated values, or errors in their places."""
    (folder / "m.tsv").write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    source = ManifestSource(kind="manifest", corpus="c", manifest=str(folder / "m.tsv"))
    return [item.error or item.text for item in source.items()]


def test_a_quoted_cell_of_a_tsv_may_hold_line_breaks(folder: Path) -> None:
    """As pandas and spreadsheets write them: the row goes on to the line that closes the cell."""
    pandas = pytest.importorskip("pandas")
    said = ["One.\nTwo.", 'He said:\n\n"No."\n', "Three.", "a\nb\nc"]
    for columns in (["id", "audio", "text"], ["id", "text", "audio"], ["text", "sentence", "id", "audio"]):
        rows = pandas.DataFrame({"id": range(4), "audio": "a.flac", "text": said, "sentence": said})[columns]
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            written = rows.to_csv(sep="\t", index=False, quoting=quoting)
            assert texts(folder, written) == [text.strip() for text in said], (columns, quoting)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        # the mark is a character, and what follows is a row
        (['1\ta.flac\t"One.', "2\ta.flac\tTwo."], ['"One.', "Two."]),
        (["1\ta.flac\tOne.", '2\ta.flac\t"Two.'], ["One.", '"Two.']),
        # nothing closes the cell, or what closes it leaves other columns than the header's
        (['1\ta.flac\t"One.', "and more.", "2\ta.flac\tTwo."], ["lines 2 to 3", "Two."]),
        (['1\ta.flac\t"One.', 'and\tmore."', "2\ta.flac\tTwo."], ["lines 2 to 3", "Two."]),
        (['1\t"a.flac', 'One."', "2\ta.flac\tTwo."], ["lines 2 to 3", "Two."]),
        # a line that is bad by itself
        (['1\ta.flac\t"One.', "\udcff", "2\ta.flac\tTwo."], ["lines 2 to 3", "Two."]),
    ],
)
def test_an_unclosed_quote_in_a_tsv_loses_no_text(folder: Path, rows: list[str], found: list[str]) -> None:
    lines = "\n".join(["id\taudio\ttext", *rows]).encode(errors="surrogateescape")
    for text, want in zip(texts(folder, lines), found, strict=True):
        assert text == want or (want.startswith("lines") and want in str(text) and "quotation mark" in str(text))


NO_NUMBERS = ["NA", "null", "None", "nan", "N/A", "<NA>", "007", "1.0", "True", "1e5", "-"]


@pytest.mark.parametrize("said", [NO_NUMBERS, ["007", "1.0"], ["NA", "null"], ["True", "False"]])
@pytest.mark.parametrize("kind", ["audiofolder", "csv", "folder of csv"])
def test_a_csv_of_a_hugging_face_data_set_keeps_text_as_written(
    folder: Path, tmp_path: Path, kind: str, said: list[str]
) -> None:
    pytest.importorskip("datasets")
    rows = "".join(f"{number}.flac,{number:03},{text},{number}.0,\n" for number, text in enumerate(said))
    data = tmp_path / "data"
    data.mkdir()
    for number in range(len(said) if kind != "folder of csv" else 0):  # which audio files make an audiofolder
        shutil.copy(folder / "a.flac", data / f"{number}.flac")
    name = "metadata.csv" if kind == "audiofolder" else "train.csv"
    (data / name).write_text(f"file_name,id,text,turn,split\n{rows}")
    places: dict[str, dict[str, Any]] = {
        "audiofolder": {"path": "audiofolder", "data_dir": str(data)},
        "csv": {"path": "csv", "data_files": str(data / name)},
        "folder of csv": {"path": str(data), "columns": {"audio": "file_name"}},
    }
    source = HuggingFaceSource(kind="huggingface", corpus="hf", ignore=["turn"], **places[kind])
    found = list(source.items())
    assert [item.error or item.text for item in found] == said
    assert [item.id for item in found] == [f"{number:03}" for number in range(len(said))]

"""webdataset: tar archives, read back by webdataset, every field compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.resume import export
from echo_targets.jobs.export.webdataset import WebDataset
from tests.jobs.export.roots import Turns, pcm_of, root_of_tables

wds = pytest.importorskip("webdataset")

JOINED = ("transcripts", "alignments", "units", "measures", "echo_targets")


def test_every_field_is_read_back(turns: Turns, tmp_path: Path) -> None:
    root, tables = root_of_tables(tmp_path / "root", turns)
    report = export(WebDataset(root.dataset, None, []), [], str(tmp_path / "out"))
    assert report.left_out == {} and report.total == len(turns.rows)
    urls = [line.split("/")[1].removesuffix('")') for line in report.lines]
    assert "train-{000000..000001}.tar" in urls and len(urls) == 2
    samples = [
        sample
        for url in urls
        for sample in wds.WebDataset(str(tmp_path / "out" / url), shardshuffle=False, empty_check=False).decode()
    ]
    found = {sample["json"]["utterance_id"]: sample for sample in samples}
    assert set(found) == set(tables["utterances"]) and len(samples) == len(found)
    for key, row in tables["utterances"].items():
        sample = found[key]
        assert sample["__key__"].rsplit("/", 1)[-1] == safe_name(key)
        np.testing.assert_array_equal(pcm_of(sample["flac"]), pcm_of(row["audio"]["bytes"]))
        record = sample["json"]
        for name, value in row.items():
            if name not in ("audio", "audio_sha256"):
                assert record[name] == value, name
        for table in JOINED:
            own = tables[table].get(key)
            assert record[table] == (own and {name: value for name, value in own.items() if name != "utterance_id"})
        assert record["text"] == row["reference_text"]
        known = {"text", "source_file", *JOINED}
        assert set(record) - known == set(row) - {"audio", "audio_sha256"}


def test_without_a_reference_the_text_is_the_transcript(turns: Turns, tmp_path: Path) -> None:
    for row in turns.rows[:3]:
        assert row["reference_text"]
    bare = [row | {"reference_text": None} for row in turns.rows]
    root, _ = root_of_tables(tmp_path / "root", turns)
    root.put("utterances", bare)
    root.put("transcripts", root.dataset.read("transcripts"))
    export(WebDataset(root.dataset, None, ["split == train"]), ["split == train"], str(tmp_path / "out"))
    url = str(tmp_path / "out" / "train-{000000..000000}.tar")
    for sample in wds.WebDataset(url, shardshuffle=False, empty_check=False).decode():
        transcript = sample["json"]["transcripts"]
        assert sample["json"]["text"] == (transcript and "Hello there.")


def test_a_table_of_other_utterances_is_not_joined(turns: Turns, tmp_path: Path) -> None:
    root, _ = root_of_tables(tmp_path / "root", turns)
    units = root.dataset.read("units")
    root.put("units", units.slice(0, 8), units.slice(8), of={"upstream": {"utterances": "0" * 16}})
    format = WebDataset(root.dataset, None, [])
    assert [source.left_out for source in format.sources] == [["units"]]


def test_a_joined_table_comes_with_what_it_was_made_from(turns: Turns, tmp_path: Path) -> None:
    """Alignments hold places in a transcript, so the transcripts are those that were aligned, not the current ones."""
    root, _ = root_of_tables(tmp_path / "root", turns)
    above = {"upstream": {name: root.tables[name] for name in ("utterances", "transcripts")}}
    for table, of in (("alignments", above), ("transcripts", None)):
        rows = root.dataset.read(table)
        half = len(rows) // 3
        root.put(table, rows.slice(0, half), rows.slice(half), variant="newer", of=of)
    (source,) = WebDataset(root.dataset, None, []).sources
    assert source.versions["alignments"].recipe == root.tables["alignments"]
    assert source.versions["transcripts"].recipe == above["upstream"]["transcripts"] != root.tables["transcripts"]

"""lhotse: Shar folders, read back by lhotse, every field compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echo_targets.jobs.export.lhotse import Lhotse
from echo_targets.jobs.export.resume import export
from tests.jobs.export.roots import RATE, Turns, pcm_of, root_of_tables
from tests.schemas.samples import Row

lhotse = pytest.importorskip("lhotse")

JOINED = ("transcripts", "alignments", "units", "measures", "echo_targets")


@pytest.fixture(scope="module")
def written(turns: Turns, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Row]]]:
    folder = tmp_path_factory.mktemp("lhotse")
    root, tables = root_of_tables(folder / "root", turns)
    report = export(Lhotse(root.dataset, None, []), [], str(folder / "out"))
    assert report.left_out == {} and report.total == len(turns.rows)
    return folder / "out", tables


def cuts_of(out: Path) -> list[Any]:
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    assert len(folders) == 2 and folders[1].name == "train"
    return [cut for folder in folders for cut in lhotse.CutSet.from_shar(in_dir=str(folder))]


def test_every_field_is_read_back(written: tuple[Path, dict[str, dict[str, Row]]]) -> None:
    out, tables = written
    cuts = {cut.custom["utterance_id"]: cut for cut in cuts_of(out)}
    assert set(cuts) == set(tables["utterances"])
    for key, row in tables["utterances"].items():
        cut = cuts[key]
        np.testing.assert_array_equal(cut.load_audio()[0], pcm_of(row["audio"]["bytes"]) / np.float32(32768))
        assert (cut.sampling_rate, cut.num_samples, cut.start) == (RATE, row["num_samples"], 0)
        for name, value in row.items():
            if name not in ("audio", "audio_sha256"):
                assert cut.custom[name] == value, name
        for table in JOINED:
            own = tables[table].get(key)
            expected = own and {name: value for name, value in own.items() if name != "utterance_id"}
            assert cut.custom[table] == expected, table
        (supervision,) = cut.supervisions
        assert supervision.text == row["reference_text"] and supervision.speaker == row["speaker_id"]
        assert supervision.language == row["language"] and supervision.duration == cut.duration
        items = tables["alignments"][key]["items"]
        for word, item in zip(supervision.alignment["word"], items, strict=True):
            assert word.symbol == item["symbol"] and word.score == item["score"]
            assert word.start * RATE == pytest.approx(item["start_sample"], abs=0.01)
            assert word.end * RATE == pytest.approx(item["end_sample"], abs=0.01)


def test_an_unfinished_export_is_refused(turns: Turns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = root_of_tables(tmp_path / "root", turns)
    monkeypatch.setattr(Lhotse, "finish", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(Lhotse(root.dataset, None, []), [], str(tmp_path / "out"))
    assert list((tmp_path / "out" / "train").glob("recording.*.tar")), "all recordings are there"
    with pytest.raises(AssertionError):  # it finds no cuts
        lhotse.CutSet.from_shar(in_dir=str(tmp_path / "out" / "train"))


def test_a_cut_survives_what_lhotse_does_with_cuts(written: tuple[Path, dict[str, dict[str, Row]]]) -> None:
    """Its ids fit its file names, and it can be cut, serialized and validated."""
    out, _ = written
    for cut in cuts_of(out):
        lhotse.validate(cut)
        part = cut.truncate(duration=0.5)
        assert part.load_audio().shape == (1, RATE // 2)
        assert part.custom["units"] == cut.custom["units"]
        assert lhotse.MonoCut.from_dict(cut.to_dict()).supervisions == cut.supervisions

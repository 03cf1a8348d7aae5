"""The speech that tests use where none is recorded, and the lines that tell how it and the skipped tests were."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import speech

ROOT = Path(__file__).parents[1]
SKIPS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_skipped(number):
    pytest.skip("no moon here")

def test_another():
    pytest.importorskip("no_such_package", reason="no_such_package is not installed")

def test_run():
    pass
"""


@pytest.fixture(scope="module")
def made() -> Path:
    return speech.made_folder()


def test_made_speech_has_the_lengths_that_tests_need(made: Path) -> None:
    rows = speech.rows(made)
    lengths = np.array([row["duration"] for row in rows])
    assert len({row["id"] for row in rows}) == len(rows) > 60 and lengths.min() < 2 and 24 < lengths.max() < 30
    for low, high, count in [(0, 4, 10), (3, 5, 8), (5, 6, 5), (6, 8, 6), (8, 12, 15), (15, 30, 12)]:
        assert sum((low <= lengths) & (lengths < high)) >= count, (low, high)
    speakers = Counter(row["speaker"] for row in rows)
    assert sum(count == 10 for count in speakers.values()) == 6 and len(speakers) > 24
    assert sum(row["duration"] for row in rows if row["speaker"] == rows[0]["speaker"]) > 60


def test_made_speech_is_what_its_manifest_says(made: Path) -> None:
    levels = set()
    for row in speech.rows(made):
        sound, rate = soundfile.read(row["audio"])
        assert rate == row["sample_rate"] == 16_000 and len(sound) == round(row["duration"] * rate)
        levels.add(round(20 * np.log10(np.sqrt(np.mean(sound**2))) / 3))
        assert set(row["text"]) <= set("abcdefghijklmnopqrstuvwxyz' ") and row["text"] == row["text"].strip()
    assert len(levels) >= 3, "loud and quiet"


def test_rows_of_both_kinds_have_the_same_columns(made: Path) -> None:
    texts = dict.fromkeys(("id", "text", "speaker", "split"), str)
    kinds = texts | {"audio": type(made), "duration": float, "sample_rate": int}
    for folder in (made, speech.folder()):  # the same folder twice where no speech is recorded
        row = speech.rows(folder)[0]
        assert {name: type(value) for name, value in row.items()} == kinds


def test_of_many_that_need_the_speech_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "ROOT", tmp_path)
    monkeypatch.setattr(speech, "CHAPTERS", 0)
    monkeypatch.setattr(speech, "OTHERS", (2, 3))
    calls, speak = [], speech.speak

    def counted(lines: list[speech.Line], folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt  # what was begun is never taken for the whole
        speak(lines, folder)

    monkeypatch.setattr(speech, "speak", counted)
    with pytest.raises(KeyboardInterrupt):
        speech.made_folder()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(speech.made_folder())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 2 and len(set(found)) == 1 and len(found) == 3
    assert [len(speech.rows(folder)) for folder in found] == [2, 2, 2]
    monkeypatch.setattr(speech, "OTHERS", (2, 4))
    assert speech.made_folder() != found[0], "another script is another folder"


@pytest.mark.parametrize("options", [("-n0", "-ra"), ("-n2", "-q")])
def test_the_last_lines_say_what_was_skipped_and_why(tmp_path: Path, options: tuple[str, str]) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_some.py").write_text(SKIPS)
    (tmp_path / "test_none.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        *options,
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    *_, kind, skipped, closing = run.stdout.strip().splitlines()
    assert kind.startswith("speech: "), run.stdout + run.stderr
    assert skipped.startswith("4 skipped: 2 x test (no moon here); ")
    assert "1 x test (no_such_package is not installed)" in skipped
    assert "1 x all of test_none.py (could not import 'no_such_package'" in skipped
    assert "1 passed, 4 skipped in " in closing

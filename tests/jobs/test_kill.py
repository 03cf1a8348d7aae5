"""Two workers, killed at six moments and run again each time, leave what one that is not disturbed leaves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from echo_targets.schemas.dataset.check import check_dataset

REPOSITORY = Path(__file__).parents[2]
KILLS = 6


@pytest.fixture(scope="module")
def manifest(speech: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("kill")
    chosen = [row for row in speech if row["duration"] < 5][:6]
    turns = [{"dialogue_id": f"d{place // 2}", "turn": place % 2} for place in range(len(chosen))]
    lines = [
        json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"], **turn})
        for row, turn in zip(chosen, turns, strict=True)
    ]
    (folder / "m.jsonl").write_text("\n".join([*lines, "a bad line"]))
    return folder / "m.jsonl"


def start(manifest: Path, root: Path, workers: int) -> subprocess.Popen[bytes]:
    options = [f"manifest={manifest}", f"root={root}", f"workers={workers}", "shard_hours=0.002"]
    arguments = [sys.executable, "-m", "echo_targets.jobs.cli", "run", "folder", *options, "max_reject_fraction=1"]
    return subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root: Path = tmp_path_factory.mktemp("undisturbed") / "out"
    process = start(manifest, root, 1)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output.decode()
    assert list(check_dataset(str(root))) == []
    return digests(root)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_six_kills(manifest: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "out"
    kills = 0
    for kill in range(1, KILLS + 1):
        process = start(manifest, root, 2)
        wanted = len(undisturbed) * kill // (KILLS + 1)  # a moment further on each time, by what is on disk
        while process.poll() is None and len([path for path in root.rglob("*") if path.is_file()]) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == KILLS
    process = start(manifest, root, 2)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output.decode()
    assert digests(root) == undisturbed
    assert os.path.exists(root / "index.json")

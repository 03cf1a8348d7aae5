"""Real speech through every stage on every engine: the same bytes in every file (two workers: `test_kill.py`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.units.language import UnitLanguage
from tests.pipeline.stand_ins import files

REPOSITORY = Path(__file__).parents[2]
WAYS = {
    "ray, one node": ["runner=ray", "ray.max_workers=1"],
    "beam in memory": ["runner=beam"],
    "beam, two processes": ["runner=beam", "beam.direct_running_mode=multi_processing", "beam.direct_num_workers=2"],
    "beam portable": ["runner=beam", "beam.runner=PortableRunner", "beam.job_endpoint=embed"],
}


@pytest.fixture(scope="module")
def manifest(speech: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runners")
    chosen = [row for row in speech if row["duration"] < 4][:6]
    turns = [{"dialogue_id": f"d{place // 2}", "turn": place % 2} for place in range(len(chosen))]
    lines = [
        json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"], **turn})
        for row, turn in zip(chosen, turns, strict=True)
    ]
    (folder / "m.jsonl").write_text("\n".join([*lines, "a bad line", json.dumps({"id": "lost", "audio": "lost.wav"})]))
    return folder / "m.jsonl"


def run(manifest: Path, root: Path, *options: str) -> dict[str, bytes]:
    """What the job leaves, every file of it."""
    given = [f"manifest={manifest}", f"root={root}", "shard_hours=0.002", "max_reject_fraction=1", *options]
    done = subprocess.run(
        [sys.executable, "-m", "echo_targets.jobs.cli", "run", "folder", *given],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout
    return files(root)


@pytest.fixture(scope="module")
def straight(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One worker of this machine."""
    root: Path = tmp_path_factory.mktemp("straight") / "root"
    made = run(manifest, root)
    assert list(check_dataset(str(root))) == []
    assert len([path for path in made if path.endswith(".parquet")]) >= 8 * 3
    return made


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes(way: str, manifest: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    made = run(manifest, tmp_path / "root", *WAYS[way])
    assert made.keys() == straight.keys()
    assert [path for path in made if made[path] != straight[path]] == []


@pytest.fixture
def three_raylets() -> Iterator[str]:
    """The address of a cluster of three nodes, all on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_the_same_bytes_of_three_raylets(
    manifest: Path, straight: dict[str, bytes], tmp_path: Path, three_raylets: str
) -> None:
    assert run(manifest, tmp_path / "root", "runner=ray", f"ray.address={three_raylets}") == straight


@pytest.fixture
def root(straight: dict[str, bytes], tmp_path: Path) -> Path:
    """A copy of what one worker left."""
    for path, data in straight.items():
        (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / path).write_bytes(data)
    return tmp_path / "root"


@pytest.mark.slow
def test_fitting_anywhere_gives_the_same_files(root: Path, tmp_path: Path) -> None:
    found: dict[str, set[bytes]] = {"words.json": set(), "book.safetensors": set()}
    for number, options in enumerate((["workers=2"], WAYS["beam, two processes"])):
        copy = shutil.copytree(root, tmp_path / f"copy{number}")
        words = ["fit-unit-language", str(copy), str(tmp_path / "words.json"), "--vocab-size", "200"]
        book = ["fit-codebook", str(copy), str(tmp_path / "book.safetensors"), "--size", "8", "--max-frames", "200"]
        for command in (words, book):
            given = [sys.executable, "-m", "echo_targets.jobs.cli", *command, *options]
            done = subprocess.run(given, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        for name, contents in found.items():
            contents.add((tmp_path / name).read_bytes())
    assert {name: len(contents) for name, contents in found.items()} == {"words.json": 1, "book.safetensors": 1}
    units = [row for (row,) in Dataset(str(root)).read("units")["units"].to_pylist()]
    assert UnitLanguage.load(tmp_path / "words.json") == UnitLanguage.fit(units, num_units=100, vocab_size=200)

"""What breaks outside of the program: a driver that dies at the worst moment, a full disk, memory that is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from echo_targets.pipeline.job import JobFailed
from echo_targets.pipeline.runners.base import Failed
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.schemas.dataset.check import check_dataset
from tests.pipeline.stand_ins import Double, Follow, Inline, files, ids, job, stage

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the job when nothing happens to it."""
    root = tmp_path_factory.mktemp("straight")
    list(job(root, stage(Double), stage(Follow)).run(Inline()))
    return files(root)


@pytest.mark.parametrize("table", ["utterances", "transcripts", "alignments"])
def test_the_driver_is_killed_between_a_shard_and_its_manifest(
    tmp_path: Path, straight: dict[str, bytes], table: str
) -> None:
    script = f"""
import os, signal
from pathlib import Path
from echo_targets.pipeline import commit
from tests.pipeline.stand_ins import Double, Follow, Inline, ids, job, stage

write = commit.write_whole
def dying(dataset, path, data):
    if path.startswith({table!r}) and path.endswith(ids(Path({str(tmp_path)!r}))[1] + ".json"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(dataset, path, data)
commit.write_whole = dying
list(job(Path({str(tmp_path)!r}), stage(Double), stage(Follow)).run(Inline()))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False)
    assert done.returncode == -9
    left = {path.rpartition("/")[2] for path in files(tmp_path) if path.startswith(table)}
    second = ids(tmp_path)[1]
    assert f"{second}.parquet" in left and f"{second}.json" not in left
    list(job(tmp_path, stage(Double), stage(Follow)).run(Inline()))
    assert files(tmp_path) == straight
    assert list(check_dataset(str(tmp_path))) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 KiB in memory: enough for the plan, too little for all tables."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk: Path, straight: dict[str, bytes]) -> None:
    failures: list[Failed] = []
    work = job(small_disk, stage(Double), stage(Follow))
    with LocalRunner(1) as runner, pytest.raises((JobFailed, OSError), match="No space left on device"):
        for event in work.run(runner):
            failures += [event] if isinstance(event, Failed) else []
    assert sum(failure.final for failure in failures) * 3 == len(failures) > 0, "each was tried three times"
    assert 3 < len([path for path in files(small_disk) if path in straight]) < len(straight)
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    with LocalRunner(1) as runner:
        list(job(small_disk, stage(Double), stage(Follow)).run(runner))
    assert files(small_disk) == straight


def test_memory_that_is_refused(tmp_path: Path) -> None:
    """A process gets half a gigabyte more and no further; a batch that wants more is halved until it fits."""
    script = f"""
import os, resource
from pathlib import Path
from echo_targets.pipeline.worker_transform import loaded_transform
from tests.pipeline.stand_ins import Greedy, Inline, job, stage

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * os.sysconf("SC_PAGE_SIZE") + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
list(job(Path({str(tmp_path / "bounded")!r}), stage(Greedy, 600.0)).run(Inline()))
assert loaded_transform().refused >= 1
"""
    alone = os.environ | {"MALLOC_ARENA_MAX": "1"}  # else each thread reserves an arena of 64 MiB
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, env=alone)
    list(job(tmp_path / "free", stage(Double, 600.0)).run(Inline()))
    assert files(tmp_path / "bounded") == files(tmp_path / "free")

"""What gc would delete, what it deletes, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from echo_targets.jobs.commands import gc
from echo_targets.pipeline.lease import Busy, Lease
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.dataset.storage import Folder
from tests.pipeline.stand_ins import Double, Follow, Inline, files, job, stage
from tests.schemas.samples import key


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two versions of what comes after the utterances, and things that killed processes left."""
    root = tmp_path / "root"
    for word in ("yes", "no"):
        work = job(root, stage(Double, word=word, refuses=[key(3)]), stage(Follow), allowed=0.5)
        list(work.run(Inline()))
    return root


def garbage_in(root: Path) -> list[str]:
    """Things of every kind that gc removes."""
    current = Dataset(str(root)).tables()["transcripts"]
    left = [
        "index.json.tmp-1",
        "lease/000001.json.tmp-2",
        f"transcripts/{current}/part-00000-of-00003.parquet.tmp-3",
        f"transcripts/{current}/part-00000-of-00003.attempt.json",
        f"retry/transcripts/{current}/part-00000-of-00003.json",
    ]
    for path in left:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"{}")
    return left


def kept_in(root: Path) -> list[str]:
    """Things that are none of gc's business."""
    kept = [
        "README.md",
        "corpus/notes.tmp-1",
        f"transcripts/{Dataset(str(root)).tables()['transcripts']}/part-00007-of-00003.attempt.json",  # not committed
        "mine/0123456789abcdef/part-00000-of-00001.parquet",
    ]
    for path in kept:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"{}")
    return kept


def test_it_deletes_what_it_said_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions, current = Dataset(str(root)).versions(), Dataset(str(root)).tables()
    assert {name: len(found) for name, found in versions.items()} == {
        "entries": 1,
        "utterances": 1,
        "transcripts": 2,
        "alignments": 2,
    }
    left, kept = garbage_in(root), kept_in(root)
    before = files(root)
    assert gc.gc_command(str(root), yes=False) == 0
    assert files(root) == before, "it only says what it would do"
    said = capsys.readouterr().out
    assert "Run again with --yes to delete" in said and "rejects/double/" in said and "not current; " in said
    assert gc.gc_command(str(root), yes=True) == 0
    after = files(root)
    assert before.keys() - after.keys() == {
        path for path in before if path in left or (path.count("/") > 1 and not _of(path, current) and path not in kept)
    }
    assert set(kept) <= after.keys() and not list(root.rglob("lease/*"))
    assert all(path.is_file() or any(path.iterdir()) for path in root.rglob("*/*")), "no empty folder of a version"
    assert Dataset(str(root)).versions() == {name: [fingerprint] for name, fingerprint in current.items()}
    assert list(check_dataset(str(root))) == []
    capsys.readouterr()
    assert gc.gc_command(str(root), yes=False) == 0
    assert "Nothing to delete." in capsys.readouterr().out


def _of(path: str, current: dict[str, str]) -> bool:
    return any(f"/{fingerprint}/" in path for fingerprint in current.values())


def test_what_a_current_version_was_made_from_stays(root: Path) -> None:
    """Transcripts are made anew, alignments are not: those of the older transcripts stay current."""
    list(job(root, stage(Double, word="maybe")).run(Inline()))
    dataset = Dataset(str(root))
    used = dataset.stage("alignments", dataset.tables()["alignments"]).upstream["transcripts"]
    assert used != dataset.tables()["transcripts"]
    gc.gc_command(str(root), yes=True)
    assert set(dataset.versions()["transcripts"]) == {used, dataset.tables()["transcripts"]}


class Killed(BaseException):
    """The end of the process."""


def test_a_kill_leaves_no_shard_that_counts_without_its_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(str(root))
    delete, survived = Folder.delete, 0
    while any(garbage.what for garbage in gc.find_garbage(dataset)):
        left = [1]

        def once(storage: Folder, path: str, left: list[int] = left) -> None:
            if not path.startswith("lease/"):
                if not left:
                    raise Killed
                left.pop()
            delete(storage, path)

        with monkeypatch.context() as patched, pytest.raises(Killed) if survived < 12 else _nothing():
            if survived < 12:
                patched.setattr(Folder, "delete", once)
            gc.gc_command(str(root), yes=True)
        survived += 1
        for table, versions in dataset.versions().items():
            for version in versions:
                for manifest in dataset.committed(table, version, 3).values():
                    for entry in (manifest.output, manifest.rejects):
                        assert entry is None or (root / entry.path).is_file(), entry
    assert survived == 13 and list(check_dataset(str(root))) == []


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_it_does_not_follow_links_out_of_the_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    (root / "units").mkdir()
    outside.mkdir()
    (outside / "part-00000-of-00001.parquet").write_bytes(b"precious")
    os.symlink(outside, root / "units" / "0123456789abcdef")
    gc.gc_command(str(root), yes=True)
    assert (outside / "part-00000-of-00001.parquet").read_bytes() == b"precious"


def test_it_refuses_beside_a_driver_and_without_an_index(root: Path) -> None:
    before = files(root)
    with Lease(Dataset(str(root))) as lease:
        list(lease.take("refuse"))
        with pytest.raises(Busy):
            gc.gc_command(str(root), yes=True)
    assert files(root) == before
    (root / "index.json").unlink()
    with pytest.raises(LayoutError, match="root of a finished run"):
        gc.gc_command(str(root), yes=True)

"""What gc would delete, what it deletes, and what it leaves alone."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from echo_targets.jobs.commands import gc
from echo_targets.jobs.commands.label import label_command
from echo_targets.pipeline.job import JobFailed
from echo_targets.pipeline.lease import Busy, Lease
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.dataset.storage import Folder
from tests.pipeline.stand_ins import Double, Follow, Inline, Listen, entries_of, files, ids, in_shards, job, stage
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
    current = Dataset(str(root)).tables()["transcripts"].recipe
    left = [
        "index.json.tmp-1",
        "lease/000001.json.tmp-2",
        f"transcripts/{current}/{ids(root)[0]}.parquet.tmp-3",
        f"transcripts/{current}/{ids(root)[0]}.attempt.json",
        f"snapshots/{'0' * 16}.json",
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
        "mine/0123456789abcdef/part.parquet",
    ]
    for path in kept:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"{}")
    return kept


def test_it_deletes_what_it_said_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = Dataset(str(root)).recipes()
    current = {table: version.recipe for table, version in Dataset(str(root)).tables().items()}
    assert {name: len(found) for name, found in versions.items()} == {
        "entries": 1,
        "utterances": 1,
        "transcripts": 2,
        "alignments": 2,
    }
    left, kept = garbage_in(root), kept_in(root)
    before = files(root)
    assert gc.gc_command(str(root), False, 0.0) == 0
    assert files(root) == before, "it only says what it would do"
    said = capsys.readouterr().out
    assert "Run again with --yes to delete" in said and "rejects/double/" in said and "no kept version" in said
    assert gc.gc_command(str(root), True, 0.0) == 0
    after = files(root)
    assert before.keys() - after.keys() == {
        path for path in before if path in left or (path.count("/") > 1 and not _of(path, current) and path not in kept)
    }
    assert set(kept) <= after.keys() and not list(root.rglob("lease/*"))
    assert all(path.is_file() or any(path.iterdir()) for path in root.rglob("*/*")), "no empty folder of a version"
    assert Dataset(str(root)).recipes() == {name: [fingerprint] for name, fingerprint in current.items()}
    assert list(check_dataset(str(root))) == []
    capsys.readouterr()
    assert gc.gc_command(str(root), False, 0.0) == 0
    assert "Nothing to delete." in capsys.readouterr().out


def _of(path: str, current: dict[str, str]) -> bool:
    return any(f"/{fingerprint}/" in path for fingerprint in current.values())


def test_what_a_current_version_was_made_from_stays(root: Path) -> None:
    """Transcripts are made anew, alignments are not: those of the older transcripts stay current."""
    list(job(root, stage(Double, word="maybe")).run(Inline()))
    dataset = Dataset(str(root))
    used = dataset.recipe("alignments", dataset.tables()["alignments"].recipe).upstream["transcripts"]
    current = dataset.tables()["transcripts"].recipe
    assert used != current
    gc.gc_command(str(root), True, 0.0)
    assert set(dataset.recipes()["transcripts"]) == {used, current}


def test_what_was_current_lately_or_has_a_label_stays(root: Path) -> None:
    dataset = Dataset(str(root))
    before = dataset.tables()
    label_command(str(root), "first", remove=False)
    list(job(root, stage(Double, word="maybe"), stage(Follow)).run(Inline()))
    gc.gc_command(str(root), True, 1.0)
    assert len(dataset.recipes()["transcripts"]) == 3, "all were current less than an hour ago"
    gc.gc_command(str(root), True, 0.0)
    assert len(dataset.recipes()["transcripts"]) == 2
    assert len(dataset.read("transcripts", version=before["transcripts"])) == 11
    label_command(str(root), "first", remove=True)
    gc.gc_command(str(root), True, 0.0)
    assert len(dataset.recipes()["transcripts"]) == 1 and list(check_dataset(str(root))) == []


def test_of_two_snapshots_one_goes(tmp_path: Path) -> None:
    """Shards that both have stay."""
    for rows in (40, 46):
        list(replace(job(tmp_path), plan=in_shards(entries_of(rows), 8), stages=two()).run(Inline()))
    dataset = Dataset(str(tmp_path))
    there = {path for path in files(tmp_path) if path.endswith(".parquet")}
    gc.gc_command(str(tmp_path), True, 0.0)
    left = {path for path in files(tmp_path) if path.endswith(".parquet")}
    assert {path.rpartition("/")[2].partition(".")[0] for path in left} == set(ids(tmp_path)) and left < there
    assert dataset.snapshots() == [dataset.current("entries").snapshot]
    assert len(dataset.read("transcripts")) == 46 and list(check_dataset(str(tmp_path))) == []


def test_what_a_stopped_job_has_committed_stays(root: Path) -> None:
    """Of the current corpus: the same command goes on from there. It goes with a grace of nothing."""
    with pytest.raises(JobFailed):
        list(job(root, stage(Double, word="maybe", unreachable=[key(11)]), stage(Follow)).run(Inline()))
    dataset = Dataset(str(root))
    (recipe,) = [r for r in dataset.recipes_of("transcripts") if 0 < len(dataset.there("transcripts", r)) < 3]
    gc.gc_command(str(root), True, 1e-9)
    assert len(dataset.there("transcripts", recipe)) == 2
    note = root / "transcripts" / recipe / f"{ids(root)[2]}.attempt.json"
    assert note.exists()
    gc.gc_command(str(root), True, 0.0)
    assert recipe not in dataset.recipes_of("transcripts")


def two() -> list[StageSpec]:
    return [stage(Listen), stage(Double)]


class Killed(BaseException):
    """The end of the process."""


def test_a_kill_leaves_no_shard_that_counts_without_its_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(str(root))
    delete, survived = Folder.delete, 0
    while any(garbage.what for garbage in gc.find_garbage(dataset, timedelta(0))):
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
            gc.gc_command(str(root), True, 0.0)
        survived += 1
        for table, recipes in dataset.recipes().items():
            for recipe in recipes:
                for manifest in dataset.committed(table, recipe, ids(root)).values():
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
    (outside / "part.parquet").write_bytes(b"precious")
    os.symlink(outside, root / "units" / "0123456789abcdef")
    gc.gc_command(str(root), True, 0.0)
    assert (outside / "part.parquet").read_bytes() == b"precious"


def test_it_refuses_beside_a_driver_and_without_an_index(root: Path) -> None:
    before = files(root)
    with Lease(Dataset(str(root))) as lease:
        list(lease.take("refuse"))
        with pytest.raises(Busy):
            gc.gc_command(str(root), True, 0.0)
    assert files(root) == before
    (root / "index.json").unlink()
    with pytest.raises(LayoutError, match="root of a finished run"):
        gc.gc_command(str(root), True, 0.0)

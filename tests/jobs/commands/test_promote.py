"""Versions made current again, and names for versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_targets.jobs.commands.label import label_command
from echo_targets.jobs.commands.promote import promote_command
from echo_targets.pipeline.job import JobFailed
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.errors import UserError
from tests.pipeline.stand_ins import Double, Follow, Inline, files, job, stage, texts
from tests.schemas.samples import key


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two versions of what follows the utterances; the second is current."""
    for word in ("yes", "no"):
        list(job(tmp_path, stage(Double, word=word), stage(Follow)).run(Inline()))
        if word == "yes":
            label_command(str(tmp_path), "yes", remove=False)
    return tmp_path


def test_a_label_makes_all_its_tables_current(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = Dataset(str(root)).tables()
    assert promote_command(str(root), "yes") == 0
    before = Dataset(str(root)).tables()
    assert "hello there yes" in next(iter(texts(root).values()))
    assert [table for table in before if before[table] != after[table]] == ["transcripts", "alignments"]
    said = capsys.readouterr().out
    assert f"transcripts: {before['transcripts']} is current now, before {after['transcripts']}" in said
    assert list(check_dataset(str(root))) == [] and "README.md" in files(root)


def test_a_version_brings_what_it_was_made_from_and_nothing_else(root: Path) -> None:
    dataset = Dataset(str(root))
    after = dataset.tables()
    (old,) = set(dataset.recipes()["alignments"]) - {after["alignments"].recipe}
    promote_command(str(root), old[:6])
    assert dataset.tables()["alignments"].recipe == old
    assert "hello there yes" in next(iter(texts(root).values())), "its transcripts, too"
    promote_command(str(root), str(after["transcripts"]))
    assert dataset.tables()["alignments"].recipe == old and dataset.tables()["transcripts"] == after["transcripts"]


def test_what_is_not_whole_or_not_there_is_refused(root: Path) -> None:
    with pytest.raises(JobFailed):
        list(job(root, stage(Double, word="maybe", unreachable=[key(2)])).run(Inline()))
    before = files(root)
    dataset = Dataset(str(root))
    known = {tables["transcripts"].recipe for tables in [dataset.tables(), dataset.index().labels["yes"]]}  # type: ignore[union-attr]
    (partial,) = set(dataset.recipes()["transcripts"]) - known
    for name in (partial, "nobody", "ffff"):
        with pytest.raises(LayoutError, match=f"{name} names 0 whole versions"):
            promote_command(str(root), name)
    with pytest.raises(LayoutError, match="no label nobody; labels are yes"):
        label_command(str(root), "nobody", remove=True)
    for name in ("", "a b", "../x", "-x", "0123456789abcdef"):
        with pytest.raises(UserError, match="is no label"):
            label_command(str(root), name, remove=False)
    assert files(root) == before


def test_an_empty_root_has_nothing_to_name(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="root of a finished run"):
        label_command(str(tmp_path), "x", remove=False)
    with pytest.raises(LayoutError, match="root of a finished run"):
        promote_command(str(tmp_path), "x")
    assert files(tmp_path) == {}

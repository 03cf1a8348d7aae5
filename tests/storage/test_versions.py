"""Versions of targets in a bucket: compared, retried, made current again and deleted as in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from echo_targets.jobs.commands import gc
from echo_targets.jobs.commands.label import label_command
from echo_targets.jobs.commands.promote import promote_command
from echo_targets.jobs.versions.difference import difference
from echo_targets.jobs.versions.side_by_side import side
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import files, ids
from tests.pipeline.test_growth import corpus, job, planned, run
from tests.schemas.samples import key
from tests.storage.object_store import Network


def test_in_a_bucket(network: Network, bucket: str, tmp_path: Path) -> None:
    root: Any = f"s3://{bucket}/root"
    dataset = Dataset(root)
    rows, more = corpus(24), corpus(4, first=200)
    run(job(root, rows, word="no"))
    run(job(root, rows, refuses=[key(3)]))
    (old,) = set(dataset.recipes()["transcripts"]) - {dataset.tables()["transcripts"].recipe}
    found = difference(side(f"{root}@{old}", "transcripts", ""), side(root, "transcripts", ""))
    assert (found.changed, found.gone, found.gone_why) == (23, 1, {"too_dull": 1})
    assert gc.gc_command(root, True, 0.0) == 0
    assert len(dataset.recipes()["transcripts"]) == len(dataset.recipes()["alignments"]) == 1
    label_command(root, "before", remove=False)
    _, computed = run(job(root, planned([*rows, *more], **{key(3): 1})))
    assert len(computed) == 4 + 2
    run(job(tmp_path, planned([*rows, *more], **{key(3): 1})))
    local = {path: data for path, data in files(tmp_path).items() if path.rpartition("/")[2][:16] in ids(tmp_path)}
    assert len(local) > 15 and {path: dataset.storage.read(path) for path in local} == local
    promote_command(root, "before")
    assert len(dataset.read("transcripts")) == 23
    assert gc.gc_command(root, True, 0.0) == 0 and list(check_dataset(root)) == []

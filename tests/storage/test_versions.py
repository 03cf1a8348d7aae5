"""Versions of targets in a bucket: compared, tried again and deleted as in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from echo_targets.jobs.commands import gc
from echo_targets.jobs.versions.difference import difference
from echo_targets.jobs.versions.parts import side
from echo_targets.schemas.dataset.layout import ASIDE, Dataset
from tests.jobs.commands.test_retry import all_but, job, retry, run
from tests.pipeline.stand_ins import files
from tests.schemas.samples import key
from tests.storage.object_store import Network


def test_in_a_bucket(network: Network, bucket: str, tmp_path: Path) -> None:
    root: Any = f"s3://{bucket}/root"
    dataset = Dataset(root)
    run(job(root, word="no"))
    run(job(root, refuses=[key(3)]))
    (old,) = set(dataset.versions()["transcripts"]) - {dataset.tables()["transcripts"]}
    found = difference(side(f"{root}@{old}", "transcripts", ""), side(root, "transcripts", ""))
    assert (found.changed, found.gone, found.gone_why) == (11, 1, {"too_dull": 1})
    assert gc.gc_command(root, yes=True) == 0
    assert len(dataset.versions()["transcripts"]) == len(dataset.versions()["alignments"]) == 1
    assert retry(job(root, raises=all_but(3))) == [1]
    run(job(tmp_path))
    local = {path: data for path, data in files(tmp_path).items() if "part-" in path}
    assert {path: dataset.storage.read(path) for path in local} == local
    assert gc.gc_command(root, yes=True) == 0 and not dataset.storage.find(ASIDE)

"""Real speech in a corpus that grows, shrinks and is mended, on local workers and on Ray: what runs, and the bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import load
from echo_targets.pipeline.job import Job, StageReport
from echo_targets.pipeline.runners.base import Runner
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import files, ids

SHARD_HOURS = 0.004


class Corpus:
    """A manifest with its audio, which a test changes."""

    def __init__(self, folder: Path, speech: list[dict[str, Any]]) -> None:
        self.folder = folder
        folder.mkdir()
        self.rows = [{"id": row["id"], "audio": str(row["audio"]), "text": row["text"]} for row in speech]
        self.root = folder / "root"

    def job(self, root: str = "root", **overrides: Any) -> Job:
        manifest, config = self.folder / "m.jsonl", self.folder / "c.yaml"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        source = f"{{kind: manifest, corpus: calls, manifest: {manifest}}}"
        config.write_text(
            f"root: {self.folder}/{root}\nshard_hours: {SHARD_HOURS}\nstages:\n  ingest: {{sources: [{source}]}}\n"
            "  measure:\n  tokenize:\n  publish_t2c: {min_chars_per_s: null}\n"
        )
        return job_of(load(str(config), [f"{name}={value}" for name, value in overrides.items()]))


def run(work: Job, runner: Runner) -> dict[str, int]:
    """The shards that each stage ran."""
    reports = [event for event in work.run(runner) if isinstance(event, StageReport)]
    return {report.recipe.stage: report.shards_run for report in reports}


def there(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.rglob("*.parquet")}


@pytest.fixture(params=["local", "ray"])
def runner(request: pytest.FixtureRequest) -> Any:
    made = load("folder", ["manifest=x", "root=x", f"runner={request.param}", "ray.max_workers=1"]).open_runner()
    with made as opened:
        yield opened


@pytest.mark.slow
def test_each_change_computes_its_own_shards(tmp_path: Path, speech: list[dict[str, Any]], runner: Runner) -> None:
    short = sorted(speech, key=lambda row: row["duration"])
    corpus = Corpus(tmp_path / "corpus", short[:24])
    run(corpus.job(), runner)
    seen = set(ids(corpus.root))
    assert len(seen) >= 4

    def changed(what: str, rows: int, **overrides: Any) -> None:
        """Run again: `rows` rows are computed, all in shards that are new, whose number depends on their digests.

        A shard that takes back the rows of an earlier version is there already, and does not run.
        """
        before = there(corpus.root)
        job = corpus.job(**overrides)
        assert {stage.rows - stage.unchanged for stage in list(job.preview())[1:]} == {rows}, what
        ran = run(job, runner)
        fresh = len(set(ids(corpus.root)) - seen)
        seen.update(ids(corpus.root))
        assert ran == {"ingest": fresh, "measure": fresh, "tokenize": fresh, "publish_t2c": fresh}, what
        assert there(corpus.root).items() >= before.items(), f"{what}: a shard that was there was touched"

    changed("nothing", 0)
    rows = [{"id": row["id"], "audio": str(row["audio"]), "text": row["text"]} for row in short[24:36]]
    corpus.rows += rows[:10]
    changed("ten files appended", 10)
    if isinstance(runner, LocalRunner):  # Ray's workers run the same code, and each pass costs seconds
        corpus.rows.insert(12, rows[10])
        changed("one inserted", 1)
        del corpus.rows[20]
        changed("one removed", 0)
    audio, rate = soundfile.read(corpus.rows[5]["audio"])
    soundfile.write(corpus.folder / "mended.flac", audio[: len(audio) * 3 // 4], rate)
    corpus.rows[5]["audio"] = "mended.flac"
    changed("one mended", 1)
    if isinstance(runner, LocalRunner):
        corpus.rows[6]["text"] = "other words were said"
        changed("a text", 1)
    shards = len(ids(corpus.root))
    if isinstance(runner, LocalRunner):
        ran = run(corpus.job(**{"stages.publish_t2c.max_segment_seconds": 7.0}), runner)
        assert ran == {"ingest": 0, "measure": 0, "tokenize": 0, "publish_t2c": shards}, "a threshold"
        run(corpus.job(), runner)
    run(corpus.job("fresh"), runner)
    wanted = set(ids(corpus.root))
    grown, fresh = (
        {path: data for path, data in files(root).items() if path.rpartition("/")[2].partition(".")[0] in wanted}
        for root in (corpus.root, corpus.folder / "fresh")
    )
    assert {path: data for path, data in grown.items() if path in fresh} == fresh and len(fresh) > 8 * shards
    assert list(check_dataset(str(corpus.root))) == []
    if not isinstance(runner, LocalRunner):
        return
    recipes = {table: version.recipe for table, version in Dataset(str(corpus.root)).tables().items()}
    run(corpus.job(shard_hours=0.01), runner)
    assert {table: version.recipe for table, version in Dataset(str(corpus.root)).tables().items()} == recipes
    assert (
        Dataset(str(corpus.root))
        .read("units")
        .sort_by("utterance_id")
        .equals(Dataset(str(corpus.folder / "fresh")).read("units").sort_by("utterance_id"))
    )

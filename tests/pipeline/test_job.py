"""Jobs: stages in order, what is committed is not done again, and what makes a job fail."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from echo_targets.pipeline.job import Job, JobFailed, StageReport, StageStarted
from echo_targets.pipeline.runners.base import Chain, Done, Events, Failed, RunShard
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from tests.pipeline.stand_ins import Double, Follow, Inline, entries_of, files, ids, in_shards, job, stage, texts
from tests.schemas.samples import key


def run(work: Job) -> list[StageReport]:
    return [event for event in work.run(Inline()) if isinstance(event, StageReport)]


def ran(reports: list[StageReport]) -> dict[str, int]:
    return {report.recipe.stage: report.shards_run for report in reports}


def current(root: Path) -> dict[str, str]:
    tables: dict[str, str] = json.loads((root / "index.json").read_text())["tables"]
    return tables


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    """What tells that a shard's file was not written again."""
    paths = [path for path in files(root) if path.endswith(".parquet") or path.split("/")[-1][:-5] in ids(root)]
    return {path: ((root / path).stat().st_ino, (root / path).stat().st_mtime_ns) for path in paths}


def test_a_job(tmp_path: Path) -> None:
    reports = run(job(tmp_path, stage(Double, refuses=[key(3)], filters=[key(4)]), stage(Follow), allowed=0.1))
    assert ran(reports) == {"listen": 3, "double": 3, "follow": 3}
    assert list(current(tmp_path)) == ["entries", "utterances", "transcripts", "alignments"]
    double = reports[1]
    assert (double.rows_in, double.rows, double.rejects) == (12, 10, 1)
    assert double.reasons == {"too_dull": 1, "filtered_dull": 1}
    assert double.samples == reports[0].samples == reports[2].samples > 0
    assert list(check_dataset(str(tmp_path))) == []


def test_the_second_run_does_nothing(tmp_path: Path) -> None:
    work = job(tmp_path, stage(Double, refuses=[key(3)]), stage(Follow), allowed=0.1)
    first = run(work)
    before, index = stamps(tmp_path), (tmp_path / "index.json").read_bytes()
    second = run(job(tmp_path, stage(Double, refuses=[key(3)]), stage(Follow), allowed=0.1))
    assert ran(second) == {"listen": 0, "double": 0, "follow": 0}
    assert stamps(tmp_path) == before and (tmp_path / "index.json").read_bytes() == index
    for report in first:
        report.shards_run = 0
    assert second == first, "the reports cover the earlier run"


class Stopping(Inline):
    """Is stopped after some shards."""

    def __init__(self, shards: int) -> None:
        self.left = shards

    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        for event in super().map(chains, run_shard):
            yield event
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 3, 4, 8])
def test_a_job_that_was_stopped_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    stages = (stage(Double), stage(Follow))
    run(job(tmp_path / "whole", *stages))
    with pytest.raises(KeyboardInterrupt):
        list(job(tmp_path / "stopped", *stages).run(Stopping(after)))
    before = stamps(tmp_path / "stopped")
    assert sum(ran(run(job(tmp_path / "stopped", *stages))).values()) == 9 - after
    assert stamps(tmp_path / "stopped").items() >= before.items()
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_what_a_stage_starts_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(job(tmp_path, stage(Double)).run(Stopping(4)))
    starts = [e for e in job(tmp_path, stage(Double)).run(Inline()) if isinstance(e, StageStarted)]
    assert [(start.recipe.stage, start.committed) for start in starts] == [("listen", 3), ("double", 1)]
    undone = [manifest.samples for manifest in Dataset(str(tmp_path)).manifests("transcripts")][1:]
    assert [start.samples for start in starts] == [0, sum(undone)]


# -- promise 4: fingerprints ------------------------------------------------------------------------------------------


def test_a_changed_parameter_recomputes_its_stage_and_what_follows_beside_the_old(tmp_path: Path) -> None:
    run(job(tmp_path, stage(Double), stage(Follow)))
    before, old = stamps(tmp_path), current(tmp_path)
    assert ran(run(job(tmp_path, stage(Double, word="no"), stage(Follow)))) == {"listen": 0, "double": 3, "follow": 3}
    assert stamps(tmp_path).items() >= before.items(), "the old shards are untouched"
    new = current(tmp_path)
    assert [table for table in new if new[table] != old[table]] == ["transcripts", "alignments"]
    assert set(texts(tmp_path).values()) == {"hello there no hello there no "}
    assert list(check_dataset(str(tmp_path))) == []
    assert ran(run(job(tmp_path, stage(Double), stage(Follow)))) == {"listen": 0, "double": 0, "follow": 0}
    assert current(tmp_path) == old, "and the old ones are current again for nothing"


def test_a_changed_last_stage_recomputes_itself_alone(tmp_path: Path) -> None:
    run(job(tmp_path, stage(Follow)))
    assert ran(run(job(tmp_path, stage(Follow), stage(Double)))) == {"listen": 0, "follow": 0, "double": 3}
    assert ran(run(job(tmp_path, stage(Double), stage(Follow)))) == {"listen": 0, "double": 0, "follow": 3}


def test_the_index_keeps_the_old_version_until_the_new_one_is_whole(tmp_path: Path) -> None:
    run(job(tmp_path, stage(Double)))
    old = current(tmp_path)
    changed = job(tmp_path, stage(Double, word="no", unreachable=[key(11)]))
    with pytest.raises(JobFailed):
        run(changed)
    assert current(tmp_path) == old and set(texts(tmp_path).values()) == {"hello there yes hello there yes "}
    assert list(check_dataset(str(tmp_path))) == []
    seen = [current(tmp_path)["transcripts"] for _ in job(tmp_path, stage(Double, word="no")).run(Inline())]
    assert set(seen) == {old["transcripts"]}
    assert current(tmp_path)["transcripts"] != old["transcripts"]


def test_a_root_between_two_versions_passes_the_check(tmp_path: Path) -> None:
    """New utterances are current, the transcripts are still those of the old."""
    run(job(tmp_path, stage(Double)))
    with pytest.raises(JobFailed):
        run(job(tmp_path, stage(Double, unreachable=[key(23)]), rows=24, shards=5))
    assert list(check_dataset(str(tmp_path))) == []


# -- promise 5: what fails a job --------------------------------------------------------------------------------------


def test_too_many_rejects_fail_the_job_and_say_why(tmp_path: Path) -> None:
    refuses = [key(number) for number in (0, 5, 11)]
    work = job(tmp_path, stage(Double, refuses=refuses, filters=[key(1)]), stage(Follow), allowed=0.2)
    with pytest.raises(JobFailed, match=r"double: 3 of 12 .*3 too_dull.*max_reject_fraction=0\.2") as failure:
        run(work)
    assert failure.value.exit_code == 1
    assert "transcripts" not in current(tmp_path) and "alignments" not in current(tmp_path)
    more = job(tmp_path, stage(Double, refuses=refuses, filters=[key(1)]), stage(Follow), allowed=0.25)
    assert ran(run(more)) == {"listen": 0, "double": 0, "follow": 3}, "a larger share is enough to go on"


def test_a_shard_of_which_too_much_is_rejected_is_not_committed(tmp_path: Path) -> None:
    work = job(tmp_path, stage(Double, refuses=[key(4), key(5)], raises=[key(6)]), stage(Follow), allowed=0.3)
    with pytest.raises(JobFailed, match=r"double: 1 of 3 shards failed .*3 of its 4 rows") as failure:
        run(work)
    assert "(2 too_dull, 1 ValueError)" in str(failure.value)
    assert f"Examples: {key(5)}: " in str(failure.value) and f"; {key(6)}: ValueError: cannot double" in str(
        failure.value
    )
    assert failure.value.exit_code == 1 and "transcripts" not in current(tmp_path)
    assert ran(run(job(tmp_path, stage(Double), stage(Follow)))) == {"listen": 0, "double": 1, "follow": 1}


def test_a_job_stops_as_soon_as_its_rejects_are_too_many_for_all_its_rows(tmp_path: Path) -> None:
    refuses = [key(number) for number in range(0, 60, 2)]
    seen: list[str] = []
    with pytest.raises(JobFailed, match=r"double: \d+ of \d+ rows were rejected") as failure:
        for event in job(tmp_path, stage(Double, refuses=refuses), rows=60, shards=12).run(Inline()):
            seen += [event.stage] if isinstance(event, Done) else []
    assert failure.value.exit_code == 1 and seen.count("double") < 6
    assert re.search(
        r"Examples: utt-\d+: \S+: nothing to double\. All of them are in .*/rejects/double/", str(failure.value)
    )


def test_a_table_that_filters_have_emptied_is_not_current_unless_told(tmp_path: Path) -> None:
    everything = [key(number) for number in range(12)]
    work = job(tmp_path, stage(Double, filters=everything), stage(Follow))
    with pytest.raises(
        JobFailed, match=r"double: all 12 rows were dropped \(12 filtered_dull\).*allow_empty"
    ) as failure:
        run(work)
    assert failure.value.exit_code == 1 and "transcripts" not in current(tmp_path)
    run(replace(work, allow_empty=True))
    assert texts(tmp_path) == {} and list(check_dataset(str(tmp_path))) == []


class Nobody(Follow):
    """Works on no row, unless a file tells it to."""

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        rows = super().rows(window, shard)
        return rows if len(rows) > 4 else rows.slice(0, 0)


def test_a_table_that_has_lost_its_rows_to_the_corpus_is_not_current_unless_told(tmp_path: Path) -> None:
    spec = StageSpec(f"{__name__}:Nobody", {})
    made = job(tmp_path, stage(Double))
    run(replace(made, stages=[*made.stages, spec], plan=in_shards(entries_of(12), 1)))
    before = current(tmp_path)["alignments"]
    emptied = replace(made, stages=[*made.stages, spec], plan=in_shards(entries_of(4), 1))
    with pytest.raises(JobFailed, match=r"follow: no row belongs to it any more, so alignments is empty") as failure:
        run(emptied)
    assert failure.value.exit_code == 1 and current(tmp_path)["alignments"] == before
    run(replace(emptied, allow_empty=True))
    assert len(Dataset(str(tmp_path)).read("alignments")) == 0
    run(replace(emptied, root=str(tmp_path / "fresh")))


def test_a_stage_whose_shards_all_fail_is_stopped(tmp_path: Path) -> None:
    refuses = [key(number) for number in range(60)]
    seen: list[str] = []
    with pytest.raises(JobFailed, match=r"double: 5 of 12 shards failed") as failure:
        for event in job(tmp_path, stage(Double, refuses=refuses), rows=60, shards=12).run(Inline()):
            seen += [event.stage] if isinstance(event, Failed) else []
    assert failure.value.exit_code == 1 and seen == ["double"] * 5


def test_rows_that_a_threshold_held_back_do_not_count_as_rejects(tmp_path: Path) -> None:
    held_back = [key(number) for number in range(9)]
    (_, report) = run(job(tmp_path, stage(Double, filters=held_back), allowed=0.0))
    assert (report.rejects, report.rows, report.reasons) == (0, 3, {"filtered_dull": 9})


def test_a_job_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no items to plan"):
        run(job(tmp_path, stage(Double), stage(Follow), rows=0, shards=1, allowed=0.0))
    assert not (tmp_path / "index.json").exists()


def test_a_failing_shard_fails_the_job_with_the_others_committed(tmp_path: Path) -> None:
    work = job(tmp_path, stage(Double, unreachable=[key(0)]), stage(Follow))
    ends: list[type] = []
    with pytest.raises(JobFailed, match=r"double: 1 of 3 shards failed .*: lost the connection") as failure:
        for event in work.run(Inline()):
            if isinstance(event, Done | Failed):
                ends.append(type(event))
    assert failure.value.exit_code == 3
    assert ends == [Done, Done, Done, Failed, Done, Done, Done, Done], "the others go on to the end"
    assert list(current(tmp_path)) == ["entries", "utterances"]
    assert ran(run(job(tmp_path, stage(Double), stage(Follow)))) == {"listen": 0, "double": 1, "follow": 1}


def test_a_smaller_limit_refuses_what_is_committed(tmp_path: Path) -> None:
    run(job(tmp_path, stage(Double, refuses=[key(0), key(5)]), allowed=1.0))
    with pytest.raises(JobFailed, match=r"double: 2 of 12 rows were rejected \(2 too_dull\)"):
        run(job(tmp_path, stage(Double, refuses=[key(0), key(5)]), allowed=0.1))


class Careless(Inline):
    """Is stopped, and leaves behind what its workers had begun."""

    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        for event in super().map(chains, run_shard):
            yield event
            task = chains[0][0]
            folder = Path(task.root, task.recipe.table, task.recipe.fingerprint)
            (folder / f"{'0' * 16}.parquet.tmp-1").write_bytes(b"half")
            (folder / f"{'0' * 16}.attempt.json").write_text('{"id": "1", "reason": null, "final": false}')
            (folder / f"{'1' * 16}.attempt.json").write_text('{"id": "2", "reason": "odd", "final": false}')
            raise KeyboardInterrupt


def test_a_job_that_is_stopped_tidies_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(job(tmp_path, stage(Double)).run(Careless()))
    left = {path.rpartition("/")[2] for path in files(tmp_path) if "tmp" in path or "attempt" in path}
    assert left == {f"{'1' * 16}.attempt.json"}, "what failed may still be asked for"

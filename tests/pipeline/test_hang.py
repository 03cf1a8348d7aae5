"""A batch that takes too long ends its worker process, and its row is found and rejected."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from echo_targets.pipeline.halving import work
from echo_targets.pipeline.hang import HUNG, has_hung, limit_of
from echo_targets.pipeline.isolation import Isolated, ending
from echo_targets.pipeline.job import StageReport
from echo_targets.pipeline.runners.base import Failed
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.stage import StageSpec, recipe_of
from echo_targets.pipeline.worker_transform import Loaded
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import Output
from tests.pipeline.stand_ins import HERE, Double, Follow, files, job, number_of, stage, temporary
from tests.pipeline.test_isolation import batch
from tests.schemas.samples import key

LIMIT = 1.5


class Backtracks(Double):
    """Matches a text for years. The regex engine holds Python's lock."""

    def _kill_or_wait(self, key: str) -> None:
        if key in self.parameters.waits:
            re.match(r"(a+)+$", "a" * 60 + "b")


class Slow(Double):
    """Takes a while for each batch."""

    def __call__(self, batch: pa.Table) -> Output:
        time.sleep(0.3)
        return super().__call__(batch)


def hanging(kind: type[Double], **faults: Any) -> StageSpec:
    spec = replace(stage(kind, **faults), hang_seconds=LIMIT, hang_factor=0.001)
    return spec if kind.__module__ == HERE else replace(spec, transform=f"{kind.__module__}:{kind.__name__}")


@pytest.mark.parametrize("kind", [Double, Backtracks])
def test_the_row_that_hangs_is_found_and_the_others_are_computed(
    tmp_path: Path, kind: type[Double], capfd: pytest.CaptureFixture[str]
) -> None:
    with Isolated(hanging(kind, waits=[key(1)], folder=str(tmp_path))) as isolated:
        outputs = list(work(isolated, batch(3)))
    assert [row for output in outputs for row in output.rows[KEY].to_pylist()] == [key(0), key(2)]
    ((reject,),) = [output.rejects for output in outputs if output.rejects]
    assert (reject.utterance_id, reject.error_class, reject.attempts) == (key(1), HUNG, 1)
    assert reject.unexpected, "so that it gets a second opinion, and many of them fail the shard"
    assert "raise hang_factor" in reject.message
    printed = capfd.readouterr().err
    assert "most recent call first" in printed and "in _kill_or_wait" in printed


def test_idle_time_does_not_count(tmp_path: Path) -> None:
    with Isolated(hanging(Double)) as isolated:
        for _ in range(2):
            output = isolated.try_batch(batch(2))
            assert output is not None and len(output.rows) == 2
            child = isolated._child
            time.sleep(1.5 * LIMIT)
        assert child is not None and child.poll() is None


def test_the_limit_grows_with_the_padded_audio() -> None:
    spec = stage(Double)
    rows = batch(3)
    seconds = [samples / 16_000 for samples in rows["num_samples"].to_pylist()]
    assert limit_of(spec, spec.build(), rows) == pytest.approx(600 + 30 * 3 * max(seconds))
    assert limit_of(replace(spec, hang_factor=1.0, hang_seconds=2.0), spec.build(), rows[:1]) == 2 + seconds[0]


def test_a_process_that_is_no_worker_is_never_ended() -> None:
    spec = replace(hanging(Slow), hang_seconds=0.01)
    output = Loaded(spec).try_batch(batch(2))
    assert output is not None and len(output.rows) == 2


def test_the_limit_is_no_part_of_the_version() -> None:
    spec = stage(Double)
    other = replace(spec, hang_factor=1.0)
    assert recipe_of(spec.build(), {}) == recipe_of(other.build(), {})


def test_only_our_signal_counts_as_a_hang() -> None:
    codes = (None, 0, 1, -signal.SIGKILL, -signal.SIGTERM)
    assert not any(map(has_hung, codes)) and has_hung(-signal.SIGALRM)
    assert ending(-signal.SIGKILL) == "crashed (signal SIGKILL, possibly out of memory)"


def test_an_ignored_alarm_is_restored() -> None:
    """A parent may have started the process with the signal ignored."""
    script = (
        "import signal, time; signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "from echo_targets.pipeline.hang import limit, watch_for_hangs\n"
        "watch_for_hangs()\n"
        "with limit(0.1): time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert has_hung(done.returncode) and 'File "<string>", line 4' in done.stderr


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_the_shard_completes(tmp_path: Path) -> None:
    made = []
    for workers in (1, 2):
        notes, root = tmp_path / f"notes-{workers}", tmp_path / str(workers)
        notes.mkdir()
        spec = hanging(Double, waits=[key(7)], folder=str(notes))
        with LocalRunner(workers) as runner:
            events = list(job(root, spec, stage(Follow), allowed=0.2).run(runner))
        (failure,) = [event for event in events if isinstance(event, Failed)]
        assert number_of(failure.shard) == 1 and not failure.final
        assert failure.reason.startswith("its worker hung: a batch took longer than ten minutes plus hang_factor")
        (report,) = [event for event in events if isinstance(event, StageReport) and event.recipe.stage == "double"]
        assert (report.rows_in, report.rows, report.reasons) == (12, 11, {HUNG: 1})
        assert list(check_dataset(str(root))) == [] and temporary(root) == []
        made.append(files(root))
    assert made[0] == made[1]


@pytest.mark.slow
def test_a_machine_that_hangs_at_every_row_rejects_none(tmp_path: Path) -> None:
    every = [key(number) for number in range(12)]
    spec = hanging(Double, waits=every, folder=str(tmp_path))
    with LocalRunner(1, attempts=2) as runner:
        events: list[Any] = []
        with pytest.raises(Exception, match="of its rows failed unexpectedly"):
            for event in job(tmp_path / "root", spec, rows=2, shards=1).run(runner):
                events.append(event)
    assert not list(Dataset(str(tmp_path / "root")).storage.find("rejects"))

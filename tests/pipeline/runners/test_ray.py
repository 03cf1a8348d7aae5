"""Real Ray: a head without CPUs and three raylets of one each, or a cluster that the runner starts; killed, starved."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pytest

from echo_targets.pipeline.commit import write_whole
from echo_targets.pipeline.job import Job, JobFailed
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.runners.base import Done, Failed, Progress
from echo_targets.pipeline.runners.ray.options import RayOptions
from echo_targets.pipeline.runners.ray.runner import RayRunner
from echo_targets.pipeline.shard import ShardTask
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.layout import Dataset, FileEntry, Manifest
from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import Output, table_of
from tests.pipeline.stand_ins import (
    Double,
    Faults,
    Follow,
    Inline,
    Listen,
    files,
    job,
    long_job,
    number_of,
    stage,
    temporary,
    texts,
)
from tests.schemas.samples import Row, key, sample

pytest.importorskip("ray")
if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 240.0
AUDIO_BYTES = 1_000_000


class Loud(Listen):
    """Utterances of a megabyte of audio each."""

    def __call__(self, batch: pa.Table) -> Output:
        rows = super().__call__(batch).rows.to_pylist()
        return Output(table_of([row | {"audio": {**row["audio"], "bytes": loud(row)}} for row in rows], self.writes))


class Heard(Double):
    """Reads them, notes where the project lies, and kills its node where it is told to."""

    def _double(self, row: Row) -> Row:
        from echo_targets import pipeline

        assert row["audio"]["bytes"] == loud(row)
        if self.parameters.folder:
            (Path(self.parameters.folder) / f"pipeline.{os.getpid()}").write_text(pipeline.__file__)
        return super()._double(row | {"audio": {"bytes": row["utterance_id"].encode()}})


class Falling(Double):
    """Kills the raylet that its worker belongs to, where `kills` says so."""

    def _kill_or_wait(self, key: str) -> None:
        note = Path(self.parameters.folder) / f"{key}.fell"
        if key in self.parameters.kills and not note.exists():
            note.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(PATIENCE)


class OnDevice(Double):
    """Has a model for a device."""

    on_device: ClassVar[bool] = True


def loud(row: Row) -> bytes:
    name: bytes = row["utterance_id"].encode()
    return name * (AUDIO_BYTES // len(name))


def here(kind: type[Any], **parameters: Any) -> StageSpec:
    values = kind.Parameters(**parameters).model_dump(mode="json")
    return StageSpec(f"{__name__}:{kind.__name__}", values, batch_seconds=8.0)


def wait_for(condition: Callable[[], Any]) -> Any:
    """The condition's value as soon as it is true; gives up after a while, so that a test fails and does not hang."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


def failures(events: list[Any]) -> list[tuple[int, bool]]:
    return [(number_of(event.shard), event.final) for event in events if isinstance(event, Failed)]


def run(work: Job, options: RayOptions) -> list[Any]:
    with RayRunner(options) as runner:
        return list(work.run(runner))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that works on nothing, and three nodes of one CPU."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    timing = {"metrics_report_interval_ms": 500, "kill_worker_timeout_milliseconds": 10_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": timing, **small})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, **small)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def options(cluster: Cluster) -> RayOptions:
    return on(cluster.address)


def on(address: str) -> RayOptions:
    """A cluster, whose workers are given the tests too; each worker takes seconds to start, so there are few."""
    return RayOptions(address=address, max_workers=1, runtime_env={"py_modules": [str(REPOSITORY / "tests")]})


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the job when nothing happens to it and no process is started."""
    root = tmp_path_factory.mktemp("straight")
    list(job(root, stage(Double)).run(Inline()))
    return files(root)


# -- the same bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_of_our_own(tmp_path: Path, straight: dict[str, bytes]) -> None:
    events = run(job(tmp_path, stage(Double)), RayOptions(max_workers=1))
    assert failures(events) == []
    assert sorted(number_of(event.shard) for event in events if isinstance(event, Done)) == [0, 0, 1, 1, 2, 2]
    assert files(tmp_path) == straight


def scraped(cluster: Cluster) -> Counter[str]:
    """What Ray's nodes tell Prometheus: sums over nodes and workers, by name and our tags."""
    found: Counter[str] = Counter()
    for node in cluster.list_all_nodes():
        with urllib.request.urlopen(f"http://{node.node_ip_address}:{node.metrics_export_port}/metrics") as page:
            for line in page.read().decode().splitlines():
                if match := re.match(r"ray_(echo_targets_\w+|object_store_memory)\{(.*)\} (\S+)$", line):
                    name, tags, value = match.groups()
                    labels = dict(re.findall(r'(\w+)="([^"]*)"', tags))
                    place = [labels[tag] for tag in ("stage", "error_class") if tag in labels]
                    found[" ".join([name, *place])] += float(value)
    return found


@pytest.mark.slow
def test_three_raylets_the_project_shipped_and_nothing_but_numbers_in_the_object_store(
    tmp_path: Path, cluster: Cluster, options: RayOptions
) -> None:
    def work(root: Path, folder: str = "") -> Job:
        entries = [sample("entries", number) | {"seconds": 1.0 + number % 3} for number in range(12)]
        heard = here(Heard, refuses=[key(3)], folder=folder)
        return Job(str(root), plan(entries, 8 / 3600), [here(Loud), heard, stage(Follow)], 1.0)

    notes = tmp_path / "notes"
    notes.mkdir()
    list(work(tmp_path / "straight").run(Inline()))
    most = 0.0
    with RayRunner(options) as runner:
        for event in work(tmp_path / "ray", str(notes)).run(runner):
            assert not isinstance(event, Failed)
            most = max(most, scraped(cluster)["object_store_memory"])
    assert files(tmp_path / "ray") == files(tmp_path / "straight")
    assert 0 < most < AUDIO_BYTES, "of twelve such rows"
    places = {note.read_text() for note in notes.iterdir()}
    assert places and all("/runtime_resources/py_modules_files/" in place for place in places)
    found = wait_for(lambda: now if (now := scraped(cluster))["echo_targets_shards_total follow"] else None)
    assert {name: value for name, value in found.items() if "_shards" in name} == {
        "echo_targets_shards_total listen": 3,
        "echo_targets_shards_total double": 3,
        "echo_targets_shards_total follow": 3,
    }
    assert found["echo_targets_rows_total double"] == 11
    assert found["echo_targets_rejects_total double too_dull"] == 1
    assert found["echo_targets_hours_total double"] == pytest.approx(24 / 3600)


# -- eight stages on nodes of one CPU ----------------------------------------------------------------------------------


def waiting_for_others(task: ShardTask, progress: Progress) -> Manifest:
    """Shard 1 waits until shard 0 is through all stages; 2 and 3, in the first stage, until both have begun."""
    dataset, recipe = Dataset(task.root), task.recipe
    begun = Path(task.root) / "begun"
    begun.mkdir(exist_ok=True)
    (begun / f"{recipe.stage}.{task.position}").touch()
    if recipe.stage == "s0" and task.position == 1:
        assert wait_for((Path(task.root) / manifest_path("s7", 0)).exists)
    if recipe.stage == "s0" and task.position in (2, 3):
        assert wait_for(lambda: all((begun / f"s0.{shard}").exists() for shard in (2, 3)))
    shard = manifest_path(recipe.table, task.position).replace(".json", ".parquet")
    write_whole(dataset, shard, b"PAR1")
    manifest = Manifest(recipe.table, recipe.fingerprint, task.shard, 0, 0, FileEntry(shard, 4, "", 0))
    write_whole(dataset, manifest_path(recipe.table, task.position), manifest.to_json())
    return manifest


def manifest_path(table: str, shard: int) -> str:
    return f"{table}/0/{shard:016x}.json"


@pytest.mark.slow
def test_eight_stages_share_few_cpus_overlap_and_scale(tmp_path: Path, options: RayOptions) -> None:
    recipes = [Recipe(f"s{number}", 1, f"s{number}", "1", {}, {}, {}, "0") for number in range(8)]
    chains = [
        [ShardTask(str(tmp_path), stage(Double), recipe, f"{shard:016x}", shard) for recipe in recipes]
        for shard in range(4)
    ]
    with RayRunner(options.model_copy(update={"max_workers": 2})) as runner:
        events = list(runner.map(chains, waiting_for_others))
    assert failures(events) == []
    done = [(event.stage, int(event.shard, 16)) for event in events if isinstance(event, Done)]
    assert sorted(done) == [(f"s{number}", shard) for number in range(8) for shard in range(4)]
    assert done.index(("s7", 0)) < done.index(("s0", 1))


# -- deaths ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_midst_of_a_shard_and_a_row_that_always_kills_its_worker(
    tmp_path: Path, options: RayOptions, straight: dict[str, bytes]
) -> None:
    notes, root = tmp_path / "notes", tmp_path / "root"
    notes.mkdir()
    kills = {key(1): 1, key(7): 100}
    events = run(job(root, stage(Double, kills=kills, folder=str(notes)), allowed=1.0), options)
    assert failures(events) == []
    assert len(list(notes.glob(f"{key(1)}.*"))) == 1 and len(list(notes.glob(f"{key(7)}.*"))) > 1
    assert {key(number) for number in range(12)} - texts(root).keys() == {key(7)}
    assert Dataset(str(root)).read("transcripts", ["text"]).num_rows == 11
    same = {path for path, data in files(root).items() if straight.get(path) == data}
    shard = next(each.shard for each in Dataset(str(root)).manifests("transcripts") if each.rejects)
    untouched = {path for path in straight if path.startswith("transcripts/") and shard not in path}
    assert untouched <= same
    assert temporary(root) == [] and not list(root.rglob("*.attempt.json"))


@pytest.mark.slow
def test_a_row_at_which_a_worker_hangs(tmp_path: Path, options: RayOptions) -> None:
    spec = replace(stage(Double, waits=[key(7)], folder=str(tmp_path)), hang_seconds=2.0, hang_factor=0.001)
    events = run(job(tmp_path / "root", spec, allowed=0.2), options)
    assert not any(event.final for event in events if isinstance(event, Failed))
    manifests = list(Dataset(str(tmp_path / "root")).manifests("transcripts"))
    assert [manifest.reasons for manifest in manifests] == [{}, {"hung": 1}, {}]
    assert sum(manifest.output.rows for manifest in manifests) == 11
    assert temporary(tmp_path / "root") == []


@pytest.mark.slow
def test_a_shard_that_fails_for_good_and_the_others_do_not(tmp_path: Path, options: RayOptions) -> None:
    events: list[Any] = []
    work = job(tmp_path, stage(Double, drops=[key(7)]), stage(Follow))
    with RayRunner(options) as runner, pytest.raises(JobFailed, match="exactly one outcome") as failure:
        for event in work.run(runner):
            events.append(event)
    assert failure.value.exit_code == 3
    assert failures(events) == [(1, True)]
    done = sorted((event.stage, number_of(event.shard)) for event in events if isinstance(event, Done))
    assert done == [(name, shard) for name in ("double", "follow") for shard in (0, 2)] + [
        ("listen", shard) for shard in range(3)
    ]


class Driver:
    """A driver in a process group of its own, with a worker that waits in the midst of the long job's shard."""

    def __init__(self, tmp_path: Path, address: str) -> None:
        self.root, self.notes = tmp_path / "root", tmp_path / "notes"
        self.notes.mkdir()
        faults = Faults(waits=[key(999)], folder=str(self.notes)).model_dump_json()
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, address, str(self.root), faults],
            cwd=REPOSITORY,
            start_new_session=True,
        )
        (note,) = wait_for(lambda: list(self.notes.iterdir()))
        self.worker = int(note.suffix[1:])

    def drivers(self) -> list[int]:
        """Processes of its group that have not ended."""
        listed = subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(self.process.pid)], capture_output=True, text=True)
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if "Z" not in line.split()[1]]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_when_the_driver_ends_its_workers_end_and_leave_nothing(
    tmp_path: Path, cluster: Cluster, how: signal.Signals
) -> None:
    driver = Driver(tmp_path, cluster.address)
    try:
        shards = [name for name in temporary(driver.root) if ".parquet" in name]  # the driver may be writing its index
        assert len(shards) == 1, "the worker is writing a shard"
        if how is signal.SIGINT:
            os.killpg(driver.process.pid, how)  # as a terminal does
        else:
            driver.process.send_signal(how)
        driver.process.wait(PATIENCE)
        assert wait_for(lambda: not Path(f"/proc/{driver.worker}").exists())
        assert wait_for(lambda: not driver.drivers())
        # Ray kills the workers of a driver that is gone, sometimes before they have cleaned up; the next run does.
        assert how is signal.SIGKILL or temporary(driver.root) == []
        assert not list(driver.root.glob("transcripts/*/part-*"))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.process.pid, signal.SIGKILL)
        driver.process.wait()


@pytest.mark.slow
def test_a_raylet_that_is_killed_in_the_midst_of_a_shard(
    tmp_path: Path, cluster: Cluster, options: RayOptions, straight: dict[str, bytes]
) -> None:
    root = tmp_path / "root"
    events = run(job(root, here(Falling, kills={key(7): 1}, folder=str(tmp_path))), options)
    assert (tmp_path / f"{key(7)}.fell").exists()
    dead = [name for node in cluster.list_all_nodes() for name, _ in node.dead_processes()]
    assert dead == ["raylet"]
    assert not any(event.final for event in events if isinstance(event, Failed))
    assert files(root) == straight


# -- what can't be -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:1025", "refused"), ("nowhere.invalid:6379", "not known"), ("here", "Invalid")]
)
def test_nobody_answers(tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"^ray\.address={address}: .*{said}"):
        run(job(tmp_path), RayOptions(address=address))


@pytest.mark.slow
def test_too_few_gpus(tmp_path: Path, options: RayOptions) -> None:
    asking = options.model_copy(update={"gpus_per_worker": 0.5})
    with pytest.raises(UserError, match=r"gpus_per_worker=0\.5: 1 stages .* need 0\.5 in total, but the cluster has 0"):
        run(job(tmp_path, here(OnDevice)), asking)


@pytest.mark.parametrize("wrong", [{"address": "ray://head:10001"}, {"min_workers": 3, "max_workers": 2}])
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^ray\.(address|max_workers)="):
        RayRunner(RayOptions(**wrong))


def drive(address: str, root: str, faults: str) -> None:
    """A driver in a process of its own, for tests that stop it."""
    told = Faults.model_validate_json(faults).model_dump(mode="json")
    with suppress(KeyboardInterrupt), RayRunner(on(address)) as runner:
        for _ in long_job(Path(root), **told).run(runner):
            pass


if __name__ == "__main__":
    drive(*sys.argv[1:])

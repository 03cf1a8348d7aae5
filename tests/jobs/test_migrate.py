"""What the code wrote when `units` was 1.0.0 becomes what a run of this code writes, byte for byte; no model runs.

`data/units_1/root` was written by that code: `echo-targets run job.yaml texts=lines.jsonl root=…`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.config import Workplace, load
from jobs.fit import fit_unit_language_command
from jobs.inspector.command import inspect_command
from jobs.migrate import MigrateError, migrate_command
from jobs.run import job_of
from jobs.train import train_reader_command
from pipeline.commit import ShardWriter
from pipeline.lease import Busy, Lease
from schemas import TABLES
from schemas.check import check_dataset
from schemas.layout import Dataset, LayoutError, Manifest
from tests.pipeline.stand_ins import Inline, files
from tests.transforms.rows import rejects
from transforms.trainer.reading import TargetReader

WRITTEN = Path(__file__).parent / "data" / "units_1"
CONFIG = str(WRITTEN / "job.yaml")
GIVEN = [f"texts={WRITTEN / 'lines.jsonl'}"]
REWRITTEN = ("units",)
RUN = ("echo_targets", "training/t2c", "training/echo")
"""Tables whose rows this version makes otherwise, which a run computes."""
CHANGED = (*REWRITTEN, *RUN)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return shutil.copytree(WRITTEN / "root", tmp_path / "root")


def migrate(root: Path, *overrides: str) -> int:
    return migrate_command(str(root), CONFIG, [*GIVEN, *overrides])


def run(root: Path) -> None:
    list(job_of(load(CONFIG, [*GIVEN, f"root={root}"])).run(Inline()))


def left(root: Path) -> dict[str, int]:
    """Shards that a run would make, by table."""
    found = job_of(load(CONFIG, [*GIVEN, f"root={root}"])).foresee()
    return {table.info.table: missing for table in found if (missing := table.info.shards - table.committed)}


def shards(root: Path, table: str) -> dict[str, bytes]:
    """A table's current version, its description and the rejects too."""
    dataset = Dataset(str(root))
    info = dataset.current(table)
    folders = (root / table / info.fingerprint, root / "rejects" / info.stage / info.fingerprint)
    return {str(path.relative_to(root)): path.read_bytes() for folder in folders for path in folder.glob("*")}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("fresh")
    run(folder)
    return folder


def test_a_run_finds_all_done_and_the_bytes_are_those_of_a_run(
    root: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    assert left(root) == dict.fromkeys(CHANGED, 2)
    assert migrate(root) == 0
    assert capsys.readouterr().out.count("2 shards rewritten as") == len(REWRITTEN)
    assert left(root) == dict.fromkeys(RUN, 2)
    run(root)
    assert left(root) == {} and list(check_dataset(str(root))) == []
    dataset = Dataset(str(root))
    for table in TABLES:
        if table in dataset.tables():
            assert shards(root, table) == shards(fresh, table), table
            assert dataset.read(table).equals(Dataset(str(fresh)).read(table))
    assert {row["error_class"] for row in rejects(dataset, "echo_targets").values()} == {"no_reply"}
    now = files(root)
    assert all(now[path] == data for path, data in before.items() if path != "index.json"), "the old versions stay"
    run(root)
    assert files(root).keys() == now.keys() and dataset.tables() == Dataset(str(fresh)).tables()


def test_units_are_what_they_were(root: Path) -> None:
    old = [row for path in sorted((root / "units").glob("*/*.parquet")) for row in pq.read_table(path).to_pylist()]
    migrate(root)
    new = Dataset(str(root)).read("units").to_pylist()
    added = {"num_codebooks": 1, "sampling_rate": 16_000}
    assert new == [row | added | {"units": [row["units"]]} for row in old]


def test_it_goes_on_where_it_was_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, count = ShardWriter.commit, iter(range(100))

    def stopped(writer: ShardWriter) -> Manifest:
        if next(count) == 1:
            raise OSError("no space left on the device")
        return commit(writer)

    monkeypatch.setattr(ShardWriter, "commit", stopped)
    with pytest.raises(OSError, match="no space"):
        migrate(root)
    assert left(root) == dict.fromkeys(RUN, 2) | {"units": 1}
    made = files(root)
    assert migrate(root) == 0 and left(root) == dict.fromkeys(RUN, 2)
    assert all(files(root)[path] == data for path, data in made.items() if path != "index.json" and "stage" not in path)
    assert migrate(root) == 0  # and once more, with nothing to do
    assert not [path for path in files(root) if "tmp" in path]


def test_shards_that_are_not_there_are_left_to_a_run(
    root: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard is never there before what it was made from."""
    (manifest,) = (root / "units").glob("*/part-00001-of-00002.json")
    manifest.unlink()
    assert migrate(root) == 0 and "1 are left to a run" in capsys.readouterr().out
    assert left(root) == dict.fromkeys(RUN, 2) | {"units": 1}
    run(root)
    assert left(root) == {} and all(shards(root, table) == shards(fresh, table) for table in CHANGED)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_shard_is_named_and_not_carried_over(root: Path) -> None:
    (path,) = (root / "units").glob("*/part-00001-of-00002.parquet")
    damage(path)
    with pytest.raises(MigrateError, match=r"units/.*part-00001-of-00002\.parquet: .*sha256"):
        migrate(root)
    assert left(root)["units"] == 1
    path.with_suffix(".json").unlink()
    assert migrate(root) == 0 and left(root) == dict.fromkeys(RUN, 2) | {"units": 1}


def describe(root: Path, table: str, **changes: Any) -> None:
    (path,) = (root / table).glob("*/stage.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_reads_the_old_form_says_what_to_do(root: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for read in (
        lambda: fit_unit_language_command(str(root), out, 150, 4, "ngram", Workplace()),
        lambda: train_reader_command(str(root), out, "train-reader", []),
        lambda: inspect_command(str(root), out, 0, False, None),
        lambda: TargetReader(str(root), "training/t2c"),
    ):
        with pytest.raises(LayoutError, match=r"is 1\.0\.0, this version reads [23]\.0\.0: .*echo-targets migrate"):
            read()


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("units", {"version": 3}),
        ("units", {"schema_version": "0.9.0"}),
        ("units", {"weights": {}}),
        ("units", {"upstream": {}}),
        ("units", {"shards": 3}),
        ("units", {"parameters": {"mood": "good"}}),
    ],
    ids=str,
)
def test_nothing_to_migrate(root: Path, table: str, changes: dict[str, Any]) -> None:
    describe(root, table, **changes)
    before = files(root)
    with pytest.raises(MigrateError, match="nothing to migrate"):
        migrate(root)
    assert files(root) == before


def test_no_dataset_and_another_driver(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is this the root of a finished run"):
        migrate(tmp_path / "nothing")
    with Lease(Dataset(str(root))) as lease:
        list(lease.take("refuse"))
        with pytest.raises(Busy):
            migrate(root)

"""Valid roots broken in every way that we could think of, with drawn tables, shards and values: all found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import LayoutError
from tests.schemas.dataset.drawn import Draw
from tests.schemas.dataset.test_mutant_files import COLUMNS
from tests.schemas.dataset.test_mutant_rows import ROWS, words
from tests.schemas.samples import Root, Row, arrow, key, parquet, sample, samples

FEW_ROOTS = settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
BESIDE = ("transcripts", "units", "echo_targets", "training/s2t")
REFUSED = [sample("rejects", 50), sample("rejects", 51)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Two shards of each of six tables, utterances made from entries; a shard of units with rejects."""
    root = Root(tmp_path_factory.mktemp("root"))
    for name in ("entries", "utterances", *BESIDE):
        root.put(name, samples(name, 3), samples(name, 3, first=3))
    root.put_rejects("units", REFUSED, 0, 2)
    return root


@pytest.fixture
def restored(root: Root) -> Iterator[Callable[[], Root]]:
    """The root, put back as it was at each call."""
    whole = {path: path.read_bytes() for path in root.folder.rglob("*") if path.is_file()}

    def restore() -> Root:
        for path in [path for path in root.folder.rglob("*") if path.is_file() and path not in whole]:
            path.unlink()
        for path, data in whole.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
        return root

    yield restore
    restore()


def describe(root: Root, name: str, **changes: Any) -> None:
    path = root.folder / name / root.tables[name] / "recipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drawn(draw: Draw) -> tuple[str, int]:
    """A table and a shard."""
    return draw(st.sampled_from(["entries", "utterances", *BESIDE])), draw(st.integers(0, 1))


def change_a_byte(draw: Draw, root: Root) -> None:
    path = root.file(*drawn(draw), 2)
    data = bytearray(path.read_bytes())
    data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    path.write_bytes(data)


def cut_a_file(draw: Draw, root: Root) -> None:
    path = root.file(*drawn(draw), 2)
    path.write_bytes(path.read_bytes()[: -draw(st.integers(1, 900))])


def lengthen_a_file(draw: Draw, root: Root) -> None:
    with root.file(*drawn(draw), 2).open("ab") as file:
        file.write(draw(st.binary(min_size=1, max_size=9)))


def lose_a_file(draw: Draw, root: Root) -> None:
    root.file(*drawn(draw), 2).unlink()


def lose_a_manifest(draw: Draw, root: Root) -> None:
    root.manifest(*drawn(draw), 2).unlink()


def cut_a_manifest(draw: Draw, root: Root) -> None:
    path = root.manifest(*drawn(draw), 2)
    data = path.read_bytes()
    path.write_bytes(data[: draw(st.integers(0, len(data) - 1))])


def swap(one: Path, other: Path) -> None:
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def swap_files(draw: Draw, root: Root) -> None:
    name, _ = drawn(draw)
    swap(root.file(name, 0, 2), root.file(name, 1, 2))


def swap_manifests(draw: Draw, root: Root) -> None:
    name, _ = drawn(draw)
    swap(root.manifest(name, 0, 2), root.manifest(name, 1, 2))


def swap_shards_and_vouch_for_them(draw: Draw, root: Root) -> None:
    name = draw(st.sampled_from(["utterances", *BESIDE]))
    first, second = (root.file(name, number, 2).read_bytes() for number in (0, 1))
    root.put_file(name, 0, second, 3, 2)
    root.put_file(name, 1, first, 3, 2)


def take_a_manifest_of_another_run(draw: Draw, root: Root) -> None:
    name, number = drawn(draw)
    root.edit_manifest(name, number, 2, fingerprint=draw(st.text("0123456789abcdef", min_size=16, max_size=16)))


def take_a_manifest_of_another_table(draw: Draw, root: Root) -> None:
    name, number = drawn(draw)
    other = draw(st.sampled_from([*BESIDE]).filter(lambda other: other != name))
    root.manifest(name, number, 2).write_bytes(root.manifest(other, number, 2).read_bytes())


def take_a_file_of_another_run(draw: Draw, root: Root) -> None:
    name, number = drawn(draw)
    rows = arrow(name, samples(name, 3, first=3 * number))
    root.put_file(name, number, parquet(rows, TABLES[name], "ffffffffffffffff"), 3, 2)


def take_rows_of_another_table(draw: Draw, root: Root) -> None:
    (name, number), other = drawn(draw), draw(st.sampled_from(BESIDE))
    assume(name != other)
    rows = arrow(other, samples(other, 3, first=3 * number))
    root.put_file(name, number, parquet(rows, TABLES[name], root.tables[name]), 3, 2)


def miscount_rows_in(draw: Draw, root: Root) -> None:
    name, number = drawn(draw)
    root.edit_manifest(name, number, 2, rows_in=draw(st.integers(-9, 99).filter(lambda rows: rows not in (3, 5))))


def miscount_rows_out(draw: Draw, root: Root) -> None:
    name, number = drawn(draw)
    output = root.read_manifest(name, number, 2)["output"]
    rows = draw(st.integers(0, 99).filter(lambda rows: rows != 3))
    rejected = len(REFUSED) if (name, number) == ("units", 0) else 0
    root.edit_manifest(name, number, 2, output=output | {"rows": rows}, rows_in=rows + rejected)


def write_another_type_into_a_manifest(draw: Draw, root: Root) -> None:
    odd = draw(st.sampled_from([None, "5", [5], {"a": 5}]))
    name = draw(st.sampled_from(["table", "fingerprint", "shard", "shards", "rows_in", "reasons", "output"]))
    root.edit_manifest(*drawn(draw), 2, **{name: odd})


def misplace_a_file(draw: Draw, root: Root) -> None:
    name, number = drawn(draw)
    output = root.read_manifest(name, number, 2)["output"]
    root.edit_manifest(name, number, 2, output=output | {"path": draw(st.sampled_from(["x.parquet", "../x", ""]))})


def lose_a_row_and_vouch_for_it(draw: Draw, root: Root) -> None:
    number = draw(st.integers(0, 1))
    rows = arrow("utterances", samples("utterances", 2, first=3 * number))
    root.put_file("utterances", number, parquet(rows, TABLES["utterances"], root.tables["utterances"]), 2, 2)


def say_a_key_twice_in_two_shards(draw: Draw, root: Root) -> None:
    name, _ = drawn(draw)
    rows = arrow(name, [sample(name, draw(st.integers(0, 2))), *samples(name, 2, first=4)])
    root.put_file(name, 1, parquet(rows, TABLES[name], root.tables[name]), 3, 2)


def invent_a_row(draw: Draw, root: Root) -> None:
    name, number = draw(st.sampled_from(["utterances", *BESIDE])), draw(st.integers(0, 1))
    rows = arrow(name, [*samples(name, 2, first=3 * number), sample(name, draw(st.integers(90, 99)))])
    root.put_file(name, number, parquet(rows, TABLES[name], root.tables[name]), 3, 2)


def hear_nobody(draw: Draw, root: Root) -> None:
    name, rows = "echo_targets", samples("echo_targets", 3)
    rows[draw(st.integers(0, 2))]["user_audio_ids"] = [key(draw(st.integers(90, 99)))]
    root.put_file(name, 0, parquet(arrow(name, rows), TABLES[name], root.tables[name]), 3, 2)


BEYOND: dict[str, Callable[[Row, int], Any]] = {
    "transcripts": lambda row, more: row["segments"][1].update(end_sample=row["segments"][1]["end_sample"] + more),
    "units": lambda row, more: row.update(
        num_frames=row["num_frames"] + more, durations=[1, row["num_frames"] - 2, 1 + more]
    ),
    "training/s2t": lambda row, more: row.update(num_samples=row["num_samples"] + more),
}


def go_beyond_the_audio(draw: Draw, root: Root) -> None:
    name = draw(st.sampled_from(sorted(BEYOND)))
    rows = samples(name, 3)
    BEYOND[name](rows[draw(st.integers(0, 2))], draw(st.integers(1, 999)))
    root.put_file(name, 0, parquet(arrow(name, rows), TABLES[name], root.tables[name]), 3, 2)
    if name == "units":
        root.put_rejects(name, REFUSED, 0, 2)


def rejects_file(root: Root) -> Path:
    (path,) = (root.folder / "rejects").rglob("*.parquet")
    return path


def lose_the_rejects(draw: Draw, root: Root) -> None:
    rejects_file(root).unlink()


def cut_the_rejects(draw: Draw, root: Root) -> None:
    rejects_file(root).write_bytes(rejects_file(root).read_bytes()[: -draw(st.integers(1, 900))])


def forget_the_rejects(draw: Draw, root: Root) -> None:
    root.edit_manifest("units", 0, 2, **draw(st.sampled_from([{"rejects": None}, {"rejects": None, "reasons": {}}])))


def misname_a_reason(draw: Draw, root: Root) -> None:
    reasons = st.sampled_from([{"too_long": 2}, {"too_short": 1, "too_long": 1}, {"too_short": 3, "too_long": -1}])
    root.edit_manifest("units", 0, 2, reasons=draw(reasons))


def refuse_a_row_that_is_there(draw: Draw, root: Root) -> None:
    root.edit_manifest("units", 0, 2, rejects=None, reasons={}, rows_in=3)
    root.put_rejects("units", [sample("rejects", draw(st.integers(0, 2))), sample("rejects", 60)], 0, 2)


def take_rejects_of_another_stage(draw: Draw, root: Root) -> None:
    refused = [row | {"stage": draw(words("units").filter(bool))} for row in REFUSED]
    data = parquet(arrow("rejects", refused), TABLES["rejects"], root.tables["units"])
    rejects_file(root).write_bytes(data)
    entry = root.read_manifest("units", 0, 2)["rejects"]
    vouched = entry | {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    root.edit_manifest("units", 0, 2, rejects=vouched)


def list_other_shards(draw: Draw, root: Root) -> None:
    (path,) = (root.folder / "snapshots").iterdir()
    snapshot = json.loads(path.read_text())
    first, second = snapshot["shards"]
    path.write_text(
        json.dumps(snapshot | {"shards": draw(st.sampled_from([[], [first], [second, first], [first] * 2]))})
    )


def lose_the_snapshot(draw: Draw, root: Root) -> None:
    (path,) = (root.folder / "snapshots").iterdir()
    path.unlink()


def put_a_path_into_the_snapshot(draw: Draw, root: Root) -> None:
    (path,) = (root.folder / "snapshots").iterdir()
    path.write_text(path.read_text().replace(root.ids[1], draw(st.sampled_from(["../../x", "", "f" * 15, "index"]))))


def forge_an_entry(draw: Draw, root: Root) -> None:
    rows = samples("entries", 3)
    rows[draw(st.integers(0, 2))]["locator"] = "/etc/passwd"
    root.put_file("entries", 0, parquet(arrow("entries", rows), TABLES["entries"], root.tables["entries"]), 3, 2)


def say_another_version(draw: Draw, root: Root) -> None:
    describe(root, drawn(draw)[0], schema_version=draw(st.sampled_from(["0.9.0", "1.0.1", "9.0.0", ""])))


def describe_another_table(draw: Draw, root: Root) -> None:
    describe(root, drawn(draw)[0], **draw(st.sampled_from([{"table": "phonemes"}, {"fingerprint": "f" * 16}])))


def lose_a_description(draw: Draw, root: Root) -> None:
    name, _ = drawn(draw)
    (root.folder / name / root.tables[name] / "recipe.json").unlink()


def name_an_unknown_table(draw: Draw, root: Root) -> None:
    name = draw(st.text("abc", min_size=1, max_size=5))
    (root.folder / "index.json").write_text(json.dumps({"tables": root.versions | {name: f"{'0' * 16}@{'0' * 16}"}}))


def name_another_run(draw: Draw, root: Root) -> None:
    (root.folder / "index.json").write_text(
        json.dumps({"tables": root.versions | {drawn(draw)[0]: f"{'0' * 16}@{'0' * 16}"}})
    )


def lose_the_utterances(draw: Draw, root: Root) -> None:
    """Not those of the index: those that a table was made from."""
    describe(root, draw(st.sampled_from(BESIDE)), upstream={"utterances": "0" * 16})


ROOTS = {
    function.__name__.replace("_", " "): function
    for function in (
        change_a_byte,
        cut_a_file,
        lengthen_a_file,
        lose_a_file,
        lose_a_manifest,
        cut_a_manifest,
        swap_files,
        swap_manifests,
        swap_shards_and_vouch_for_them,
        take_a_manifest_of_another_run,
        take_a_manifest_of_another_table,
        take_a_file_of_another_run,
        take_rows_of_another_table,
        miscount_rows_in,
        miscount_rows_out,
        write_another_type_into_a_manifest,
        misplace_a_file,
        lose_a_row_and_vouch_for_it,
        say_a_key_twice_in_two_shards,
        invent_a_row,
        hear_nobody,
        go_beyond_the_audio,
        lose_the_rejects,
        cut_the_rejects,
        forget_the_rejects,
        misname_a_reason,
        refuse_a_row_that_is_there,
        take_rejects_of_another_stage,
        list_other_shards,
        lose_the_snapshot,
        put_a_path_into_the_snapshot,
        forge_an_entry,
        say_another_version,
        describe_another_table,
        lose_a_description,
        name_an_unknown_table,
        name_another_run,
        lose_the_utterances,
    )
}


def found_in(root: Root, rows: bool = True) -> list[str]:
    try:
        return [str(finding) for finding in check_dataset(str(root.folder), rows)]
    except LayoutError as error:
        return [str(error)]


def test_the_root_passes(restored: Callable[[], Root]) -> None:
    assert found_in(restored()) == [] and found_in(restored(), rows=False) == []


@pytest.mark.parametrize("rows", [True, False])
def test_findings_come_in_one_order(restored: Callable[[], Root], rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    root = restored()
    for name in ("utterances", *BESIDE):
        root.edit_manifest(name, 0, 2, rows_in=9)
        root.file(name, 1, 2).unlink()
    found = []
    for threads in (1, 2, 7):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        found.append(found_in(root, rows))
    assert len(found[0]) >= 10 and found[0] == found[1] == found[2]


@pytest.mark.parametrize("mutant", ROOTS)
@FEW_ROOTS
@given(data=st.data())
def test_a_broken_root_is_found(restored: Callable[[], Root], mutant: str, data: st.DataObject) -> None:
    root = restored()
    ROOTS[mutant](data.draw, root)
    assert found_in(root)


SEEN_WITHOUT_ROWS = {
    "cut a file",
    "lengthen a file",
    "lose a file",
    "lose a manifest",
    "cut a manifest",
    "swap manifests",
    "take a manifest of another run",
    "take a manifest of another table",
    "take a file of another run",
    "take rows of another table",
    "miscount rows in",
    "miscount rows out",
    "write another type into a manifest",
    "misplace a file",
    "lose the rejects",
    "cut the rejects",
    "forget the rejects",
    "list other shards",
    "lose the snapshot",
    "put a path into the snapshot",
    "say another version",
    "describe another table",
    "lose a description",
    "name an unknown table",
    "name another run",
}


@pytest.mark.parametrize("mutant", sorted(SEEN_WITHOUT_ROWS))
@settings(FEW_ROOTS, max_examples=2)
@given(data=st.data())
def test_manifests_and_footers_alone_show_it(restored: Callable[[], Root], mutant: str, data: st.DataObject) -> None:
    root = restored()
    ROOTS[mutant](data.draw, root)
    assert found_in(root, rows=False)


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) + len(COLUMNS) + len(ROOTS) >= 100

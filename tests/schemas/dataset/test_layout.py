"""How a dataset is found and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest
from tests.schemas.samples import Root, arrow, key, put_target, samples


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root")
    root.put("utterances", samples("utterances", 3), samples("utterances", 3, first=3))
    return root


def test_a_table_is_read_in_the_shards_order(root: Root) -> None:
    table = root.dataset.read("utterances", [KEY, "audio.path", "role"])
    assert table[KEY].to_pylist() == [key(number) for number in range(6)]
    assert table["audio"].to_pylist()[4] == {"path": "4.flac"}


@pytest.mark.parametrize("name", ["transcripts", "echo_targets", "training/echo"])
def test_lists_are_read_across_row_groups(root: Root, name: str) -> None:
    rows = samples(name, 2_500)
    for number, row in enumerate(rows):
        reasons = [("end", "length")[number // 2_400], "repetition"]
        row |= {"flags": reasons} if name == "transcripts" else put_target(row, stop_reason=reasons)
    root.put(name, rows)
    assert root.dataset.read(name).to_pylist() == arrow(name, rows).to_pylist()
    (manifest,) = root.dataset.manifests(name)
    with root.dataset.open(manifest.output.path) as file:  # as HF `datasets` reads it
        assert sum(map(len, file.iter_batches(1000))) == 2_500


def test_a_shard_without_a_manifest_does_not_exist(root: Root) -> None:
    root.manifest("utterances", 0, 2).unlink()
    assert root.dataset.manifest("utterances", root.tables["utterances"], root.ids[0]) is None
    assert list(root.dataset.committed("utterances", root.tables["utterances"], root.ids)) == [root.ids[1]]
    with pytest.raises(LayoutError, match=rf"1 of 2 shards of .* are missing, for example {root.ids[0]}"):
        root.dataset.read("utterances")


def test_the_rejects_of_all_tables_are_a_table(root: Root) -> None:
    assert root.dataset.read("rejects").num_rows == 0
    root.put("units", samples("units", 3), samples("units", 3, first=3))
    root.put_rejects("units", samples("rejects", 2, first=40))
    root.put_rejects("utterances", samples("rejects", 3, first=50), shard=1)
    rejects = root.dataset.read("rejects", [KEY, "stage"]).to_pylist()
    assert [row["stage"] for row in rejects] == ["utterances"] * 3 + ["units"] * 2


def test_versions_have_names(root: Root) -> None:
    current = root.dataset.current("utterances")
    for name in (str(current), current.recipe, current.recipe[:4], f"{current.recipe[:5]}@{current.snapshot[:4]}"):
        assert root.dataset.named("utterances", name) == current
    root.put("utterances", samples("utterances", 3), variant="new")  # one shard: another snapshot, too
    for version in (current, str(current)):
        assert root.dataset.read("utterances", [KEY], version=version).num_rows == 6
    assert root.dataset.read("utterances", [KEY]).num_rows == 3
    for name in ("g" * 16, "fff@", "zz", current.recipe, ""):  # the old recipe has shards of both snapshots
        with pytest.raises(LayoutError, match=f"versions of utterances are named {name}, expected one"):
            root.dataset.named("utterances", name)
    index = json.loads((root.folder / "index.json").read_text())
    (root.folder / "index.json").write_text(json.dumps(index | {"labels": {"first": {"utterances": str(current)}}}))
    assert root.dataset.named("utterances", "first") == current
    with pytest.raises(LayoutError, match="the label first has no version of units"):
        root.dataset.named("units", "first")


@pytest.mark.parametrize("version", ["../../etc@0000000000000000", "0000000000000000", "", None, 3])
def test_an_index_is_no_path_to_other_files(root: Root, version: object) -> None:
    (root.folder / "index.json").write_text(json.dumps({"tables": {"utterances": version}}))
    with pytest.raises(LayoutError, match="does not name a version of each table as recipe@snapshot"):
        root.dataset.tables()


def test_a_manifest_comes_back_as_it_went(root: Root) -> None:
    root.put_rejects("utterances", samples("rejects", 2, first=50), shard=1, shards=2)
    for manifest in root.dataset.manifests("utterances"):
        assert Manifest.from_json(json.loads(manifest.to_json())) == manifest


@pytest.mark.parametrize("place", ["with space", "per%20cent", "häsh#mark", "ques?tion"])
def test_roots_of_any_name(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root(tmp_path / place)
    root.put("utterances", samples("utterances", 3))
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / place), place, f"./{place}/", (tmp_path / place).as_uri()):
        assert Dataset(name).read("utterances").num_rows == 3


def test_what_is_missing_or_damaged_is_named(root: Root, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"index\.json: no such file; is this the root"):
        Dataset(str(tmp_path / "nowhere")).tables()
    with pytest.raises(LayoutError, match=r"no table 'units'\. Tables are utterances"):
        list(root.dataset.manifests("units"))
    with pytest.raises(LayoutError, match=r"units/ff/recipe\.json: no such file"):
        root.dataset.recipe("units", "ff")
    description = root.file("utterances", 0, 2).with_name("recipe.json")
    description.write_text('{"stage": "ingest"}')
    with pytest.raises(LayoutError, match=r"recipe\.json: .*missing"):
        root.dataset.recipe("utterances", root.tables["utterances"])
    for damage in ("", "[]", '{"tables": []}', '{"table": {}}'):
        (root.folder / "index.json").write_text(damage)
        with pytest.raises(LayoutError, match=r"index\.json"):
            root.dataset.tables()

"""How a dataset is found and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest, shard_name
from tests.schemas.samples import Root, arrow, key, samples


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root")
    root.put("utterances", samples("utterances", 3), samples("utterances", 3, first=3))
    return root


def test_names_sort_as_the_shards_do() -> None:
    assert shard_name(3, 12) == "part-00003-of-00012"
    names = [shard_name(number, 190) for number in range(190)]
    assert names == sorted(names)


def test_a_table_is_read_in_the_shards_order(root: Root) -> None:
    table = root.dataset.read("utterances", [KEY, "audio.path", "role"])
    assert table[KEY].to_pylist() == [key(number) for number in range(6)]
    assert table["audio"].to_pylist()[4] == {"path": "4.flac"}


@pytest.mark.parametrize("name", ["transcripts", "echo_targets", "training/echo"])
def test_lists_are_read_across_row_groups(root: Root, name: str) -> None:
    rows = samples(name, 2_500)
    for number, row in enumerate(rows):
        row["flags" if name == "transcripts" else "stop_reason"] = [("end", "length")[number // 2_400], "repetition"]
    root.put(name, rows)
    assert root.dataset.read(name).to_pylist() == arrow(name, rows).to_pylist()
    (manifest,) = root.dataset.manifests(name)
    with root.dataset.open(manifest.output.path) as file:  # as HF `datasets` reads it
        assert sum(map(len, file.iter_batches(1000))) == 2_500


def test_a_shard_without_a_manifest_does_not_exist(root: Root) -> None:
    root.manifest("utterances", 0, 2).unlink()
    assert root.dataset.manifest("utterances", root.tables["utterances"], 0, 2) is None
    assert [manifest.shard for manifest in root.dataset.manifests("utterances")] == [1]
    assert root.dataset.read("utterances").num_rows == 3


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
    with pytest.raises(LayoutError, match=r"units/ff/stage\.json: no such file"):
        root.dataset.stage("units", "ff")
    description = root.file("utterances", 0, 2).with_name("stage.json")
    description.write_text('{"stage": "ingest"}')
    with pytest.raises(LayoutError, match=r"stage\.json: .*missing"):
        root.dataset.stage("utterances", root.tables["utterances"])
    for damage in ("", "[]", '{"tables": []}', '{"table": {}}'):
        (root.folder / "index.json").write_text(damage)
        with pytest.raises(LayoutError, match=r"index\.json"):
            root.dataset.tables()

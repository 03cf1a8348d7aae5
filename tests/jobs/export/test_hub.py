"""hub: what `load_dataset` makes of the folder, streaming and not, and what the card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from echo_targets.jobs.export.hub import Hub, _regrouped
from echo_targets.jobs.export.hub_card import feature
from echo_targets.jobs.export.resume import Report, export
from echo_targets.schemas import TABLES
from echo_targets.schemas.errors import UserError
from tests.jobs.export.roots import Turns, pcm_of, root_of_turns
from tests.jobs.test_escapes import HOSTILE
from tests.schemas.samples import Root, Row, arrow, sample

datasets = pytest.importorskip("datasets")

ECHO = "training/echo"


def exported(root: Root, out: Path, *filters: str, version: str | None = None) -> Report:
    return export(Hub(root.dataset, version, filters), filters, str(out))


def load(out: Path, cache: Path, streaming: bool, *config: str) -> Any:
    return datasets.load_dataset(str(out), *config, streaming=streaming, cache_dir=str(cache))


def rows_of(loaded: Any) -> dict[str, Row]:
    """All rows, by key, with audio as it is stored."""
    return {
        row["utterance_id"]: row
        for part in loaded.values()
        for row in part.cast_column("audio", datasets.Audio(decode=False))
    }


def front(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    return value


@pytest.mark.parametrize("streaming", [True, False])
def test_a_single_training_set_loads_without_arguments(
    root: Root, turns: Turns, streaming: bool, tmp_path: Path
) -> None:
    report = exported(root, tmp_path / "out")
    assert report.rows == {ECHO: {"train": 8, "test-clean/x": 4}} and report.left_out == {}
    loaded = load(tmp_path / "out", tmp_path / "cache", streaming)
    assert {name.partition("_x")[0] for name in loaded} == {"train", "test_clean"}
    assert all(part.features["audio"] == datasets.Audio(sampling_rate=16_000) for part in loaded.values())
    expected = {row["utterance_id"]: row for row in root.dataset.read(ECHO).to_pylist()}
    found = rows_of(loaded)
    assert found == expected
    for key, row in found.items():
        np.testing.assert_array_equal(pcm_of(row["audio"]["bytes"]), pcm_of(expected[key]["audio"]["bytes"]))


def test_files_are_named_and_counted_as_the_hub_wants(root: Root, tmp_path: Path) -> None:
    exported(root, tmp_path)
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert [name for name in names if name.startswith("train")] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "data").iterdir()) == 12
    (info,) = front(tmp_path)["dataset_info"]
    assert {split["name"]: split["num_examples"] for split in info["splits"]}["train"] == 8


@pytest.mark.parametrize("name", [name for name in TABLES if name.startswith("training/")])
def test_features_are_written_as_datasets_writes_them(name: str) -> None:
    from echo_targets.pipeline.compare import plain_strings

    schema = plain_strings(TABLES[name].schema.empty_table()).schema
    own = [{"name": field.name, **feature(field.type)} for field in schema]
    features = datasets.Features.from_arrow_schema(schema)
    if "audio" in features:
        features["audio"] = datasets.Audio(sampling_rate=16_000)
    assert own == features._to_yaml_list()
    assert datasets.Features._from_yaml_list(own) == features


def test_row_groups_are_full_however_few_rows_a_filter_leaves() -> None:
    sizes = [30, 80, 5, 250, 0, 1]
    rows = [
        pa.table({"n": pa.array(range(sum(sizes[:place]), sum(sizes[: place + 1])), pa.int64())})
        for place in range(len(sizes))
    ]
    groups = list(_regrouped(iter(rows), 100))
    assert [len(group) for group in groups] == [100, 100, 100, 66]
    assert [n for group in groups for n in group["n"].to_pylist()] == list(range(366))
    assert list(_regrouped(iter([]), 100)) == []


def of_several(folder: Path) -> Root:
    """A root of three training sets."""
    root = Root(folder)
    root.put(
        "utterances", *[[sample("utterances", n) | {"language": "English"} for n in part] for part in ([0, 1, 2], [3])]
    )
    for name in ("training/s2t", "training/t2c", ECHO):
        root.put(name, [sample(name, n) for n in range(3)], [sample(name, 3)])
    return root


@pytest.mark.parametrize("streaming", [True, False])
def test_several_training_sets_are_configs_and_the_first_is_the_default(streaming: bool, tmp_path: Path) -> None:
    root = of_several(tmp_path / "root")
    exported(root, tmp_path / "out")
    cache = tmp_path / "cache"
    assert datasets.get_dataset_config_names(str(tmp_path / "out")) == ["s2t", "t2c", "echo"]
    for config in ("s2t", "t2c", "echo"):
        part = load(tmp_path / "out", cache, streaming, config)["train"]
        if "audio" in part.features:
            part = part.cast_column("audio", datasets.Audio(decode=False))
        assert list(part) == root.dataset.read(f"training/{config}").to_pylist()
    assert (
        load(tmp_path / "out", cache, streaming)["train"].features
        == load(tmp_path / "out", cache, streaming, "s2t")["train"].features
    )


def test_an_unfinished_export_loads_nothing(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "finish", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exported(root, tmp_path / "out")
    assert list((tmp_path / "out" / "data").glob("*.parquet")), "all data are there"
    with pytest.raises((FileNotFoundError, datasets.exceptions.DatasetNotFoundError)):
        datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))


def with_license(folder: Path, *licenses: str) -> dict[str, Any]:
    root = Root(folder / "root")
    root.put("utterances", [sample("utterances", n) | {"license": one} for n, one in enumerate(licenses)])
    root.put(ECHO, [sample(ECHO, n) for n in range(len(licenses))])
    exported(root, folder / "out")
    return front(folder / "out")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["CC-BY-4.0"], "cc-by-4.0"),
        (["MIT", "CC-BY-4.0"], ["cc-by-4.0", "mit"]),
        (["CC-BY-4.0", "LDC User Agreement"], "other"),
        ([""], "unknown"),
    ],
)
def test_the_license_is_that_of_the_sources(licenses: list[str], expected: Any, tmp_path: Path) -> None:
    assert with_license(tmp_path, *licenses)["license"] == expected


def test_the_card_has_language_and_size(tmp_path: Path) -> None:
    exported(of_several(tmp_path / "root"), tmp_path / "out")
    about = front(tmp_path / "out")
    assert (about["language"], about["size_categories"]) == (["en"], ["n<1K"])
    assert [config.get("default") for config in about["configs"]] == [True, None, None]


def test_only_corpora_that_are_exported_are_in_the_card(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    corpora = ["calls", "secret"]
    root.put("utterances", [sample("utterances", n) | {"corpus": one, "license": one} for n, one in enumerate(corpora)])
    root.put(ECHO, [sample(ECHO, n) | {"corpus": one} for n, one in enumerate(corpora)])
    exported(root, tmp_path / "out", "corpus == calls")
    assert "secret" not in (tmp_path / "out" / "README.md").read_text()


def test_hostile_text_is_escaped_in_the_card(tmp_path: Path) -> None:
    hostile = f"{HOSTILE}\n---\nlicense: mit\n| a | b |\n# Title"
    root = Root(tmp_path / "root")
    changes = {"corpus": hostile, "split": hostile, "language": hostile}
    root.put("utterances", [sample("utterances", 0) | changes | {"license": hostile}])
    root.put(ECHO, arrow(ECHO, [sample(ECHO, 0) | changes]))
    exported(root, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert front(tmp_path / "out")["license"] == "other" and "language" not in front(tmp_path / "out")
    assert "\x1b" not in text and "<script>" not in text and "\n# Title" not in text and "![i]" not in text
    (part,) = load(tmp_path / "out", tmp_path / "cache", True).values()
    assert next(iter(part.cast_column("audio", datasets.Audio(decode=False))))["corpus"] == hostile


def test_a_root_without_training_sets_is_refused(turns: Turns, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.put("utterances", turns.rows)
    with pytest.raises(UserError, match=r"no training set.*publish_s2t"):
        exported(root, tmp_path / "out")


def test_a_recipe_names_the_one_table_that_has_it(tmp_path: Path) -> None:
    root = of_several(tmp_path / "root")
    report = exported(root, tmp_path / "out", version=root.tables["training/t2c"])
    assert report.rows == {"training/t2c": {"train": 4}}
    assert (tmp_path / "out" / "data" / "train-00000-of-00002.parquet").is_file()


def test_a_filter_on_a_column_of_one_training_set_says_how_to_export_that_one(tmp_path: Path) -> None:
    root = of_several(tmp_path / "root")
    with pytest.raises(UserError, match=r"training/s2t has no column target_cer.*name its version with --version"):
        exported(root, tmp_path / "out", "target_cer <= 0.1")
    report = exported(root, tmp_path / "out", "num_frames >= 1", version=root.tables["training/t2c"])
    assert report.total == 4


def test_an_empty_training_set_is_no_config(tmp_path: Path, turns: Turns) -> None:
    root = root_of_turns(tmp_path / "root", turns)
    root.put("training/s2t", arrow("training/s2t", []))
    report = exported(root, tmp_path / "out")
    assert report.rows["training/s2t"] == {}
    assert [config["config_name"] for config in front(tmp_path / "out")["configs"]] == ["echo"]

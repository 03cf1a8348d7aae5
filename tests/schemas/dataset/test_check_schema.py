"""The check of a shard's schema, metadata and keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.check import Finding, check_file
from echo_targets.schemas.tables.base import CATEGORY, column, list_of
from tests.schemas.dataset.checked import BESIDE_UTTERANCES, FINGERPRINT, check, findings_of, rules_of
from tests.schemas.samples import Root, arrow, key, opened, parquet, sample, samples


def schema_findings(rows: pa.Table, name: str, **about: str) -> list[Finding]:
    return list(check_file(opened(parquet(rows, TABLES[name], FINGERPRINT, about)), TABLES[name], "p", FINGERPRINT))


def retyped(rows: pa.Table, name: str, field: pa.Field) -> pa.Table:
    """`rows` with one column of another type, its values cast."""
    position = rows.column_names.index(name)
    return rows.set_column(position, field, rows[name].cast(field.type))


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_a_surplus_and_a_moved_column(name: str) -> None:
    rows = arrow(name, samples(name, 2))
    last = rows.column_names[-1]
    surplus = rows.append_column("mood", pa.array(["good", "bad"]))
    moved = rows.select([last, *rows.column_names[:-1]])
    for broken, words in (
        (rows.drop_columns([last]), f"column {last} is missing"),
        (surplus, "column mood is not in"),
        (moved, "not in the order of the schema"),
    ):
        found = schema_findings(broken, name)
        assert rules_of(found) == {"schema"} and words in str(found[0])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("units", column("num_frames", pa.int64())),
        ("units", column("units", list_of(list_of(pa.int64())))),
        ("units", column("units", pa.large_list(pa.field("element", list_of(pa.int32()), nullable=False)))),
        ("units", column("units", list_of(pa.list_(pa.int32())))),  # elements may be null
        ("units", column("codebook_id", pa.string())),
        ("units", column("num_frames", pa.int32(), nullable=True)),
        ("utterances", column("audio_sha256", pa.binary(32))),
        ("transcripts", column("language_prob", pa.float64(), nullable=True)),
        ("training/echo", column("unit_targets", list_of(list_of(list_of(pa.int64()))))),
        ("rejects", column("stage", pa.dictionary(pa.int8(), pa.string()))),
    ],
    ids=lambda value: str(value),
)
def test_a_column_of_another_type(name: str, field: pa.Field) -> None:
    found = schema_findings(retyped(arrow(name, samples(name, 2)), field.name, field), name)
    assert rules_of(found) == {"schema"} and f"column {field.name} is" in str(found[0])


@pytest.mark.parametrize(
    ("key_", "value"),
    [
        ("schema_name", ""),
        ("schema_name", "transcripts"),
        ("schema_version", ""),
        ("schema_version", "0.9.0"),
        ("fingerprint", ""),
        ("fingerprint", "ffffffffffffffff"),
    ],
)
def test_wrong_or_missing_metadata(key_: str, value: str) -> None:
    found = schema_findings(arrow("units", samples("units", 1)), "units", **{key_: value})
    assert rules_of(found) == {"metadata"} and key_ in str(found[0])


def test_a_lone_shard_needs_some_fingerprint() -> None:
    rows = arrow("units", samples("units", 1))
    assert list(check_file(opened(parquet(rows, TABLES["units"], "any")), TABLES["units"], "p")) == []
    found = list(check_file(opened(parquet(rows, TABLES["units"], "")), TABLES["units"], "p"))
    assert rules_of(found) == {"metadata"}


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_twice_in_a_shard() -> None:
    found = findings_of("units", [*samples("units", 3), sample("units", 1)])
    assert [(finding.rule, finding.row) for finding in found] == [("key_unique", key(1))]


def test_a_key_twice_across_shards(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("utterances", samples("utterances", 3), samples("utterances", 3, first=2))
    found = check(root)
    assert [(finding.rule, finding.shard, finding.row) for finding in found] == [("key_unique", "all", key(2))]


@pytest.mark.parametrize("name", BESIDE_UTTERANCES)
def test_a_key_without_an_utterance(root: Root, name: str) -> None:
    root.put(name, [*samples(name, 3), sample(name, 77) | ({"user_audio_ids": []} if "echo" in name else {})], [])
    found = check(root)
    assert [(finding.rule, finding.table, finding.row) for finding in found] == [("key_resolves", name, key(77))]


@pytest.mark.parametrize("name", ["echo_targets", "training/echo"])
def test_a_user_turn_without_an_utterance(root: Root, name: str) -> None:
    root.put(name, [*samples(name, 3), sample(name, 3) | {"user_audio_ids": [key(2), "nobody"]}], [])
    found = check(root)
    found_at = [(finding.rule, finding.table, finding.row) for finding in found]
    assert found_at == [("user_audio_resolves", name, "nobody")]


def test_a_table_is_checked_against_the_utterances_it_was_made_from(root: Root) -> None:
    """Between two stages of a job the index names new utterances beside units of the old ones."""
    old = root.tables["utterances"]
    other = [[row | {"license": "MIT"} for row in samples("utterances", 4, first=first)] for first in (0, 4)]
    root.put("utterances", *other, variant="new")
    assert check(root) == []
    shutil.rmtree(root.folder / "utterances" / old)
    assert rules_of(check(root)) == {"upstream"}


def test_the_schema_of_every_table_is_what_it_says() -> None:
    """Keys first and never null; categories where the values repeat."""
    for table in TABLES.values():
        assert table.schema.field(0).equals(column(KEY, pa.string()))
        assert table.row_group_rows in (1, 100, 1000)
        assert all(name.partition(".")[0] in table.columns for name in table.unchecked)
    assert TABLES["units"].schema.field("codebook_id").type == CATEGORY

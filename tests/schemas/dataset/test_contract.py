"""The published contract is the code's, and a change of it is told and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.contract import (
    FOLDER,
    Column,
    Contract,
    changes_since,
    compare,
    contract_of,
    main,
    misfit,
    read,
)
from echo_targets.schemas.errors import UserError
from tests.schemas.samples import Root, arrow, parquet, samples

UNITS = contract_of(TABLES["units"])
REGENERATE = "the contract is not the code's; if that is meant: python -m echo_targets.schemas.dataset.contract"


def test_the_published_contract_is_the_code_s() -> None:
    published, _ = read(str(FOLDER))
    assert published == {table.name: contract_of(table) for table in TABLES.values()}, REGENERATE


def test_one_command_writes_it(tmp_path: Path) -> None:
    (tmp_path / "phonemes.json").write_text("{}")  # a table that is no more
    main(tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.json")} == {
        path.relative_to(FOLDER).as_posix(): path.read_text() for path in FOLDER.rglob("*.json")
    }, REGENERATE


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_column_says_what_it_means(table: Any) -> None:
    assert all(column.means for column in contract_of(table).columns)


def column(contract: Contract, name: str, /, **changes: Any) -> Contract:
    """The contract with one column changed."""
    columns = tuple(replace(column, **changes) if column.name == name else column for column in contract.columns)
    return replace(contract, columns=columns)


def rules(**changes: str | None) -> Contract:
    """The contract of units with rules changed, added, and (None) removed."""
    assert UNITS.rules is not None
    return replace(UNITS, rules={name: says for name, says in (UNITS.rules | changes).items() if says is not None})


CHANGES: dict[str, tuple[Contract, bool, str]] = {
    "nothing of note": (column(UNITS, "units", means=None), False, ""),
    "a type": (column(UNITS, "num_frames", type="int64"), True, "num_frames was int32 not null and is int64 not null"),
    "a null that may not be": (column(UNITS, "unit_words", nullable=False), True, "unit_words was"),
    "a null that may be": (column(UNITS, "units", nullable=True), True, "units was"),
    "a meaning": (column(UNITS, "durations", means="milliseconds"), True, "means “milliseconds”"),
    "a name": (column(UNITS, "layer", name="depth"), True, "column layer (int8) was removed"),
    "a column less": (replace(UNITS, columns=UNITS.columns[:-1]), True, "unit_language_id"),
    "a column more": (replace(UNITS, columns=(*UNITS.columns, Column("mood", "string", True))), False, "mood (string)"),
    "a column more, never null": (
        replace(UNITS, columns=(*UNITS.columns, Column("mood", "string", False))),
        True,
        "mood (string not null) is new",
    ),
    "the order": (replace(UNITS, columns=UNITS.columns[::-1]), True, "order of columns"),
    "a rule less": (rules(durations_sum=None), False, "rule durations_sum was removed"),
    "a rule more": (rules(units_few="at most 9 units"), True, "rule units_few is new"),
    "a wider range": (rules(layer_range="layer is in [-1, 128]"), False, "layer_range"),
    "a narrower range": (rules(layer_range="layer is in [0, 126]"), True, "layer_range"),
    "a shifted range": (rules(layer_range="layer is in [1, 300]"), True, "layer_range"),
    "another statement": (rules(durations_sum="durations sum to num_samples"), True, "durations_sum"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told_and_judged(name: str) -> None:
    new, breaking, says = CHANGES[name]
    found = compare(UNITS, new)
    assert any(change.breaking for change in found) == breaking
    assert says in "\n".join(change.says for change in found) and bool(found) == bool(says)


def test_more_words_are_looser_and_fewer_are_not() -> None:
    one, two = (replace(UNITS, rules={"tier_known": f"tier is one of {words}"}) for words in ("word", "word, phone"))
    assert [change.breaking for change in compare(one, two)] == [False]
    assert [change.breaking for change in compare(two, one)] == [True]


@pytest.mark.parametrize(
    ("change", "version", "wanted"),
    [
        ("nothing of note", "3.0.0", None),
        ("nothing of note", "3.0.1", None),
        ("nothing of note", "2.9.9", "went back"),
        ("a column more", "3.0.0", "requires 3.1.0"),
        ("a column more", "3.0.7", "requires 3.1.0"),
        ("a column more", "3.1.0", None),
        ("a column more", "4.0.0", None),
        ("a type", "3.0.0", "requires 4.0.0"),
        ("a type", "3.9.0", "requires 4.0.0"),
        ("a type", "4.0.0", None),
        ("a type", "2.1.0", "went back"),
    ],
)
def test_the_version_says_what_kind_of_change_it_is(change: str, version: str, wanted: str | None) -> None:
    new = replace(CHANGES[change][0], schema_version=version)
    said = misfit(UNITS, new, compare(UNITS, new))
    assert (said is None) == (wanted is None) and (wanted or "") in (said or "")


@given(st.data())
def test_a_contract_survives_its_file_and_differs_from_any_other(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TABLES)))
    contract = contract_of(TABLES[name])
    assert Contract.from_json(contract.to_json().encode(), "here") == contract and compare(contract, contract) == []
    chosen = data.draw(st.sampled_from(contract.columns))
    changes = {"type": "null", "nullable": not chosen.nullable, "means": "something else", "name": f"{chosen.name}_"}
    field = data.draw(st.sampled_from(sorted(changes)))
    found = compare(contract, column(contract, chosen.name, **{field: changes[field]}))
    assert any(change.breaking and chosen.name in change.says for change in found)


# -- what it can be compared with ------------------------------------------------------------------------------------


def published(folder: Path, *changed: Contract) -> str:
    """The contract's files, with some changed."""
    main(folder)
    for contract in changed:
        (folder / f"{contract.table}.json").write_text(contract.to_json())
    return str(folder)


def told(place: str, now: str | None = None) -> list[tuple[str, str, bool]]:
    return [(finding.table, finding.rule, finding.breaks) for finding in changes_since(place, now)]


def test_against_contracts(tmp_path: Path) -> None:
    folder = published(tmp_path, column(UNITS, "num_frames", type="int64"))
    assert told(folder) == [("units", "breaking", True), ("units", "schema_version", True)]
    assert told(f"{folder}/units.json") == told(folder)
    assert told(f"{folder}/training/t2c.json") == []
    (tmp_path / "phonemes.json").write_text(replace(UNITS, table="phonemes").to_json())
    (tmp_path / "rejects.json").unlink()
    assert {("phonemes", "breaking", True), ("rejects", "compatible", False)} <= set(told(folder))


def test_against_a_dataset_and_a_shard(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.put("utterances", samples("utterances", 2))
    root.put("units", samples("units", 2))
    assert told(str(root.folder)) == []
    rows = arrow("units", samples("units", 2)).drop_columns(["num_frames"])
    old = parquet(rows, TABLES["units"], root.tables["units"], {"schema_version": "0.3.0"})
    root.put_file("units", 0, old, 2)
    expected = [("units", "breaking", True)]  # the version fits: 0.3.0 to 3.0.0
    assert told(str(root.folder)) == told(str(root.file("units"))) == expected
    newer = published(tmp_path / "contract", replace(UNITS, schema_version="4.0.0"))
    assert told(newer, str(root.folder)) == [("units", "breaking", True), ("units", "schema_version", True)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("gone.json", None),
        ("units.json", b"{"),
        ("units.json", b"[]"),
        ("units.json", b'{"table": "units"}'),
        ("units.json", UNITS.to_json().replace("3.0.0", "two").encode()),
        ("units.json", replace(UNITS, table="phonemes").to_json().encode()),
        ("part.parquet", None),
        ("part.parquet", b"PAR1 and no more"),
        ("nothing", None),
    ],
)
def test_what_is_no_contract_is_an_error_that_names_it(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
        told(str(tmp_path / name))


def test_a_parquet_file_that_is_no_shard(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="schema_name"):
        told(str(tmp_path / "a.parquet"))


def test_a_contract_is_json_that_diffs_well() -> None:
    for path in FOLDER.rglob("*.json"):
        text = path.read_text()
        assert json.loads(text)["table"] == path.relative_to(FOLDER).with_suffix("").as_posix()
        assert text.endswith("}\n") and all(len(line) < 300 for line in text.splitlines())

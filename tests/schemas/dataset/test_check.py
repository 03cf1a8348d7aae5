"""The check of a whole root: files, manifests, rejects, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import LayoutError
from tests.schemas.dataset.checked import check, rules_of
from tests.schemas.samples import Root, Row, arrow, opened, parquet, sample, samples

UNKNOWN = f"{'0' * 16}@{'0' * 16}"


def test_a_whole_root_passes(root: Root) -> None:
    root.put_rejects("units", samples("rejects", 2, first=20), shard=1, shards=2)
    assert check(root) == []


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def middle_of_a_page(data: bytes, column_name: str) -> int:
    with opened(data) as file:
        group = file.metadata.row_group(0)
        chunk = next(c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == column_name)
    return chunk.dictionary_page_offset + chunk.total_compressed_size - 2


def test_a_changed_byte_changes_the_digest(root: Root) -> None:
    path = root.file("units", 1, 2)
    path.write_bytes(flipped(path.read_bytes(), 100))
    found = check(root)
    assert [(finding.rule, finding.table) for finding in found] == [("digest", "units")]


@pytest.mark.parametrize("name", ["utterance_id", "units.list.element.list.element", "codebook_size"])
def test_a_damaged_page_is_caught_by_its_checksum(root: Root, name: str) -> None:
    """Even where someone made the manifest agree."""
    data = root.file("units", 0, 2).read_bytes()
    root.put_file("units", 0, flipped(data, middle_of_a_page(data, name)), 4, 2)
    found = check(root)
    assert [(finding.rule, finding.shard) for finding in found] == [("readable", root.ids[0])]
    assert "CRC" in found[0].message


@pytest.mark.parametrize("keep", [0, 3, 500, -1, -9])
def test_a_truncated_file(root: Root, keep: int) -> None:
    path = root.file("transcripts", 0, 2)
    data = path.read_bytes()[:keep]
    path.write_bytes(data)
    assert rules_of(check(root)) == {"digest"}
    root.put_file("transcripts", 0, data, 4, 2)
    assert rules_of(check(root)) == {"readable"}


def test_a_file_that_is_gone(root: Root) -> None:
    root.file("alignments", 1, 2).unlink()
    found = check(root)
    assert [(finding.rule, finding.table) for finding in found] == [("present", "alignments")]


def test_utterances_that_are_gone_or_damaged_do_not_stop_the_check(root: Root) -> None:
    root.put("alignments", samples("alignments", 3), [*samples("alignments", 2, first=4), sample("alignments", 4)])
    root.file("utterances", 0, 2).unlink()
    data = root.file("utterances", 1, 2).read_bytes()
    root.put_file("utterances", 1, flipped(data, middle_of_a_page(data, KEY)), 4, 2)
    found = check(root)
    assert ("utterances", "present") in {(finding.table, finding.rule) for finding in found}
    assert ("utterances", "readable") in {(finding.table, finding.rule) for finding in found}
    assert ("alignments", "key_unique") in {(finding.table, finding.rule) for finding in found}
    assert {finding.rule for finding in found if finding.table != "utterances"} == {"upstream", "key_unique"}


def test_utterances_of_another_schema_do_not_stop_the_check(root: Root) -> None:
    rows = arrow("utterances", samples("utterances", 4)).drop_columns(["num_samples"])
    root.put_file("utterances", 0, parquet(rows, TABLES["utterances"], root.tables["utterances"]), 4, 2)
    found = check(root)
    assert {finding.rule for finding in found if finding.table == "utterances"} == {"schema"}
    assert {finding.rule for finding in found if finding.table != "utterances"} == {"upstream"}


def test_a_shard_without_a_manifest_is_not_committed(root: Root) -> None:
    root.manifest("units", 1, 2).unlink()
    found = check(root)
    assert [(finding.rule, finding.shard) for finding in found] == [("committed", root.ids[1])]


def test_a_manifest_of_another_run_or_shard(root: Root) -> None:
    root.edit_manifest("units", 0, 2, fingerprint="ffffffffffffffff")
    root.manifest("units", 1, 2).write_bytes(root.manifest("units", 0, 2).read_bytes())
    found = check(root)
    assert rules_of(found) == {"manifest"}
    assert [finding.shard for finding in found] == [root.ids[0], root.ids[1], root.ids[1]]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"table": "units"}', b"\xff\xfe", b'{"rows_in": "four"}'])
def test_a_damaged_manifest_is_a_finding(root: Root, damage: bytes) -> None:
    root.manifest("units", 0, 2).write_bytes(damage)
    root.manifest("utterances", 1, 2).write_bytes(damage)
    found = check(root)
    assert {("units", root.ids[0], "manifest"), ("utterances", root.ids[1], "manifest")} <= {
        (finding.table, finding.shard, finding.rule) for finding in found
    }
    assert rules_of(found) == {"manifest", "upstream"}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"rows_in": 5}, {"rows_add_up"}),
        ({"rows_in": 3}, {"rows_add_up"}),
        ({"reasons": {"too_short": 1}}, {"rows_add_up"}),
    ],
)
def test_counts_that_do_not_add_up(root: Root, changes: Row, rules: set[str]) -> None:
    root.edit_manifest("units", 0, 2, **changes)
    assert rules_of(check(root)) == rules


def test_rows_that_the_manifest_counts_otherwise(root: Root) -> None:
    data = root.file("units", 0, 2).read_bytes()
    root.put_file("units", 0, data, rows=3, shards=2)
    assert rules_of(check(root)) == {"rows"}


def test_rejects_that_are_gone_damaged_or_broken(root: Root) -> None:
    root.put_rejects("units", samples("rejects", 2, first=20), shard=0, shards=2)
    root.put_rejects("alignments", [sample("rejects", 20) | {"message": ""}], shard=0, shards=2)
    root.put_rejects("transcripts", samples("rejects", 1), shard=0, shards=2)
    (gone,) = root.folder.glob("rejects/units/*/*.parquet")
    gone.unlink()
    (damaged,) = root.folder.glob("rejects/transcripts/*/*.parquet")
    damaged.write_bytes(flipped(damaged.read_bytes(), 50))
    found = check(root)
    assert {finding.table for finding in found} == {"rejects"}
    assert sorted(finding.rule for finding in found) == ["digest", "message_present", "present"]


def test_a_table_of_another_version_and_one_that_nobody_knows(root: Root) -> None:
    path = root.folder / "units" / root.tables["units"] / "recipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": "0.1.0"}))
    (root.folder / "index.json").write_text(json.dumps({"tables": root.versions | {"phonemes": UNKNOWN}}))
    assert rules_of(check(root)) == {"schema_version", "description", "known_table"}


def test_no_root_is_an_error_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"index\.json: no such file"):
        list(check_dataset(str(tmp_path)))
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(LayoutError, match=r"index\.json"):
        list(check_dataset(str(tmp_path)))


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Root, bytes, bytes]]:
    root = Root(tmp_path_factory.mktemp("one"))
    root.put("utterances", samples("utterances", 3))
    root.put("units", samples("units", 3))
    yield root, root.file("units").read_bytes(), root.manifest("units").read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_shard_or_its_manifest_is_found(
    one_shard: tuple[Root, bytes, bytes], data: st.DataObject
) -> None:
    root, shard, manifest = one_shard
    whole = data.draw(st.sampled_from([shard, manifest]))
    at, bits = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    changed = whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :]
    root.file("units").write_bytes(changed if whole is shard else shard)
    root.manifest("units").write_bytes(changed if whole is manifest else manifest)
    same_json = whole is manifest and _json(changed) == _json(manifest)
    only_samples = whole is manifest and not same_json and _without_samples(changed) == _without_samples(manifest)
    assert check(root) or same_json or only_samples


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def _without_samples(data: bytes) -> Any:
    """`samples` is the one number of a manifest that nothing else in the root tells."""
    value = _json(data)
    return {name: item for name, item in value.items() if name != "samples"} if isinstance(value, dict) else value


@pytest.mark.parametrize("command", ["echo_targets.jobs.commands.check", "echo_targets.jobs.cli"])
def test_the_check_loads_no_model_library(root: Root, command: str) -> None:
    call = (
        "check_command(root)"
        if command == "echo_targets.jobs.commands.check"
        else "app(['check', root], standalone_mode=False)"
    )
    script = f"""
import sys
from {command} import *
from {command} import {call.partition("(")[0]}
root = sys.argv[1]
{call}
heavy = {{"torch", "transformers", "whisper", "faster_whisper", "ray", "apache_beam", "datasets", "sklearn", "scipy"}}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(root.folder)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    summary, heavy = done.stdout.splitlines()
    assert "13 tables, 26 shards, 104 rows, no problems found" in summary
    assert heavy == "[]"

"""Filters that can't work are rejected before any row is read, by the column, the operator or the value at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.stream import TargetStream
from tests.schemas.samples import Root, samples


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table whose rows can't be read, only its footer."""
    root = Root(tmp_path_factory.mktemp("root"))
    root.put("utterances", samples("utterances", 6))
    root.put("training/echo", samples("training/echo", 6))
    data = root.file("training/echo").read_bytes()
    root.file("training/echo").write_bytes(bytes(len(data) // 4) + data[len(data) // 4 :])
    return str(root.folder)


@pytest.mark.parametrize(
    ("filters", "complaint"),
    [
        ([("no_such", ">", 9)], "training/echo has no column no_such; it has utterance_id, dialogue_id"),
        ([(["turn"], ">", 9)], r"has no column \['turn'\]"),
        ([("turn", "<>", 9)], "there is no operator '<>'; use one of ==, =, !=, <, <=, >, >=, in, not in"),
        ([("turn", ["=="], 9)], "there is no operator"),
        ([("turn", "==", "0")], "turn is compared with a number, not with '0'"),
        ([("turn", "==", True)], "turn is compared with a number, not with True"),
        ([("turn", "==", 10**30)], "turn is compared with a number"),
        ([("unit_error_rate", "<", float("nan"))], "unit_error_rate is compared with a number, not with nan"),
        (
            [("unit_error_rate", "==", None)],
            "unit_error_rate is compared with a number, not with None; a null passes no",
        ),
        ([("split", ">", 9)], "split is compared with a string, not with 9"),
        ([("split", "in", "train")], "the value of 'in' is a list of at least one string"),
        ([("split", "in", [])], "the value of 'in' is a list of at least one string"),
        ([("split", "not in", ["test", None])], "split is compared with a string, not with None"),
        ([("unit_targets", ">", 3)], "unit_targets is list.*a filter compares columns of strings, numbers or booleans"),
        ([("audio", "==", b"")], "audio is struct"),
        (("turn", "==", 0), "pass a list of filters like"),
        ("turn", "pass a list of filters like"),
        ([None], "pass a list of filters like"),
        ([[("turn", "==", 0)]], "pass a list of filters like"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_filter(filters: Any, complaint: str, root: str) -> None:
    with pytest.raises(UserError, match=complaint):
        TargetStream(root, "training/echo", filters=filters)


def test_booleans_and_no_filters(root: str) -> None:
    def count(filters: Any) -> int:
        return sum(len(rows) for _, rows in TargetStream(root, "utterances", filters=filters).batches())

    assert count(None) == count([]) == count([("synthetic", "==", False)]) == 6
    with pytest.raises(UserError, match="synthetic is compared with a bool, not with 1"):
        count([("synthetic", "==", 1)])


def test_an_empty_table_names_wrong_columns_too(tmp_path: Path) -> None:
    Root(tmp_path).put("training/echo", [])
    with pytest.raises(UserError, match="has no column no_such"):
        TargetStream(str(tmp_path), "training/echo", filters=[("no_such", ">", 9)])

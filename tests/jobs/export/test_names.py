"""Names of files from hostile text."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from echo_targets.jobs.export.names import hub_splits, safe_name

HOSTILE = ["", ".", "..", "/", "a/b", "a.b", "a b", "é", "\0", "x" * 101, "-rf", "_x_", "a\n", "\ud800", "__meta__"]


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_name_is_safe_everywhere(text: str) -> None:
    """No separator, no dot (WebDataset's keys end there), no leading dash or underscore, and short."""
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", safe_name(text))


def test_plain_text_is_its_own_name() -> None:
    assert safe_name("6930-75918-0001_b") == "6930-75918-0001_b"


@given(st.lists(st.text() | st.sampled_from(HOSTILE), unique=True))
def test_names_are_unique_though_someone_wrote_them_to_collide(texts: list[str]) -> None:
    forged = [*texts, *map(safe_name, texts)]
    distinct = list(dict.fromkeys(forged))
    assert len({safe_name(text) for text in distinct}) == len(distinct)


@given(st.lists(st.text() | st.sampled_from(["train", "all", "test-clean", "test_clean", "test.clean", "all_"])))
def test_splits_of_the_hub_are_what_datasets_accepts(listed: list[str]) -> None:
    names, splits = hub_splits([*listed, *listed]), set(listed)
    assert set(names) == splits and len(set(names.values())) == len(splits)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) and name != "all" for name in names.values())
    assert all(names[split] == split for split in splits & {"train", "test_clean"})

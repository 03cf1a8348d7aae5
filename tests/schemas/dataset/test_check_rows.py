"""The check of rows: a mutant of every rule is caught, and valid rows pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_targets.schemas import KEY, TABLES
from tests.schemas.dataset.checked import check, findings_of, rules_of
from tests.schemas.dataset.rule_mutants import ALSO, CROSS_MUTANTS, MUTANTS
from tests.schemas.samples import Root, key, put_target, sample, samples


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_valid_shard_passes(name: str, count: int) -> None:
    assert findings_of(name, samples(name, count)) == []


def test_every_rule_has_a_mutant() -> None:
    for name, table in TABLES.items():
        assert {rule.name for rule in table.rules} == MUTANTS.get(name, {}).keys(), name
        assert {rule.name for rule in table.cross_rules} == CROSS_MUTANTS.get(name, {}).keys(), name


@pytest.mark.parametrize("name", TABLES)
def test_names_of_rules_are_unique_in_their_table(name: str) -> None:
    names = [rule.name for rule in (*TABLES[name].rules, *TABLES[name].cross_rules)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in MUTANTS.items() for rule in rules])
def test_a_mutant_is_caught_under_its_rules_name(name: str, rule: str) -> None:
    rows = samples(name, 5)
    MUTANTS[name][rule](rows[2])
    findings = findings_of(name, rows)
    assert rule in rules_of(findings)
    assert rules_of(findings) <= {rule} | ALSO.get(rule, set())
    assert {finding.row for finding in findings} == {rows[2][KEY] or ""}
    assert f"{name} part" in str(findings[0]) and findings[0].rule in str(findings[0])


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in CROSS_MUTANTS.items() for rule in rules])
def test_a_row_that_disagrees_with_its_utterance_is_caught(root: Root, name: str, rule: str) -> None:
    rows = samples(name, 4)
    CROSS_MUTANTS[name][rule](rows[2])
    root.put(name, rows, samples(name, 4, first=4))
    found = check(root)
    assert rules_of(found) == {rule} and [finding.row for finding in found] == [key(2)]


@pytest.mark.parametrize("channel", [-128, -2, 127])
@pytest.mark.parametrize("number", [0, 4])
def test_a_gap_in_any_channel_is_its_rows_own(number: int, channel: int) -> None:
    rows = samples("cuts", 5)
    rows[number]["gaps"][0]["channel"] = channel
    assert [(one.rule, one.row) for one in findings_of("cuts", rows)] == [("tiled", key(number))]


def test_frames_of_audio_that_is_no_multiple_of_the_hop(tmp_path: Path) -> None:
    """num_frames is rounded up: 16,000 samples are 50 frames, 16,001 are 51."""
    for length, frames, rules in ((16_000, 50, set()), (16_001, 51, set()), (16_001, 50, {"frames_cover_audio"})):
        root = Root(tmp_path / f"{length}-{frames}")
        root.put("utterances", [sample("utterances") | {"num_samples": length}])
        root.put("units", [sample("units") | {"num_frames": frames, "durations": [1, frames - 3, 2]}])
        assert rules_of(check(root)) == rules


@pytest.mark.parametrize(
    ("rate", "hop", "length", "frames"),
    [(44_100, 512, 16_000, 87), (24_000, 320, 16_000, 75), (24_000, 320, 16_001, 76), (24_000, 1920, 1280, 1)],
)
def test_frames_that_are_no_whole_number_of_samples(
    tmp_path: Path, rate: int, hop: int, length: int, frames: int
) -> None:
    """The codecs' rates are exact: 86.13, 75 and 12.5 frames a second."""
    for off in (-1, 0, 1):
        root = Root(tmp_path / f"{off}")
        root.put("utterances", [sample("utterances") | {"num_samples": length}])
        row = sample("units") | {"sampling_rate": rate, "hop_samples": hop, "units": [[7]]}
        root.put("units", [row | {"num_frames": frames + off, "durations": [frames + off]}] if frames + off else [])
        assert rules_of(check(root)) == ({"frames_cover_audio"} if off and frames + off else set())


def test_a_hop_of_zero_is_a_finding_not_a_division(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("utterances", samples("utterances", 1))
    root.put("units", [sample("units") | {"hop_samples": 0}])
    assert rules_of(check(root)) == {"hop_samples_range", "frames_cover_audio"}


def test_many_broken_rows_are_counted_not_listed() -> None:
    found = findings_of("rejects", [row | {"attempts": 0} for row in samples("rejects", 10)])
    assert [finding.row for finding in found] == [key(0), key(1), key(2), None]
    assert "and 7 more rows" in str(found[3])


@pytest.mark.parametrize("name", ["echo_targets", "units"])
def test_ten_thousand_rows(name: str, tmp_path: Path) -> None:
    root = Root(tmp_path)
    count = 10_050  # more than one batch of the check
    root.put("utterances", samples("utterances", count))
    rows = samples(name, count)
    root.put(name, rows)
    assert check(root) == []
    rule = "units_in_codebook" if name == "units" else "t2c_units_in_codebook"
    for at in (0, 9_999, 10_000, count - 1):
        odd = [[99, 100, 99]] * rows[at].get("num_codebooks", 0)
        rows[at] |= {"units": odd} if name == "units" else put_target({"t2c": None}, units=[[[1, 2, 1]], [[100]]])
    root.put(name, rows)
    expected = {(rule, key(at)) for at in (0, 9_999, 10_000, count - 1)}
    assert {(finding.rule, finding.row) for finding in check(root)} == expected

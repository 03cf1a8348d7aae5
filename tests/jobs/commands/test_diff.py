"""Two versions of a table side by side, against differences that were put there on purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from echo_targets.jobs.arguments import ReportFormat
from echo_targets.jobs.commands.diff import diff_command
from echo_targets.jobs.versions import side_by_side as versions
from echo_targets.jobs.versions.difference import Difference, difference
from echo_targets.jobs.versions.side_by_side import side
from echo_targets.pipeline.plan import Plan
from echo_targets.schemas.dataset.layout import LayoutError
from tests.pipeline.stand_ins import Double, Follow, Inline, in_shards, job, stage
from tests.schemas.samples import Root, key, sample, samples


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Two versions of echo targets, in two shards; the second is current."""
    root = Root(tmp_path)
    root.put("utterances", samples("utterances", 6), samples("utterances", 6, 6))
    root.put("echo_targets", samples("echo_targets", 5), samples("echo_targets", 6, 6), variant="old")
    root.old = root.tables["echo_targets"]  # type: ignore[attr-defined]
    changed, longer = sample("echo_targets", 1), sample("echo_targets", 7)
    changed["t2c"] |= {"units": [[[1, 2, 1]], [[8]]], "unit_error_rate": 0.5}
    longer["t2c"] |= {"units": [[[5, 6, 5, 6]], [[7]]], "mean_logprob": [-0.5, -3.0]}
    longer["recorded"] |= {"units": [[[9, 9, 9], [5, 7, 6], [0, 0, 0]], [[], [], []]], "durations": [[2, 10, 1], []]}
    renamed = [row | {"echo_model_id": "newer"} for row in samples("echo_targets", 6)]
    rows = [row | {"echo_model_id": "newer"} for row in samples("echo_targets", 5, 6)]
    renamed[1], rows[1] = changed, longer
    root.put("echo_targets", renamed, rows)
    root.put_rejects("echo_targets", [{**sample("rejects"), "utterance_id": key(11)}], shard=1, shards=2)
    return root


def old(root: Root) -> str:
    """The recipe of the first version."""
    return str(root.old)  # type: ignore[attr-defined]


def compared(root: Root, **changes: int) -> Difference:
    place = str(root.folder)
    return difference(side(f"{place}@{old(root)[:4]}", "echo_targets", ""), side(place, "echo_targets", ""))


def test_rows_columns_rates_and_scores(root: Root) -> None:
    found = compared(root)
    assert (found.added, found.gone, found.changed, found.same) == (1, 1, 2, 8)
    assert found.gone_why == {"too_short": 1} and found.added_why == {"not among its rows": 1}
    assert {name: count for name, count in found.columns.items() if count} == {
        "t2c.units": 2,
        "t2c.unit_error_rate": 1,
        "t2c.mean_logprob": 1,
        "recorded.units": 1,
        "recorded.durations": 1,
        "echo_model_id": 8,
    }
    edits = Levenshtein.distance([1, 2, 1, 7], [1, 2, 1, 8]) + Levenshtein.distance([1, 2, 1, 7], [5, 6, 5, 6, 7])
    t2c, recorded = found.units["t2c"], found.units["recorded"]
    assert (t2c.total.rows, t2c.total.units, t2c.total.edits) == (10, 40, edits)
    assert t2c.by_corpus.keys() == {"calls"} and t2c.by_length.keys() == {3}
    assert not t2c.by_codebook and not t2c.frames.rows, "one codebook, without durations"
    assert (recorded.total.rows, recorded.total.units, recorded.total.edits) == (4, 8, 2), "5 2047 is now 5, 7, 6"
    assert {number: tally.edits for number, tally in recorded.by_codebook.items()} == {0: 1, 1: 2, 2: 1}
    assert (recorded.frames.units, recorded.frames.edits) == (4 * 13, 11)
    assert [(name, of) for _, name, of, _ in found.worst] == [(key(7), "recorded"), (key(7), "t2c"), (key(1), "t2c")]
    scores = found.quantiles()
    assert scores["t2c.mean_logprob"]["A"]["0%"] == -1.25 and scores["t2c.mean_logprob"]["B"]["0%"] == -3.0
    assert scores["t2c.unit_error_rate"]["A"]["values"] == 11 and "t2c.target_cer" not in scores


def test_a_version_with_itself(root: Root) -> None:
    one = side(str(root.folder), "echo_targets", "")
    found = difference(one, one)
    assert (found.added, found.gone, found.changed, found.same) == (0, 0, 0, 11)
    assert not found.units and found.worst == [] and found.equal_shards == 2


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_passes_change_nothing(root: Root, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shards that only one version has, the rows are joined by key, some classes of keys at a time."""
    whole = compared(root)
    monkeypatch.setattr(versions, "_shared", lambda a, b: [])
    monkeypatch.setattr(versions, "PASS_ROWS", rows)
    again = compared(root)
    assert {**vars(again), "scores": again.quantiles()} == {**vars(whole), "scores": whole.quantiles()}


def test_shards_of_one_id_are_compared_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("yes", "no"):
        list(job(tmp_path, stage(Double, word=word), stage(Follow)).run(Inline()))
    first = side(str(tmp_path), "transcripts", "")
    (old,) = set(first.dataset.recipes()["transcripts"]) - {first.recipe.fingerprint}
    second = side(f"@{old}", "transcripts", str(tmp_path))
    assert len(first.manifests) == len(second.manifests) == 3
    monkeypatch.setattr(versions, "PASS_ROWS", 0)  # dividing by it would raise
    found = difference(first, second)
    assert (found.added, found.gone, found.changed, found.same) == (0, 0, 12, 0)
    assert found.columns["text"] == 12 and not found.columns["language"]
    (tmp_path / "transcripts" / old / f"{next(iter(second.manifests))}.json").unlink()
    with pytest.raises(LayoutError, match="0 versions of transcripts are named"):
        side(f"@{old}", "transcripts", str(tmp_path))


def test_equal_shards_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before and after a row was added, nothing but the shards around it is read."""
    list(job(tmp_path, stage(Double), rows=40, shards=8).run(Inline()))
    before = side(str(tmp_path), "transcripts", "")
    list(replace(job(tmp_path, stage(Double)), plan=grown(tmp_path)).run(Inline()))
    after = side(str(tmp_path), "transcripts", "")
    found = difference(before, after)
    assert (found.added, found.gone, found.changed, found.same) == (1, 0, 0, 40)
    assert found.equal_shards == len(before.manifests.keys() & after.manifests.keys()) >= 6
    assert diff_command(f"{tmp_path}@{before.version}", str(tmp_path), "transcripts") == 0
    shown = capsys.readouterr().out
    assert f"{found.equal_shards} of 8 shards of A are the same in B and were skipped" in shown


def grown(root: Path) -> Plan:
    rows = [*job(root, rows=40, shards=8).plan.items(), sample("entries", 41)]  # type: ignore[union-attr]
    return in_shards(rows, 8)


def test_what_is_printed(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(root.folder)
    assert diff_command(f"{place}@{old(root)}", place, "echo_targets") == 0
    shown = capsys.readouterr().out
    for text in ("8 unchanged, 2 changed, 1 added, 1 removed", "removed, in B: 1 too_short", "4-7 units", "utt-00007"):
        assert text in shown, shown
    newer = f"@{root.tables['echo_targets']}"
    assert diff_command(f"{place}@{old(root)}", newer, format=ReportFormat.JSON) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["rows"]["changed"] == 2 and value["unit_error_rate"]["t2c"]["by_length"]["4-7"]["rows"] == 10
    assert [row["utterance_id"] for row in value["worst"]] == [key(7), key(7), key(1)]


@pytest.mark.parametrize(
    ("place", "table", "message"),
    [
        ("@cccc", "echo_targets", "Whole versions: [0-9a-f]{16}@"),
        ("", "nothing", "no table 'nothing'"),
        ("", "units", "units"),
    ],
)
def test_what_is_not_there(root: Root, place: str, table: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        diff_command(f"{root.folder}{place}", str(root.folder), table)

"""A training set whose rows were mixed up is found, although each row is valid and every digest is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.checking.agreement import COPIES, check_copies
from echo_targets.jobs.commands.check import Format, Level, check_command
from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.tables.training import OF_TARGET
from tests.schemas.samples import Root, Row, put_target, samples

COUNT = 6
SOURCES = ("utterances", "transcripts", "alignments", "units", "echo_targets")


def text_of(number: int) -> str:
    return f"hello there {('you', 'yes', 'yet', 'yak', 'yew', 'yam')[number]}"


def rows_of(name: str) -> list[Row]:
    """Rows that differ from each other in every column that is compared."""
    rows = samples(name, COUNT)
    for number, row in enumerate(rows):
        row |= {} if "speaker_id" not in row else {"speaker_id": f"speaker {number}"}
        row |= {} if "corpus" not in row else {"corpus": f"corpus {number}", "split": f"split {number}"}
        row |= {} if "reference_text" not in row else {"reference_text": text_of(number)}
        row |= {} if name != "transcripts" else {"wer_vs_reference": number / 10}
        if name == "alignments":
            row["coverage"] = number / 10
            row["items"][-1]["symbol"] = text_of(number).split()[-1]
        if name.startswith("training/"):
            row["text"] = text_of(number)
        if name == "training/s2t":
            row |= {"response_text": None if number % 2 else text_of(number + 1)}
            row |= {"wer_vs_reference": number / 10, "alignment_coverage": number / 10}
        if name in ("echo_targets", "training/echo"):
            row |= {"response_text": f"so it is {number}", "response_token_ids": [4, 5, 6, number]}
            row |= {"segment_char_ends": [5, 10], "asr_target_ids": [number]}
            put_target(row, units=[[[1, 2, number + 10]], [[7]]], target_cer=number / 100)
            row |= {} if name == "echo_targets" else {"target": "t2c"}
        if name in ("units", "training/t2c"):
            row |= {"units": [[unit + number for unit in part] for part in ([0, 5], [6, 5])][: row["num_codebooks"]]}
            row |= {"durations": [1, row["num_frames"] - 1]}
    return rows


def put(root: Root, name: str, rows: list[Row], **made_by: Any) -> None:
    """Write a table in two shards, from all others, with a manifest that vouches for it."""
    upstream = {table: root.tables[table] for table in SOURCES if table in root.tables and table != name}
    chosen = {"parameters": {"target": "t2c"}} if name == "training/echo" else {}
    above = {} if name == "utterances" else {"upstream": upstream}
    root.put(name, rows[:4], rows[4:], of=made_by | chosen | above)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Root:
    root = Root(tmp_path_factory.mktemp("root") / "root")
    for name in (*SOURCES, *COPIES):
        put(root, name, rows_of(name))
    return root


@pytest.fixture
def root(whole: Root, tmp_path: Path) -> Root:
    shutil.copytree(whole.folder, tmp_path / "root")
    copy = Root(tmp_path / "root")
    copy.tables, copy.versions = dict(whole.tables), dict(whole.versions)
    return copy


def found(root: Root, capsys: pytest.CaptureFixture[str], code: int = 1) -> dict[str, set[str]]:
    """The rules that the command finds broken, by row."""
    assert check_command(str(root.folder), format=Format.JSON) == code
    by_row: dict[str, set[str]] = {}
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        by_row.setdefault(line["row"], set()).add(line["rule"])
    return by_row


def test_a_root_whose_rows_agree(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(root, capsys, 0) == {}


SWAPS = [
    (name, column)
    for name, sources in COPIES.items()
    for column in [
        KEY,
        "text",
        *(column for columns in sources.values() for column in columns),
        *OF_TARGET.values(),
        "target",
    ]
    if len({repr(row.get(column)) for row in rows_of(name)[:4]}) > 1
]


@pytest.mark.parametrize(("name", "column"), [*SWAPS, ("training/s2t", "response_text")], ids=str)
def test_two_rows_that_swapped_a_value(name: str, column: str, root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(name)
    first, second = next((a, b) for a in range(4) for b in range(a) if rows[a][column] != rows[b][column])
    rows[first][column], rows[second][column] = rows[second][column], rows[first][column]
    put(root, name, rows)
    by_row = found(root, capsys)
    for number in (first, second):
        rules = by_row[f"utt-{number:05d}"]
        assert any(rule.endswith(("_agree", "_agrees")) for rule in rules), rules


def test_a_null_and_a_row_of_another_shard(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("training/t2c")
    rows[0]["speaker_id"] = None
    rows[1], rows[4] = rows[4], rows[1]
    put(root, "training/t2c", rows)
    by_row = found(root, capsys)
    assert {"utt-00000", "utt-00001", "utt-00004"} <= by_row.keys()


def test_many_rows_are_counted(root: Root) -> None:
    put(root, "training/s2t", [row | {"text": "x"} for row in rows_of("training/s2t")])
    said = [str(finding) for finding in check_copies(str(root.folder))]
    assert f"training/s2t {root.ids[0]}: text_agrees: text: and 1 more rows" in said


def test_what_is_missing_or_damaged_is_a_finding(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.manifest("units", 1, 2).unlink()
    root.file("transcripts", 0, 2).write_bytes(b"PAR1")
    said = [str(finding) for finding in check_copies(str(root.folder))]
    assert any(f"training/t2c {root.ids[1]}: upstream: can't be compared" in line for line in said)
    assert any(f"training/s2t {root.ids[0]}: upstream: can't be compared" in line for line in said)


def test_levels(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    put(root, "training/s2t", [row | {"text": "x"} for row in rows_of("training/s2t")])
    assert check_command(str(root.folder), level=Level.METADATA) == 0
    assert check_command(str(root.file("training/s2t", 0, 2))) == 0, "a file on its own has no sources"


def test_every_copied_column_is_compared() -> None:
    """What is left is audio, which `deep` compares, borders, which are computed, and what depends on the target."""
    rest = {name: set(TABLES[name].columns) - {KEY, "text"} for name in COPIES}
    for name, sources in COPIES.items():
        rest[name] -= {column for columns in sources.values() for column in columns}
    assert rest == {
        "training/s2t": {"audio", "num_samples", "response_text"},
        "training/t2c": {"borders"},
        "training/echo": {"audio", "num_samples", "target", *OF_TARGET.values()},
    }


# -- scores ----------------------------------------------------------------------------------------------------------


def as_made_by(root: Root, name: str, rows: list[Row], stage: str, version: int) -> None:
    put(root, name, rows, stage=stage, version=version)


def transcribed() -> list[Row]:
    texts = ["Hello there, you.", "Hello the yes.", "", "Hello!", "Hello there yew", "hello there yam"]
    rates = [0.0, 0.3333, 1.0, 0.6667, 0.0, 0.0]
    rows = rows_of("transcripts")
    for row, utterance, text, rate in zip(rows, rows_of("utterances"), texts, rates, strict=True):
        row |= {"text": text, "text_normalized": text.lower().strip(".!").replace(",", ""), "segments": []}
        row |= {"chars_per_s": round(len(text) * 16_000 / utterance["num_samples"], 4), "wer_vs_reference": rate}
    return rows


Change = Callable[[list[Row]], Any]


def swap(column: str) -> Change:
    def change(rows: list[Row]) -> None:
        rows[0][column], rows[1][column] = rows[1][column], rows[0][column]

    return change


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda rows: None, set()),
        (swap("text"), {0, 1}),
        (swap("wer_vs_reference"), {0, 1}),
        (lambda rows: (swap("text")(rows), swap("text_normalized")(rows)), {0, 1}),
        (lambda rows: rows[4].update(wer_vs_reference=0.001), {4}),
        (lambda rows: rows[4].update(wer_vs_reference=None, wer_unit=None), {4}),
        (lambda rows: rows[3].update(wer_unit="character"), {3}),
        (lambda rows: rows[5].update(chars_per_s=1.0), {5}),
    ],
)
def test_scores_of_transcripts(change: Change, rows: set[int], root: Root) -> None:
    from echo_targets.transforms.stages.transcribe import Transcribe

    made = transcribed()
    change(made)
    as_made_by(root, "transcripts", made, Transcribe.name, Transcribe.version)
    said = [finding for finding in check_copies(str(root.folder)) if finding.table == "transcripts"]
    assert {finding.row for finding in said} == {f"utt-{number:05d}" for number in rows}
    assert {finding.rule for finding in said} <= {"scores_recomputed"} and all(finding.breaks for finding in said)


def test_scores_of_targets(root: Root) -> None:
    from echo_targets.transforms.stages.echo.stage import Echo

    rows = rows_of("echo_targets")
    for number, row in enumerate(rows):
        recorded = None if number % 2 else row["t2c"] | {"units": [[[1, 2, 3]], [[7]]]}
        row |= {"recorded": recorded, "echo": None}
        row["t2c"]["unit_error_rate"] = recorded and 0.25
    rows[2]["t2c"]["unit_error_rate"] = 0.2
    rows[3]["t2c"]["unit_error_rate"] = 0.0
    as_made_by(root, "echo_targets", rows, Echo.name, Echo.version)
    said = [finding for finding in check_copies(str(root.folder)) if finding.table == "echo_targets"]
    assert {(finding.row, finding.rule) for finding in said} == {
        ("utt-00002", "scores_recomputed"),
        ("utt-00003", "scores_recomputed"),
    }


def test_without_the_libraries_a_notice_says_so(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    from echo_targets.transforms import text
    from echo_targets.transforms.stages.transcribe import Transcribe

    real = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("whisper"):
            raise ModuleNotFoundError("No module named 'whisper'", name="whisper")
        return real(name, *arguments, **options)

    as_made_by(root, "transcripts", transcribed(), Transcribe.name, Transcribe.version)
    text._english.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    (said,) = [finding for finding in check_copies(str(root.folder)) if finding.table == "transcripts"]
    assert not said.breaks and "scores were not recomputed: whisper is not installed" in said.message

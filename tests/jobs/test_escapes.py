"""Text from data is escaped wherever a command prints it or writes it into the card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from typer.testing import CliRunner

from echo_targets.jobs.cli import app
from echo_targets.jobs.escapes import code, json_text, lines, markdown, markup, one_line
from echo_targets.jobs.versions.card import card
from tests.schemas.samples import Root, sample

HOSTILE = "\x1b[31m[red]a[/red]\r::error::b\n::error title=c::d\n##[error]e|f`g``<script>h</script>![i](http://j)\u202ek\x9b2J"
"""Everything that a terminal, a CI log, rich, Markdown or HTML would act on."""
RAW = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")


def run(*arguments: str, code: int | None = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert code is None or result.exit_code == code, result.output
    assert_harmless(result.output)
    return result.output


def assert_harmless(printed: str) -> None:
    assert not RAW.search(printed.replace("\t", "")), repr(printed)
    for line in printed.splitlines():
        assert "##[" not in line and not line.lstrip().startswith("::"), line


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with hostile ids, corpora, texts and rejects, and a row that breaks a rule."""
    root = Root(tmp_path / "root")
    rows = [sample("utterances", number) for number in range(3)]
    rows[0] |= {"corpus": HOSTILE, "license": HOSTILE, "utterance_id": HOSTILE}
    root.put("utterances", rows)
    message = {"utterance_id": HOSTILE, "error_class": HOSTILE, "message": f"{HOSTILE}{'x' * 200} ::error::far"}
    root.put_rejects("utterances", [sample("rejects") | message])
    root.edit_manifest("utterances", reasons={HOSTILE: 1})
    broken = sample("training/s2t") | {"utterance_id": HOSTILE, "text": "  "}
    root.put("training/s2t", [broken])
    return root


def test_status_shows_hostile_text_as_text(root: Root) -> None:
    said = run("status", str(root.folder))
    assert r"\x1b[31m[red]a[/red]\r:\x3aerror:\x3ab\n:\x3aerror title=c:" in said


@pytest.mark.parametrize("level", ["metadata", "rows"])
def test_check_shows_hostile_text_as_text(level: str, root: Root) -> None:
    said = run("check", str(root.folder), "--level", level, code=None)
    assert level == "metadata" or r"\x1b[31m[red]a[/red]\r:\x3aerror:\x3ab\n" in said


def test_check_formats_mean_what_they_meant(root: Root) -> None:
    arguments = ("check", str(root.folder), "--format")
    found = [json.loads(line) for line in run(*arguments, "json", code=1).splitlines() if line.startswith("{")]
    assert HOSTILE in [finding["row"] for finding in found]
    annotations = CliRunner().invoke(app, [*arguments, "github"]).output.splitlines()
    assert sum(line.startswith("::") for line in annotations) == len(found)
    assert not any(RAW.search(line) or "##[" in line or line.count("::") != 2 for line in annotations[: len(found)])
    junit = run(*arguments, "junit", code=1)
    cases = ElementTree.fromstring(junit[junit.index("<testsuite") : junit.index("</testsuite>") + 12])
    assert len(cases) == len(found)


def test_a_hostile_file_is_no_command(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("utterances", [sample("utterances")], schema_name="::error::a\n::warning::b")
    assert "known_table" in run("check", str(root.file("utterances")), code=1)


def test_the_card_has_the_rows_and_cells_that_it_should(root: Root) -> None:
    written = card(root.dataset)
    assert_harmless(written)
    assert "<script>" not in written and "![i]" not in written
    for line in written.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (4 + 1, 5 + 1, 6 + 1), line
    assert r"\x1b\[31m\[red\]a" in written.replace("\\\\", "\\")


def test_run_shows_hostile_text_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names: list[dict[str, Any]] = [
        {"id": "a::error::b", "audio": "no/\x1b[2J::error::\n::error::x.wav", HOSTILE: 1},
        {"id": HOSTILE, "audio": "b.wav"},
    ]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, names)) + "\n")
    config = tmp_path / "c.yaml"
    source = {"kind": "manifest", "corpus": HOSTILE, "manifest": str(folder / "m.jsonl")}
    values = {"root": str(tmp_path / "[red]out"), "max_reject_fraction": 1, "stages": {"ingest": {"sources": [source]}}}
    config.write_text(json.dumps(values))
    run("run", str(config), "--dry-run")
    run("run", str(config))
    assert "missing_file" in run("status", str(tmp_path / "[red]out"))
    source["manifest"] = str(folder / "\x1b::error::none.jsonl")
    config.write_text(json.dumps(values))
    run("run", str(config), code=None)


@given(st.text())
def test_escaped_text_is_harmless(text: str) -> None:
    assert_harmless(one_line(text))
    assert "\n" not in one_line(text) + markdown(text) + code(text) + json_text(text)
    assert lines(text).count("\n") == text.count("\n")
    assert Text.from_markup(f"[bold]{markup(text)}[/]", emoji=False).plain == one_line(text)
    assert json.loads(json_text({text: [text]})) == {text: [text]}
    assert not re.search(r"(?<!\\)(\\\\)*\|", markdown(text))
    assert not re.search(r"(?<!\\)\|", code(text))

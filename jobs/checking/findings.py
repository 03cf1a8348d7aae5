"""Output formats of findings: text, JSON lines, a JUnit report, and GitHub annotations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from xml.etree import ElementTree

from echo_targets.jobs.escapes import json_text, one_line
from echo_targets.schemas.dataset.check import Finding

CONTRACT = "schemas/contract/{}.json"


def show(findings: Iterable[Finding], style: str, path: str | None) -> int:
    """Print findings as they arrive, one per line; `junit` prints one document at the end.

    Args:
        style: text, json, junit or github.
        path: what was checked; None for the contract.

    Returns:
        The number of findings that break the contract.
    """
    if style == "junit":
        gathered = list(findings)
        print(junit(gathered, path))
        return sum(finding.breaks for finding in gathered)
    line = LINES[style]
    broken = 0
    for finding in findings:
        broken += finding.breaks
        print(line(finding, path), flush=True)
    return broken


def text(finding: Finding, path: str | None) -> str:
    """Return a finding as one readable line."""
    return one_line(finding)


def json_line(finding: Finding, path: str | None) -> str:
    """Return a finding's fields as a one-line JSON object."""
    return json_text(asdict(finding))


def github(finding: Finding, path: str | None) -> str:
    """Return a finding as a GitHub Actions workflow command, which becomes an annotation."""
    about = {"file": path or CONTRACT.format(finding.table), "title": f"{finding.table}: {finding.rule}"}
    named = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in about.items())
    return f"::{'error' if finding.breaks else 'notice'} {named}::{_escaped(finding)}"


def _escaped(value: object, also: str = "") -> str:
    return re.sub(f"[%{also}]", lambda found: f"%{ord(found[0]):02X}", one_line(value))


def junit(findings: list[Finding], path: str | None) -> str:
    """Return a JUnit report with a test case per finding, or one passing test case if there are none."""
    failures = str(sum(finding.breaks for finding in findings))
    count = str(len(findings) or 1)
    name = f"echo-targets check {one_line(path or '')}"
    suite = ElementTree.Element("testsuite", name=name, tests=count, failures=failures)
    for finding in findings:
        name = " ".join(part for part in (finding.shard, finding.row, finding.rule) if part)
        case = ElementTree.SubElement(suite, "testcase", classname=one_line(finding.table), name=one_line(name))
        element = ElementTree.SubElement(case, "failure" if finding.breaks else "system-out")
        element.text = one_line(finding)
    if not findings:
        ElementTree.SubElement(suite, "testcase", classname="check", name="no findings")
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode")


LINES: dict[str, Callable[[Finding, str | None], str]] = {"text": text, "json": json_line, "github": github}

"""What the tests of the check share."""

from __future__ import annotations

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.check import Finding, check_dataset, check_file
from tests.schemas.samples import Root, Row, arrow, opened, parquet

FINGERPRINT = "0123456789abcdef"
BESIDE_UTTERANCES = sorted(TABLES.keys() - {"entries", "utterances", "rejects"})


def findings_of(name: str, rows: list[Row]) -> list[Finding]:
    return list(check_file(opened(parquet(arrow(name, rows), TABLES[name], FINGERPRINT)), TABLES[name], "part"))


def rules_of(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


def check(root: Root) -> list[Finding]:
    return list(check_dataset(str(root.folder)))

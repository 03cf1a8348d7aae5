"""What a run says on the screen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from echo_targets.jobs.screen import Screen
from echo_targets.pipeline.job import StageReport, StageStarted
from echo_targets.schemas.dataset.versions import Recipe

PUBLISH = Recipe("publish_echo", 1, "training/echo", "1.0.0", {}, {}, {"utterances": "0" * 16})


@pytest.mark.parametrize("rows", [0, 3])
def test_a_table_to_which_nothing_could_belong_is_said_to_be_empty(rows: int) -> None:
    shown = io.StringIO()
    with Screen(Console(file=shown, width=160)) as screen:
        screen.show(StageStarted(PUBLISH, 1, 0, 0))
        screen.show(StageReport(PUBLISH, 1, shards=1, shards_run=1, rows_in=rows, rows=rows))
    said = "training/echo is empty, because no row of utterances belongs to it" in shown.getvalue()
    assert said == (rows == 0), shown.getvalue()

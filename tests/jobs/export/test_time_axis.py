"""Where turns lie: as recorded only if that is known, and no turn has another's voice."""

from __future__ import annotations

from typing import Any

import pytest

from echo_targets.jobs.export.time_axis import GAP_SAMPLES, starts_of

SECOND = 16_000
IN_A_ROW = [0, SECOND + GAP_SAMPLES]


def turn(role: str, start: float | None, channel: int, **more: Any) -> dict[str, Any]:
    entry = {"source": "calls", "locator": "a.wav", "start_seconds": start, "channel": channel}
    return {"role": role, "synthetic": False, "entries": entry} | more


CASES: list[tuple[str, list[dict[str, Any]], list[int]]] = [
    ("two whole channels", [turn("user", None, 0), turn("assistant", None, 1)], [0, 0]),
    ("two sections", [turn("user", 2.0, -1), turn("assistant", 3.5, -1)], [0, 24_000]),
    ("sections that touch", [turn("user", 2.0, -1), turn("assistant", 3.0, -1)], [0, 16_000]),
    ("the reply first", [turn("user", 5.0, 0), turn("assistant", 2.0, 1)], [48_000, 0]),
    ("the same file twice", [turn("user", None, -1), turn("assistant", None, -1)], IN_A_ROW),
    (
        "a voice that spoke the same text twice",
        [turn("user", 0.0, 0, synthetic=True), turn("assistant", 5.0, 1)],
        IN_A_ROW,
    ),
    ("an unknown recording", [turn("user", 0.0, 0, entries=None), turn("assistant", 5.0, 1)], IN_A_ROW),
    ("no entries at all", [{"role": role, "synthetic": False} for role in ("user", "assistant")], IN_A_ROW),
]


@pytest.mark.parametrize(("turns", "starts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_turns_are_as_recorded_or_in_a_row(turns: list[dict[str, Any]], starts: list[int]) -> None:
    assert starts_of(turns, [SECOND, SECOND]) == starts

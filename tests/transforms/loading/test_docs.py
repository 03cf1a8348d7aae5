"""The examples of docs/TRAINING.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.schemas.samples import Root, put_target, samples

PAGE = Path(__file__).parents[3] / "docs" / "TRAINING.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"split": "train", "turn": 0, "system_text": None}
    rows = [put_target(row, target_cer=0.25) | own for row in samples("training/echo", 30)]
    root = Root(tmp_path / "out" / "demo")
    root.put("training/echo", rows[:20], rows[20:])
    root.put("training/t2c", samples("training/t2c", 9))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["mask"].sum() > 0 and names["step"] == 2
    assert names["text"] and len(names["units"][0]) == len(names["durations"])
    assert names["batch"]["unit_targets"].shape[1] == 2 and names["row"]["audio"]["path"]

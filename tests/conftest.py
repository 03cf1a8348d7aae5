"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Where a shell starts pytest in the background, Ctrl-C is ignored, and every process that a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: it starves beside the other test processes

settings.register_profile("here", deadline=None)  # no test depends on how fast it runs
settings.load_profile("here")


def pytest_runtest_setup() -> None:
    """Hypothesis asks every module for its file, and some of speechbrain's are imported, or fail, as they are asked."""
    for module in [module for name, module in sys.modules.items() if name.startswith("speechbrain.")]:
        vars(module).setdefault("__file__", None)


SPEECH = Path(__file__).parents[2] / "shared" / "speech"


@pytest.fixture(scope="session")
def speech() -> list[dict[str, Any]]:
    """The rows of the real speech's manifest, `audio` made an absolute path; 16 kHz mono FLAC with its text."""
    manifest = SPEECH / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip(f"real speech is not there: {manifest}")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    return [row | {"audio": SPEECH / row["audio"]} for row in rows]

"""A folder with an audio file, for the tests of sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from tests.transforms.sources.small_sources import TONE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.flac", TONE, SAMPLE_RATE)
    return tmp_path

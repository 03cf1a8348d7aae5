"""A whole root, for the tests to break."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.schemas.dataset.checked import BESIDE_UTTERANCES
from tests.schemas.samples import Root, samples


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Two shards of every table that has an utterance behind it."""
    root = Root(tmp_path / "root")
    for name in ("entries", "utterances", *BESIDE_UTTERANCES):
        root.put(name, samples(name, 4), samples(name, 4, first=4))
    return root

"""A root of two-turn dialogues of recorded speech, with ids that are hostile to file systems and loaders."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jobs.export.roots import Turns, root_of_turns
from tests.schemas.samples import Root

NAMES = ["plain-1", "../../etc/passwd", "a/b.c.flac", 'ü ‮\n"%<speech>*?[]', "long" * 100, "plain-2"]


def split_of(name: str) -> str:
    return "test-clean/x" if name in NAMES[3:5] else "train"


@pytest.fixture(scope="session")
def turns(speech: list[dict[str, Any]]) -> Turns:
    return Turns(speech, NAMES, split_of)


@pytest.fixture(scope="session")
def root(turns: Turns, tmp_path_factory: pytest.TempPathFactory) -> Root:
    return root_of_turns(tmp_path_factory.mktemp("export") / "root", turns)

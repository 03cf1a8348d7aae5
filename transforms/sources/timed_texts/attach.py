"""Attach timed texts to the items of a source: their locators and digests, and which files of a folder they are."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import replace

from echo_targets.transforms.sources.base import Files, Item, is_missing
from echo_targets.transforms.sources.timed_texts.registry import is_timed_text

LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
"""A language between a file's name and its ending, as in `talk.en-US.vtt`."""


class TimedTexts:
    """Gives timed texts to the items of a folder. A file that several items share is read once.

    Args:
        folder: the files.
    """

    def __init__(self, folder: Files) -> None:
        self._folder = folder
        self._digests: dict[str, str | None] = {}

    def given_to(self, item: Item, locator: str) -> Item:
        """Return an item with a timed text and its digest.

        Raises:
            UserError: the locator's URL scheme is not supported, or is that of a web address without permission.
        """
        if locator not in self._digests:
            self._digests[locator] = self._digest(locator)
        return replace(item, timed_text=locator, timed_text_sha256=self._digests[locator])

    def _digest(self, locator: str) -> str | None:
        try:
            return hashlib.sha256(self._folder.read_whole(locator)).hexdigest()
        except OSError as error:
            if not is_missing(error):
                raise
            return None


def beside(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the timed texts among the files of a folder by the names that their audio may have.

    Args:
        names: the folder's files. `talk.srt`, `talk.en.srt` and `talk.wav.srt` are texts of `talk.wav`.

    Returns:
        For each name, with and without an ending, its timed texts.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        if is_timed_text(name):
            stem = os.path.splitext(name)[0]
            base, language = os.path.splitext(stem)
            for key in (stem, base) if LANGUAGE.fullmatch(language) else (stem,):
                found.setdefault(key, []).append(name)
    return found

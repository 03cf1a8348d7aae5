"""Text spoken by the embedded voice: dialogues or sentences in JSON lines become speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from schemas import SAMPLE_RATE
from schemas.storage import split
from transforms.models.embedded import HIBARI_VOICE, sha256_of
from transforms.sources.base import Item, Source, SourceError, files
from transforms.sources.manifest import ALIASES, BadLine, _jsonl, item_from

if TYPE_CHECKING:
    from transforms.models.voice import Voice

CHARS_PER_SECOND = 15.0


class SpokenSource(Source):
    """Lines of text, each with an id, spoken by the embedded English voice.

    Attributes:
        texts: a `.jsonl` file (a path or a URL) with `id` and `text`, and the other columns of a manifest.
        voice_seed: seed of the voice's noise.
    """

    kind: Literal["spoken"]
    texts: str
    voice_seed: int = 0
    license: str = "Apache-2.0"

    @property
    def synthetic(self) -> bool:
        return True

    def meaning(self) -> dict[str, Any]:
        return super().meaning() | {"voice_seed": self.voice_seed}

    def weights(self) -> dict[str, str]:
        return {"voice": sha256_of(HIBARI_VOICE.locate())}

    def items(self) -> Iterator[Item]:
        folder, name = split(self.texts)
        try:
            with files(folder).stream(name) as file:
                for number, record in _jsonl(file):
                    yield self._item(record, f"{name}:{number}")
        except OSError as error:
            raise SourceError(f"texts {self.texts}: {error}") from error

    def open(self, locator: str) -> tuple[np.ndarray, int]:
        return _voice().speak(locator, seed=self.voice_seed), SAMPLE_RATE

    def _item(self, record: dict[str, Any] | BadLine, where: str) -> Item:
        def value(name: str) -> Any:
            return next((record[alias] for alias in ALIASES[name] if alias in record), None)  # type: ignore[operator,index]

        try:
            if isinstance(record, BadLine):
                raise record
            item = item_from(value, where)
            if not item.text or not item.text.strip():
                raise BadLine("has no text to speak")
        except BadLine as error:
            return Item(id=where, where=where, error_class="bad_line", error=f"{where}: {error}")
        return replace(item, locator=item.text, seconds=len(item.text) / CHARS_PER_SECOND)


@cache
def _voice() -> Voice:
    from transforms.models.voice import Voice

    return Voice()

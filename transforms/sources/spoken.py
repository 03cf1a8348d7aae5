"""Text spoken by the embedded voice: dialogues or sentences in JSON lines are synthesized."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ValidationError

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.storage import split
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.checkpoints.embedded import HIBARI_VOICE
from echo_targets.transforms.models.voices.hibari import PLAIN, Delivery, Voice
from echo_targets.transforms.sources.base import Item, Source, SourceError
from echo_targets.transforms.sources.lines import json_lines
from echo_targets.transforms.sources.record import Fields, item_from
from echo_targets.transforms.sources.values import BadLine, is_missing

CHARS_PER_SECOND = 15.0
FIELDS_OF_TEXT = Fields()


class SpokenSource(Source):
    """Lines of text, each with an id, spoken by the embedded English voice.

    Attributes:
        texts: a `.jsonl` file (a path or a URL) with `id` and `text`, and the other columns of a manifest. A line may
            set its delivery: `"voice": {"speed": 1.1, "pitch": -1.5, "gain_db": -6, "snr_db": 20, "noise": "pink"}`.
            All keys are optional; see `voices.hibari.Delivery`.
        voice_seed: seed of the voice's noise, and of the added noise.
    """

    listed_in: ClassVar[str] = "texts"
    kind: Literal["spoken"]
    texts: str
    voice_seed: int = 0
    license: str = "Apache-2.0"

    @property
    def synthetic(self) -> bool:
        return True

    def fingerprint_parameters(self) -> dict[str, Any]:
        return super().fingerprint_parameters() | {"voice_seed": self.voice_seed}

    def weight_digests(self) -> dict[str, str]:
        return {"voice": sha256_of(HIBARI_VOICE.locate())}

    def items(self) -> Iterator[Item]:
        folder, name = split(self.texts)
        try:
            with self.files(folder).stream(name) as file:
                for number, record in json_lines(file, self.texts):
                    yield self._item(record, f"{name}:{number}")
        except OSError as error:
            raise SourceError(f"texts {self.texts}: {error}") from error

    def open(self, locator: str) -> tuple[np.ndarray, int]:
        text, delivery = _read(locator)
        return _voice().speak(text, self.voice_seed, delivery), SAMPLE_RATE

    def _item(self, record: dict[str, Any] | BadLine, where: str) -> Item:
        try:
            if isinstance(record, BadLine):
                raise record
            if misplaced := [name for name in record if name in Delivery.model_fields]:
                raise BadLine(f"`{misplaced[0]}` is part of the delivery: move it into `voice`")
            item = item_from(FIELDS_OF_TEXT(record), where)
            if item.text is None:
                raise BadLine("has no text to speak")
            if item.start_seconds is not None:
                raise BadLine("has section times, but no audio file to cut: remove them")
            delivery = _delivery(record.get("voice"))
        except BadLine as error:
            return Item(id=where, where=where, error_class="bad_line", error=f"{where}: {error}")
        seconds = len(item.text) / CHARS_PER_SECOND / delivery.speed
        return replace(item, locator=_locator(item.text, delivery), seconds=seconds, declared_seconds=None)


def _delivery(voice: Any) -> Delivery:
    try:
        return PLAIN if is_missing(voice) else Delivery.model_validate(voice)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, ("voice", *first["loc"])))
        raise BadLine(f"{name} {first['input']!r}: {first['msg']}") from None


def _locator(text: str, delivery: Delivery) -> str:
    """Return the text itself for a plain delivery, else JSON. A text that looks like JSON is also written as JSON."""
    if delivery == PLAIN and not text.startswith("{"):
        return text
    voice = delivery.model_dump(exclude_defaults=True)
    return json.dumps({"text": text, "voice": voice}, ensure_ascii=False, sort_keys=True)


def _read(locator: str) -> tuple[str, Delivery]:
    if not locator.startswith("{"):
        return locator, PLAIN
    record = json.loads(locator)
    return record["text"], Delivery(**record["voice"])


@cache
def _voice() -> Voice:
    return Voice()

"""Text spoken by a voice: dialogues or sentences in JSON lines are synthesized."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ValidationError, model_validator

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.storage import split
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.voices.base import Voice
from echo_targets.transforms.models.voices.delivery import PLAIN, Delivery, deliver
from echo_targets.transforms.models.voices.registry import EMBEDDED, open_voice
from echo_targets.transforms.sources.base import Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import json_lines
from echo_targets.transforms.sources.record import Fields, item_from
from echo_targets.transforms.sources.values import BadLine, is_missing
from echo_targets.transforms.verbalize import verbalize

CHARS_PER_SECOND = 15.0
FIELDS_OF_TEXT = Fields()
DELIVERY = Delivery.model_fields.keys() - {"speaker"}
"""Keys that belong into a line's `voice`. `speaker` is also a name of the field `speaker_id`."""
LOADING = Lock()
"""Held while a voice loads, since ingest opens several items at once."""


class SpokenSource(Source):
    """Lines of text, each with an id, spoken by a voice, on the CPU.

    Digits and abbreviations are spoken as words (`verbalize`); `reference_text` stays as written.

    Attributes:
        texts: a `.jsonl` file (a path or a URL) with `id` and `text`, and the other columns of a manifest. A line may
            set its delivery: `"voice": {"speaker": "3", "speed": 1.1, "pitch": -1.5, "gain_db": -6, "snr_db": 20,
            "noise": "pink"}`. All keys are optional; see `voices.delivery.Delivery`.
        voice: a voice as for `open_voice`: `embedded:hibari`, or a directory with VITS, SpeechT5 or Bark.
        voice_seed: seed of the voice and of the added noise. Other voices than the embedded one combine it with the
            line's id.
        license: of the speech; Apache-2.0 is that of the embedded voice, `unknown` the default for others.
    """

    listed_in: ClassVar[str] = "texts"
    kind: Literal["spoken"]
    texts: str
    voice: str = EMBEDDED
    voice_seed: int = 0
    license: str = "Apache-2.0"

    @model_validator(mode="before")
    @classmethod
    def _license_of_another_voice(cls, given: Any) -> Any:
        other = isinstance(given, dict) and given.get("voice", EMBEDDED) != EMBEDDED
        return {"license": "unknown"} | given if other else given

    @property
    def synthetic(self) -> bool:
        return True

    def fingerprint_parameters(self) -> dict[str, Any]:
        return super().fingerprint_parameters() | {"voice_seed": self.voice_seed}

    def weight_digests(self) -> dict[str, str]:
        return _voice(self.voice).weight_digests()

    def items(self) -> Iterator[Item]:
        folder, name = split(self.texts)
        try:
            with self.files(folder).stream(name) as file:
                for number, record in json_lines(file, self.texts):
                    yield self._item(record, f"{name}:{number}")
        except OSError as error:
            raise SourceError(f"texts {self.texts}: {error}") from error

    def open(self, locator: str) -> tuple[np.ndarray, int]:
        text, delivery, seed = _read(locator)
        with LOADING:
            voice = _loaded(self.voice)
        return deliver(voice, text, delivery, self.voice_seed if seed is None else seed), SAMPLE_RATE

    def spoken_text(self, locator: str) -> str:
        return _read(locator)[0]

    def _item(self, record: dict[str, Any] | BadLine, where: str) -> Item:
        try:
            if isinstance(record, BadLine):
                raise record
            if misplaced := [name for name in record if name in DELIVERY]:
                raise BadLine(f"`{misplaced[0]}` is part of the delivery: move it into `voice`")
            item = item_from(FIELDS_OF_TEXT(record), where)
            if item.text is None:
                raise BadLine("has no text to speak")
            if item.start_seconds is not None:
                raise BadLine("has section times, but no audio file to cut: remove them")
            delivery = self._delivery(record.get("voice"))
        except BadLine as error:
            return bad_line(where, f"{where}: {error}")
        spoken = verbalize(item.text, item.language or self.language)
        seed = None if self.voice == EMBEDDED else zlib.crc32(f"{self.voice_seed} {item.id}".encode())
        return replace(
            item,
            locator=_locator(spoken, delivery, seed),
            seconds=len(spoken) / CHARS_PER_SECOND / delivery.speed,
            declared_seconds=None,
        )

    def _delivery(self, given: Any) -> Delivery:
        voice = _voice(self.voice)
        try:
            delivery = PLAIN if is_missing(given) else Delivery.model_validate(given)
            voice.check(delivery.speaker, delivery.rate)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, ("voice", *first["loc"])))
            raise BadLine(f"{name} {first['input']!r}: {first['msg']}") from None
        except ModelError as error:
            raise BadLine(f"voice: {error}") from error
        return delivery


def _locator(text: str, delivery: Delivery, seed: int | None) -> str:
    """Return the text itself for a plain delivery, else JSON. A text that looks like JSON is also written as JSON."""
    if delivery == PLAIN and seed is None and not text.startswith("{"):
        return text
    record = {"text": text, "voice": delivery.model_dump(exclude_defaults=True)}
    return json.dumps(record if seed is None else record | {"seed": seed}, ensure_ascii=False, sort_keys=True)


def _read(locator: str) -> tuple[str, Delivery, int | None]:
    if not locator.startswith("{"):
        return locator, PLAIN, None
    record = json.loads(locator)
    return record["text"], Delivery(**record["voice"]), record.get("seed")


@cache
def _voice(name: str) -> Voice:
    """Return a voice, not loaded."""
    return open_voice(name)


@cache
def _loaded(name: str) -> Voice:
    voice = open_voice(name)
    voice.setup()
    return voice

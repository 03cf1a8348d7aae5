"""Records: map the keys of a line, row or turn to the fields of an item. docs/MANIFESTS.md describes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator

from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.languages import code_of
from echo_targets.transforms.sources.base import Item
from echo_targets.transforms.sources.values import (
    BadLine,
    NamedValue,
    channel,
    identifier,
    integer,
    is_missing,
    language,
    number,
    plain,
    shown,
    text,
    timed_text,
)

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "utterance_id"),
    "audio": ("audio", "path", "audio_filepath", "audio_filename", "file_name", "file"),
    "text": ("text", "reference_text", "transcript", "transcription", "sentence"),
    "duration": ("duration", "seconds"),
    "start": ("start", "offset"),
    "end": ("end",),
    "speaker_id": ("speaker_id", "speaker", "client_id"),
    "dialogue_id": ("dialogue_id",),
    "turn": ("turn",),
    "role": ("role",),
    "system": ("system", "system_prompt", "system_text"),
    "split": ("split",),
    "language": ("language", "lang", "locale", "source_lang"),
    "channel": ("channel", "channel_selector"),
    "timed_text": ("timed_text",),
}
"""Names of each field. A record may use several names of one field if their values agree. For the audio the first name
counts, since data sets have the audio and its path."""

SECTION = "name the section's times in seconds `start` and `end`, or `offset` and `duration`"
CHANNEL = "name the channel `channel`, counted from 0"
ALTERED = "alter the audio itself"
TEXT_FILE = "write the text itself, as `text`"

NOT_UNDERSTOOD: dict[str, str] = {
    **dict.fromkeys(("start", "end", "offset", "begin", "stop", "onset"), SECTION),
    **dict.fromkeys(("start_time", "end_time", "begin_time", "stop_time", "time_start", "time_end"), SECTION),
    **dict.fromkeys(("start_s", "end_s", "start_sec", "end_sec", "start_seconds", "end_seconds"), SECTION),
    **dict.fromkeys(("start_ms", "end_ms", "offset_ms", "duration_ms", "begin_ms", "start_ts", "end_ts"), SECTION),
    **dict.fromkeys(("start_sample", "end_sample", "start_frame", "end_frame", "frame_offset"), SECTION),
    **dict.fromkeys(("segment_start", "segment_end", "clip_start", "clip_end", "audio_start", "audio_end"), SECTION),
    **dict.fromkeys(("channels", "channel_id", "audio_channel"), CHANNEL),
    **dict.fromkeys(("speed", "speed_factor", "tempo", "gain", "gain_db", "volume", "pitch_shift"), ALTERED),
    **dict.fromkeys(("text_filepath", "text_file", "text_path", "transcript_path", "transcript_file"), TEXT_FILE),
}
"""Keys without a field that would change what a record means, and what to do about each. They are compared in lower
case and without underscores. All other keys are ignored."""
OTHER_TEXTS = (
    "txt",
    "normalized_text",
    "text_normalized",
    "raw_text",
    "text_raw",
    "raw_transcription",
    "raw_transcript",
)
"""Keys that hold the spoken text if a record has no `text`. The usual keys in another case do too."""
AGREED_SECONDS = 0.01
"""By how much `end - start` and `duration` may differ, since times written with two decimals are rounded."""


def _known_fields(columns: dict[str, str]) -> dict[str, str]:
    if unknown := [field for field in columns if field not in FIELDS]:
        raise ValueError(f"{unknown[0]!r} is not a field; the fields are {', '.join(FIELDS)}")
    return columns


ColumnNames = Annotated[dict[str, str], AfterValidator(_known_fields)]
"""The source's names of fields."""


class Fields:
    """Finds the fields of records under any of their names.

    Args:
        columns: names of fields that replace the usual ones.
        ignore: keys to ignore, whatever their name; None if the source has no such parameter.
        usual: names of fields that differ from `FIELDS`.
    """

    def __init__(
        self,
        columns: Mapping[str, str] = {},
        ignore: Iterable[str] | None = None,
        usual: Mapping[str, tuple[str, ...]] = {},
    ) -> None:
        ignored = frozenset(ignore or ())
        self._leave_out = "remove it" if ignore is None else "list it under the source's `ignore`"
        names = FIELDS | dict(usual) | {field: (name,) for field, name in columns.items()}
        self.names = {field: tuple(name for name in known if name not in ignored) for field, known in names.items()}
        self._known = ignored.union(*self.names.values())

    def __call__(self, record: Mapping[str, Any]) -> dict[str, NamedValue]:
        """Return the fields of a record, each with the key that it was found under.

        Raises:
            BadLine: two keys of one field differ, or a key that isn't supported changes what the record means.
        """
        found: dict[str, NamedValue] = {}
        for field, names in self.names.items():
            for name in names:
                if name not in record or is_missing(value := plain(record[name])):
                    continue
                first, known = found.setdefault(field, (name, value))
                if not _agree(field, known, value):
                    raise BadLine(
                        f"`{first}` is {shown(known)} and `{name}` is {shown(value)}: remove one, or choose one in the "
                        f"source's `columns: {{{field}: {first}}}`"
                    )
        for name in record:
            if name in self._known:
                continue
            remedy = _remedy_of(name)
            if remedy and not is_missing(plain(record[name])):
                raise BadLine(f"`{name}` is not supported: {remedy}; or {self._leave_out}")
            if "text" not in found and _folded(name) in _TEXTS and not is_missing(plain(record[name])):
                raise BadLine(
                    f"has `{name}` instead of `text`: set `columns: {{text: {name}}}` in the source, or "
                    f"{self._leave_out}"
                )
        if "target_lang" not in self._known and "language" in found:
            target = language(("target_lang", plain(record.get("target_lang"))))
            if target not in (None, language(found["language"])):
                raise BadLine(f"`target_lang` is {target!r}: the text is a translation of the speech")
        return found

    def ignored(self, record: Mapping[str, Any]) -> list[str]:
        """Return the keys of a record that have a value but no field."""
        return [name for name in record if name not in self._known and not is_missing(plain(record[name]))]


def item_from(fields: Mapping[str, NamedValue], where: str) -> Item:
    """Return the item that a record's fields describe, without its locator.

    Raises:
        BadLine: a value is missing or of the wrong kind.
    """

    def of(field: str) -> NamedValue:
        return fields.get(field, (field, None))

    key, dialogue, turn = identifier(of("id")), identifier(of("dialogue_id")), integer(of("turn"), 0, 2**15 - 1)
    if key is None and "id" in fields:
        raise BadLine(f"`{of('id')[0]}` is {shown(of('id')[1])}, which means a missing value: give the item an id")
    if key is None:
        raise BadLine("has no id; name the key that holds one in the source's `columns: {id: NAME}`")
    if (dialogue is None) != (turn is None):
        raise BadLine("has only one of dialogue_id and turn; it needs both or neither")
    role = identifier(of("role"))
    if role == "system":
        raise BadLine("role 'system' does not speak: write the text as `system` on a line of its dialogue")
    if role not in (None, "user", "assistant", "narrator"):
        raise BadLine(f"role {role!r} is not one of user, assistant, narrator")
    start, length, declared = section(of("start"), of("end"), of("duration"))
    return Item(
        id=key,
        where=where,
        seconds=length or declared or 0.0,
        start_seconds=start,
        section_seconds=length,
        declared_seconds=declared,
        text=text(of("text")),
        dialogue_id=dialogue,
        turn=turn,
        role=role,
        system=text(of("system")),
        channel=channel(of("channel")),
        speaker_id=identifier(of("speaker_id")),
        split=identifier(of("split")),
        language=language(of("language")),
        timed_text=timed_text(of("timed_text")),
    )


def section(
    start: NamedValue, end: NamedValue, duration: NamedValue
) -> tuple[float | None, float | None, float | None]:
    """Return where a section of the file starts, its length, and the declared length of the whole file.

    If there is a start, a duration is the section's length; otherwise it is the file's. 0 means unknown.

    Raises:
        BadLine: a value is not a time, or the values contradict each other.
    """
    starts, ends, lasts = (number(named, 0, 1e6) for named in (start, end, duration))
    if starts is None and ends is None:
        return None, None, lasts or None
    begins = starts or 0.0
    if ends is None:
        if lasts == 0:
            raise BadLine(f"`{duration[0]}` is 0, but with `{start[0]}` it is a section's length")
        return begins, lasts, None
    if ends <= begins:
        raise BadLine(f"`{end[0]}` {ends:g} is not after `{start[0]}` {begins:g}")
    length = round(ends - begins, 6)
    if lasts and abs(lasts - length) > AGREED_SECONDS:
        apart = f"`{start[0]}` {begins:g} and `{end[0]}` {ends:g} are {length:g} s apart"
        raise BadLine(f"{apart}, but `{duration[0]}` is {lasts:g}: remove one")
    return begins, length, None


def _agree(field: str, one: Any, other: Any) -> bool:
    """Return True if two values of a field agree. Always True for `audio`: data sets have the samples and a path."""
    if field == "language" and isinstance(one, str) and isinstance(other, str):
        codes = [(code_of(value.strip(BLANK)) or value).split("-")[0] for value in (one, other)]
        return codes[0] == codes[1]
    return field == "audio" or one == other or str(one).strip(BLANK) == str(other).strip(BLANK)


@lru_cache(1000)
def _remedy_of(name: str) -> str | None:
    """Return what to do about an unsupported key; None for a harmless one."""
    return _REMEDIES.get(_folded(name))


def _folded(name: str) -> str:
    return re.sub(r"[ _-]", "", name).lower()


_TEXTS = frozenset(map(_folded, (*FIELDS["text"], *OTHER_TEXTS)))
_REMEDIES = {_folded(name): remedy for name, remedy in NOT_UNDERSTOOD.items()}

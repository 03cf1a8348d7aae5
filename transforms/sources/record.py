"""Records: what the values of a corpus mean. Every source reads texts, ids, numbers and languages here.

A record is a line of a manifest, a row of a data set, a turn of a dialogue. docs/MANIFESTS.md describes the keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator

from schemas.base import BLANK
from schemas.storage import is_url
from transforms.audio import MIX
from transforms.sources.base import Item
from transforms.sources.languages import code_of

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "utterance_id"),
    "audio": ("audio", "path", "audio_filepath", "file_name", "file"),
    "text": ("text", "reference_text", "transcript", "transcription", "sentence"),
    "duration": ("duration", "seconds"),
    "start": ("start", "offset"),
    "end": ("end",),
    "speaker_id": ("speaker_id", "speaker", "client_id"),
    "dialogue_id": ("dialogue_id",),
    "turn": ("turn",),
    "role": ("role",),
    "split": ("split",),
    "language": ("language", "lang", "locale", "source_lang"),
    "channel": ("channel", "channel_selector"),
}
"""Names of each field. A record may use several of one field if they agree; of the audio's names, the first counts,
since data sets have the audio beside its path."""

SECTION = "name the section's times in seconds `start` and `end`, or `offset` and `duration`"
CHANNEL = "name the channel `channel`, counted from 0"
ALTERED = "the speech is taken as its file has it"
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
"""Keys that change what a record means and that no field has, in any case and with or without underscores, and what to
do about each. All other keys are ignored."""

CHANNELS = {"left": 0, "right": 1, "average": MIX}
NOT_NUMBERS = frozenset(("nan", "na", "n/a", "<na>", "nat", "null", "none"))
"""How tables write that a number is missing, in lower case."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LARGEST = 1e300
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")
AGREED_SECONDS = 0.01
"""By how much `end - start` and `duration` may differ: what is written with two decimals is rounded."""

KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}


def _known_fields(columns: dict[str, str]) -> dict[str, str]:
    if unknown := [field for field in columns if field not in FIELDS]:
        raise ValueError(f"{unknown[0]!r} is no field; there are {', '.join(FIELDS)}")
    return columns


ColumnNames = Annotated[dict[str, str], AfterValidator(_known_fields)]
"""Fields, and the names that a source has for them."""

Named = tuple[str, Any]
"""A key as the record has it, and its value."""


class BadLine(Exception):
    """A record that names no item; says what is wrong with it."""


class Fields:
    """Finds the fields of records under any of their names.

    Args:
        columns: names of fields where they are not the usual ones; no other name of the field counts then.
        ignore: keys that don't count, whatever they are called; None where a source has no such parameter.
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

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Named]:
        """Return the fields that a record has, each with the key that it was found under.

        Raises:
            BadLine: two keys of one field differ, or a key changes what the record means and isn't understood.
        """
        found: dict[str, Named] = {}
        for field, names in self.names.items():
            for name in names:
                if name not in record or is_missing(value := plain(record[name])):
                    continue
                first, known = found.setdefault(field, (name, value))
                if not _agree(field, known, value):
                    raise BadLine(
                        f"`{first}` is {_shown(known)} and `{name}` is {_shown(value)}: remove one, or say which one "
                        f"counts with columns.{field}={first}"
                    )
        for name in record:
            if name in self._known:
                continue
            remedy = _remedy_of(name)
            if remedy and not is_missing(plain(record[name])):
                raise BadLine(f"`{name}` is not understood: {remedy}, or {self._leave_out}")
        if "target_lang" not in self._known and "language" in found:
            target = language(("target_lang", plain(record.get("target_lang"))))
            if target not in (None, language(found["language"])):
                raise BadLine(f"`target_lang` is {target!r}: the text is a translation of what was said")
        return found


def item_from(fields: Mapping[str, Named], where: str) -> Item:
    """Return the item that a record's fields describe, without its locator.

    Raises:
        BadLine: a value is missing or of the wrong kind.
    """

    def of(field: str) -> Named:
        return fields.get(field, (field, None))

    key, dialogue, turn = identifier(of("id")), identifier(of("dialogue_id")), integer(of("turn"), 0, 2**15 - 1)
    if key is None:
        raise BadLine("has no id; name the key that holds one with columns.id=NAME")
    if (dialogue is None) != (turn is None):
        raise BadLine("has only one of dialogue_id and turn")
    role = identifier(of("role"))
    if role not in (None, "user", "assistant", "narrator"):
        raise BadLine(f"role {role!r} is none of user, assistant, narrator")
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
        channel=channel(of("channel")),
        speaker_id=identifier(of("speaker_id")),
        split=identifier(of("split")),
        language=language(of("language")),
    )


def is_missing(value: Any) -> bool:
    """Return True for null, NaN, and a text of white space and zero-width characters."""
    if value is None or isinstance(value, str):
        return not (value and value.strip(BLANK))
    if isinstance(value, float | Decimal):
        return value != value
    return type(value).__name__ in ("NAType", "NaTType")  # pandas, which nothing here imports


def plain(value: Any) -> Any:
    """Return a numpy scalar as Python's own."""
    return value.item() if getattr(value, "shape", None) == () else value


def text(named: Named) -> str | None:
    """Return a text as it was given, trimmed of `BLANK`; None for no text. An integer is its digits.

    Raises:
        BadLine: it is of another kind, or holds a NUL.
    """
    name, value = named
    if is_missing(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | dict):
        raise BadLine(f"`{name}` is {kind_of(value)}; expected a text. Join it, or remove the key")
    return _string(name, value, "a text")


def identifier(named: Named) -> str | None:
    """Return an id, which is a text on one line or an integer; None for none.

    Raises:
        BadLine: it is of another kind, or holds a control character.
    """
    name, value = named
    if is_missing(value) or value in ("nan", "NaN"):
        return None
    if isinstance(value, str):
        word = _string(name, value, "a text or an integer")
        if CONTROL.search(word):
            raise BadLine(f"`{name}` {_shown(word)} holds a control character")
        return word
    if isinstance(value, bool) or not _is_number(value) or value != int(value) or not _is_exact(value):
        raise BadLine(f"`{name}` is {kind_of(value)} ({_shown(value)}); expected a text or an integer")
    return str(int(value))


def number(named: Named, low: float, high: float) -> float | None:
    """Return a number in [low, high]; None for none. A text is read as a decimal number with a point.

    Raises:
        BadLine: it is of another kind, not finite, or out of range.
    """
    name, value = named
    if isinstance(value, str):
        value = value.strip(BLANK)
        if value.lower() in NOT_NUMBERS:
            return None
    if is_missing(value):
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not _is_number(value):
        remedy = "; write it with a point" if isinstance(value, str) and value.count(",") == 1 else ""
        raise BadLine(f"{name} {_shown(value)} is not a number{remedy}")
    if not low <= value <= high:
        raise BadLine(f"{name} {_shown(value)} is outside [{low:g}, {high:g}]")
    return float(value)


def integer(named: Named, low: int, high: int) -> int | None:
    """Return a whole number in [low, high], which may be written `1.0`; None for none.

    Raises:
        BadLine: it is no whole number, or out of range.
    """
    value = number(named, low, high)
    if value is not None and value != int(value):
        raise BadLine(f"{named[0]} {value:g} is not a whole number")
    return None if value is None else int(value)


def channel(named: Named) -> int | None:
    """Return a channel, counted from 0: an integer, `left`, `right` or `average`; None for none.

    Raises:
        BadLine: it is none of them.
    """
    name, value = named
    if isinstance(value, str) and value.strip(BLANK).lower() in CHANNELS:
        return CHANNELS[value.strip(BLANK).lower()]
    try:
        return integer((name, value), -1, 127)
    except BadLine as error:
        raise BadLine(f"{error}; expected a channel from 0, or {', '.join(CHANNELS)}") from None


def language(named: Named) -> str | None:
    """Return a language's code, such as `en` or `pt-BR`; None for none. English names are understood.

    Raises:
        BadLine: it is no language.
    """
    name, value = named
    if is_missing(value):
        return None
    code = code_of(value.strip(BLANK)) if isinstance(value, str) else None
    if code is None:
        raise BadLine(f"`{name}` is {_shown(value)}; expected a language's code (BCP 47), such as en or pt-BR")
    return code


def section(start: Named, end: Named, duration: Named) -> tuple[float | None, float | None, float | None]:
    """Return where a section of the file starts and how long it is, and the declared length of the whole file.

    A duration is the section's length where there is a start, else the file's. 0 stands for an unknown length.

    Raises:
        BadLine: a value is no time, or they contradict each other.
    """
    starts, ends, lasts = (number(named, 0, 1e6) for named in (start, end, duration))
    if starts is None and ends is None:
        return None, None, lasts or None
    begins = starts or 0.0
    if ends is None:
        if lasts == 0:
            raise BadLine(f"`{duration[0]}` is 0, and `{start[0]}` makes it the length of a section")
        return begins, lasts, None
    if ends <= begins:
        raise BadLine(f"`{end[0]}` {ends:g} is not after `{start[0]}` {begins:g}")
    length = round(ends - begins, 6)
    if lasts and abs(lasts - length) > AGREED_SECONDS:
        apart = f"`{start[0]}` {begins:g} and `{end[0]}` {ends:g} are {length:g} s apart"
        raise BadLine(f"{apart}, and `{duration[0]}` is {lasts:g}: remove one")
    return begins, length, None


def place(named: Named) -> str:
    """Return the locator of an audio file: a URL, or a path, absolute or relative to the file that names it.

    Raises:
        BadLine: it is no path, or it leads out of the folder.
    """
    name, value = named
    if value is None:
        raise BadLine("has no audio path; name the key that holds it with columns.audio=NAME")
    if not isinstance(value, str):
        raise BadLine(f"has no audio path: `{name}` is {kind_of(value)}; expected a path")
    if value[:5].lower() == "file:":
        value = _local_path(name, value)
    if "\0" in value:
        raise BadLine("has no audio path: it holds a NUL")
    if is_url(value):
        return value
    path = os.path.normpath(value)
    if path.split(os.sep)[0] == os.pardir:
        raise BadLine(f"audio path {path!r} leads out of the manifest's folder")
    return path


def _local_path(name: str, url: str) -> str:
    """The path of a file URL (RFC 8089)."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadLine(f"`{name}` {url!r} is no URL ({error})") from None
    if parts.netloc.lower() not in ("", "localhost"):
        raise BadLine(f"`{name}` {url!r} is of the host {parts.netloc!r}; a file URL of this machine is file:///PATH")
    if not parts.path.startswith("/") or parts.query or parts.fragment:
        raise BadLine(f"`{name}` {url!r} is no file URL; write file:///PATH, with # as %23 and ? as %3F")
    try:
        return unquote(parts.path, errors="strict")
    except UnicodeDecodeError:
        raise BadLine(f"`{name}` {url!r} is not UTF-8") from None


def kind_of(value: Any) -> str:
    """Return the kind of a value in words."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def _string(name: str, value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise BadLine(f"`{name}` is {kind_of(value)} ({_shown(value)}); expected {expected}")
    if "\0" in value:
        raise BadLine(f"`{name}` holds a NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadLine(f"`{name}` holds half a surrogate pair ({error.reason})") from None
    return value.strip(BLANK)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    if not isinstance(value, int | float | Decimal):
        return False
    return -LARGEST < value < LARGEST


def _is_exact(value: Any) -> bool:
    """Whether a number still has all its digits: pandas makes floats of integers."""
    return not isinstance(value, float) or abs(value) < 2**53


def _agree(field: str, one: Any, other: Any) -> bool:
    """Whether two values of one field say the same; of the audio, its path stands beside it."""
    if field == "language" and isinstance(one, str) and isinstance(other, str):
        codes = [(code_of(value.strip(BLANK)) or value).split("-")[0] for value in (one, other)]
        return codes[0] == codes[1]
    return field == "audio" or one == other or str(one).strip(BLANK) == str(other).strip(BLANK)


@lru_cache(1000)
def _remedy_of(name: str) -> str | None:
    """What to do about a key that is not understood; None for one that is harmless."""
    return _REMEDIES.get(_folded(name))


def _folded(name: str) -> str:
    return re.sub(r"[ _-]", "", name).lower()


_REMEDIES = {_folded(name): remedy for name, remedy in NOT_UNDERSTOOD.items()}


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"

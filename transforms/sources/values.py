"""Values of a corpus's records: missing values, texts, ids, numbers, channels, languages and paths.

Each function takes a value together with its key in the record, which messages quote.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from typing import Any

from echo_targets.schemas.dataset.storage import is_url
from echo_targets.schemas.dataset.urls import as_path
from echo_targets.schemas.errors import UserError
from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.audio.waveforms import MIX
from echo_targets.transforms.languages import code_of

INVISIBLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069\u2800\u3164\uffa0"
)
"""Invisible marks and fillers. They are kept within other text, but are not text by themselves."""
CHANNELS = {"left": 0, "right": 1, "average": MIX}
NOT_NUMBERS = frozenset(("nan", "na", "n/a", "<na>", "nat", "null", "none"))
"""How tables write missing numbers, in lower case."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LARGEST = 1e300
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")
KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}

NamedValue = tuple[str, Any]
"""A key as the record has it, and its value."""


class BadLine(Exception):
    """A record can't become an item; the message says why."""


def is_missing(value: Any) -> bool:
    """Return True for null, NaN, and a text without visible characters."""
    if value is None or isinstance(value, str):
        return not (value and value.strip(BLANK + INVISIBLE))
    if isinstance(value, float | Decimal):
        return value != value
    return type(value).__name__ in ("NAType", "NaTType")  # pandas, which nothing here imports


def plain(value: Any) -> Any:
    """Convert a numpy scalar to Python's own type."""
    return value.item() if getattr(value, "shape", None) == () else value


def text(named: NamedValue) -> str | None:
    """Return a text as given, trimmed of `BLANK`; None if it is missing. An integer becomes its digits.

    Raises:
        BadLine: the value has another type, or holds a NUL.
    """
    name, value = named
    if is_missing(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | dict):
        raise BadLine(f"`{name}` is {kind_of(value)}; expected a text. Join it, or remove the key")
    return _string(name, value, "a text")


def identifier(named: NamedValue) -> str | None:
    """Return an id, which is a text on one line or an integer; None if it is missing.

    Raises:
        BadLine: the value has another type, or holds a control character.
    """
    name, value = named
    if is_missing(value) or value in ("nan", "NaN"):
        return None
    if isinstance(value, str):
        word = _string(name, value, "a text or an integer")
        if CONTROL.search(word):
            raise BadLine(f"`{name}` {shown(word)} holds a control character")
        return word
    if isinstance(value, bool) or not _is_number(value) or value != int(value) or not _is_exact(value):
        raise BadLine(f"`{name}` is {kind_of(value)} ({shown(value)}); expected a text or an integer")
    return str(int(value))


def number(named: NamedValue, low: float, high: float) -> float | None:
    """Return a number in [low, high]; None if it is missing. A text is parsed as a decimal number with a point.

    Raises:
        BadLine: the value is not a number, is not finite, or is out of range.
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
        comma = isinstance(value, str) and value.count(",") == 1
        remedy = "; write it with a point" if comma else ": correct it, or remove the key"
        raise BadLine(f"{name} {shown(value)} is not a number{remedy}")
    if not low <= value <= high:
        raise BadLine(f"{name} {shown(value)} is outside [{low:g}, {high:g}]: correct it, or remove the key")
    return float(value)


def integer(named: NamedValue, low: int, high: int) -> int | None:
    """Return a whole number in [low, high], which may be written `1.0`; None if it is missing.

    Raises:
        BadLine: the value is not a whole number, or is out of range.
    """
    value = number(named, low, high)
    if value is not None and value != int(value):
        raise BadLine(f"{named[0]} {value:g} is not a whole number")
    return None if value is None else int(value)


def channel(named: NamedValue) -> int | None:
    """Return a channel, counted from 0: an integer, `left`, `right` or `average`; None if it is missing.

    Raises:
        BadLine: the value is none of these.
    """
    name, value = named
    if isinstance(value, str) and value.strip(BLANK).lower() in CHANNELS:
        return CHANNELS[value.strip(BLANK).lower()]
    try:
        return integer((name, value), -1, 127)
    except BadLine as error:
        raise BadLine(f"{error}; expected a channel from 0, or {', '.join(CHANNELS)}") from None


def language(named: NamedValue) -> str | None:
    """Return a language's code, such as `en` or `pt-BR`; None if it is missing. English names are accepted.

    Raises:
        BadLine: the value is not a language.
    """
    name, value = named
    if is_missing(value):
        return None
    code = code_of(value.strip(BLANK)) if isinstance(value, str) else None
    if code is None:
        raise BadLine(f"`{name}` is {shown(value)}; expected a language's code (BCP 47), such as en or pt-BR")
    return code


def place(named: NamedValue) -> str:
    """Return the locator of an audio file: a URL or a path, absolute or relative to the file that lists it.

    Raises:
        BadLine: the value is not a path, or the path leads out of the folder.
    """
    name, value = named
    if value is None:
        raise BadLine("has no audio path; name the key that holds it in the source's `columns: {audio: NAME}`")
    if not isinstance(value, str):
        raise BadLine(f"has no audio path: `{name}` is {kind_of(value)}; expected a path")
    try:
        value = as_path(value)
    except UserError as error:
        raise BadLine(f"`{name}` {error}") from None
    if "\0" in value:
        raise BadLine("has no audio path: it holds a NUL")
    if is_url(value):
        return value
    path = os.path.normpath(value)
    if path.split(os.sep)[0] == os.pardir:
        raise BadLine(f"audio path {path!r} leads out of the manifest's folder")
    return path


def path_id(path: str) -> str:
    """Return the path of a file, without its ending, as an id.

    Raises:
        BadLine: it is not UTF-8, is blank, or holds a control character.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadLine("has a name that is not UTF-8: rename it, for instance with convmv -f LATIN1 -t UTF-8") from None
    if is_missing(path) or CONTROL.search(path):
        raise BadLine("has a name without visible characters, or with control characters: rename it")
    return path


def shown_path(path: str) -> str:
    """Return a path for messages: bytes that are not UTF-8 and control characters are escaped."""
    path = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return CONTROL.sub(lambda control: control[0].encode("unicode_escape").decode(), path)


def kind_of(value: Any) -> str:
    """Return the type of a value in words."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def _string(name: str, value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise BadLine(f"`{name}` is {kind_of(value)} ({shown(value)}); expected {expected}")
    if "\0" in value:
        raise BadLine(f"`{name}` holds a NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadLine(f"`{name}` holds half a surrogate pair ({error.reason})") from None
    return value.strip(BLANK)


def _is_number(value: Any) -> bool:
    """Return True if a value is a finite number."""
    if not isinstance(value, int | float | Decimal):
        return False
    return -LARGEST < value < LARGEST


def _is_exact(value: Any) -> bool:
    """Return True if a number is exact as a float. pandas turns integer columns with gaps into floats."""
    return not isinstance(value, float) or abs(value) < 2**53


def shown(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:60]}…"

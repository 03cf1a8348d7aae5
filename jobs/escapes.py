"""Escape text that comes from data before it is printed or written: ids, corpora, messages, paths, file names.

Without this, a line of somebody else's manifest could move the cursor of a terminal, add a row to a card, or give a
command to GitHub Actions.
"""

from __future__ import annotations

import json
import re
from typing import Any

from echo_targets.schemas.dataset.urls import without_secrets

NOT_ASCII = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
"""Control characters, line separators, marks that reorder text, halves of surrogate pairs, and no characters."""
CONTROL = re.compile(f"[\0-\x1f{NOT_ASCII}]")
COMMAND = re.compile(r"::(?=[A-Za-z])|##(?=\[)")
"""How a workflow command of GitHub Actions begins: `::error::…` or `##[error]…`."""


def one_line(value: object) -> str:
    r"""Return text on one line: characters that a terminal or a CI log would act on become escapes like `\n`.

    Passwords in URLs are left out, as by `without_secrets`.
    """
    return COMMAND.sub(_broken, CONTROL.sub(_escape, without_secrets(str(value))))


def lines(value: object) -> str:
    """Return text as `one_line` does, but with its line feeds kept."""
    return "\n".join(map(one_line, str(value).split("\n")))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that has the same meaning, but no characters that a terminal or a CI log would act on."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    unsafe = f"[{NOT_ASCII}]|{COMMAND.pattern}"
    return re.sub(unsafe, lambda found: "".join(f"\\u{ord(each):04x}" for each in found[0]), text)


def markup(value: object) -> str:
    """Return text for a string in rich's markup, on one line."""
    from rich.markup import escape

    return escape(one_line(value))


def markdown(value: object) -> str:
    """Return text for a cell of a Markdown table, without links, HTML or formatting of its own."""
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", one_line(value))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(value: object) -> str:
    """Return text as code in a cell of a Markdown table."""
    text = one_line(value).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{text}{ticks}" if len(ticks) == 1 else f"{ticks} {text} {ticks}"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _broken(found: re.Match[str]) -> str:
    return f"{found[0][0]}\\x{ord(found[0][1]):02x}"

"""What a URL names, and what of it may be shown or stored."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from echo_targets.schemas.errors import UserError

WEB = ("http", "https")
USER = re.compile(r"(?<=://)[^/?#\s'\"]*@")
SIGNATURE = re.compile(r"(https?://[^?\s'\"]*)\?[^\s'\"]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return text with the secrets of its URLs replaced by `…`: user and password, and the query of a web address."""
    return SIGNATURE.sub(r"\1?…", USER.sub("…@", text))


def is_file_url(place: str) -> bool:
    """Return True for a URL of a local file, such as `file:///data/a.wav`."""
    return place[:5].lower() == "file:"


def local_path(url: str) -> str:
    """Return the path that a file URL names (RFC 8089): percent-decoded, on no host or on localhost.

    Raises:
        UserError: the URL names another host, or no absolute path.
    """
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except UnicodeDecodeError:
        raise UserError(f"{url!r} is not UTF-8; percent-encode a path's UTF-8 bytes") from None
    except ValueError as error:
        raise UserError(f"{url!r} is not a URL ({error}); write a local file as file:///PATH") from None
    if parts.netloc.lower() not in ("", "localhost"):
        raise UserError(f"{url!r} is on the host {parts.netloc!r}; write a local file as file:///PATH")
    if not path.startswith("/") or parts.query or parts.fragment:
        raise UserError(f"{url!r} is not a file URL; write file:///PATH, with # as %23 and ? as %3F")
    if "\0" in path:
        raise UserError(f"{url!r} holds a NUL; correct the path")
    return path


def as_path(place: str) -> str:
    """Return the path that a file URL names, and any other place as it is."""
    return local_path(place) if is_file_url(place) else place

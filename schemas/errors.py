"""The base class of errors that the user can fix."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix. The message says what is wrong and what to do; the CLI prints no traceback."""

"""Errors that transforms and models raise."""

from __future__ import annotations

from echo_targets.schemas.errors import UserError


class BadData(Exception):
    """A row's data are bad: the row is rejected. Any other exception is the machine's, a library's or a bug.

    Args:
        error_class: a short, stable word to count by, such as `too_short`.
        message: what is wrong, where, and what to do.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class ModelError(UserError):
    """A model is missing, damaged or of the wrong kind. The message says what to install or fix."""

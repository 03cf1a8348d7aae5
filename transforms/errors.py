"""Errors that transforms and models raise."""

from __future__ import annotations

from echo_targets.schemas.errors import UserError


class ModelError(UserError):
    """A model is missing, damaged or of the wrong kind. The message says what to install or fix."""

"""Weights shipped with the project, each with its card."""

from pathlib import Path

PREFIX = "embedded:"


def asset(name: str) -> Path:
    """Return the path of a file or folder: `embedded:NAME` is one that is shipped here, any other name is a path."""
    return Path(__file__).parent / name.removeprefix(PREFIX) if name.startswith(PREFIX) else Path(name)

"""Weights that ship with the project, each with its card."""

from pathlib import Path

PREFIX = "embedded:"


def asset(name: str) -> Path:
    """The path of a file or folder: `embedded:NAME` is one that ships here, all else a path of the user's."""
    return Path(__file__).parent / name.removeprefix(PREFIX) if name.startswith(PREFIX) else Path(name)

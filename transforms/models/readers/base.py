"""The interface of a reader, which converts units back to text to score targets: `target_cer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

Segments: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""Collapsed units of a reply: by segment, by codebook."""
Durations: TypeAlias = Sequence[Sequence[int]]
"""Frames of each unit of a reply, by segment."""


class Reader(ABC):
    """A reader of units. The text of a reply does not depend on other replies.

    Attributes:
        needs_durations: True if it can't read units without their durations.
    """

    needs_durations: bool = False

    @abstractmethod
    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        """Check that the reader is for a codebook.

        Raises:
            ModelError: it is for another one.
        """

    @abstractmethod
    def read_replies(
        self, replies: Sequence[Segments], durations: Sequence[Durations | None] | None = None
    ) -> list[str]:
        """Return the text of each reply, in English.

        Args:
            replies: the units of each reply.
            durations: their durations; None where they are not known.

        Raises:
            ValueError: a unit is not in the codebook.
            ModelError: the reader needs durations.
        """

    @abstractmethod
    def comparable(self, text: str) -> str:
        """Return a text in the form in which errors are counted; empty if it can't be compared."""

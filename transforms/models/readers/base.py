"""What reads targets back to text, so that they are judged by what they say: `target_cer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Reader(ABC):
    """A reader of units. What it reads in a reply does not depend on the others."""

    @abstractmethod
    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        """Make sure that units of a codebook are what this reads.

        Raises:
            ModelError: it reads those of another.
        """

    @abstractmethod
    def read_replies(self, replies: Sequence[Sequence[Sequence[int]]]) -> list[str]:
        """The text of each reply, in English.

        Args:
            replies: the units of each reply's segments.

        Raises:
            ValueError: a unit is not in the codebook.
        """

    @abstractmethod
    def comparable(self, text: str) -> str:
        """A text, read or to be read, without what does not count as an error; empty where it can't be compared."""

"""Decontamination: find rows whose text shares a run of words with an evaluation set.

The rule is GPT-3's (Brown et al. 2020, arXiv 2005.14165, appendix C): a run of 13 words in common. A shorter evaluation
text must occur as a whole. One below 8 words is ignored, since such runs occur by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.lines import json_lines, text_lines
from echo_targets.transforms.sources.values import BadLine
from echo_targets.transforms.text import normalize, pieces

LONGEST, SHORTEST = 13, 8


class EvaluationTexts:
    """The runs of words to look for.

    Words ignore case and punctuation; in scripts without spaces, each character is a word.

    Args:
        texts: of the evaluation set.
    """

    def __init__(self, texts: list[str]) -> None:
        self._runs: dict[int, set[str]] = {}
        for text in texts:
            words = _words(text)
            length = min(len(words), LONGEST)
            if length >= SHORTEST:
                self._runs.setdefault(length, set()).update(_runs(words, length))

    @classmethod
    def load(cls, path: Path) -> EvaluationTexts:
        """Load a file of one text per line, or of one JSON object with a key `text` per line.

        Raises:
            ModelError: the file can't be read, a line has no text, or no text is long enough to look for.
        """
        found = cls(list(_texts(path)))
        if not found._runs:
            raise ModelError(f"{path}: no text has {SHORTEST} words or more, so nothing can be looked for")
        return found

    def shared(self, text: str | None) -> str | None:
        """Return the first run of words that a text shares with the set; None if it shares none."""
        words = _words(text or "")
        found = (run for length, runs in sorted(self._runs.items()) for run in _runs(words, length) if run in runs)
        return next(found, None)


def _words(text: str) -> list[str]:
    return pieces(normalize(text, ""))


def _runs(words: list[str], length: int) -> Iterator[str]:
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))


def _texts(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            is_json = file.read(1 << 10).decode("utf-8", "replace").lstrip("\ufeff \t\r\n").startswith(("{", "["))
            file.seek(0)
            lines: Iterator[tuple[int, Any]] = json_lines(file, str(path)) if is_json else text_lines(file, str(path))
            for number, line in lines:
                yield _text(line, f"{path}:{number}")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; evaluation_texts names a file of texts, one per line") from error
    except SourceError as error:
        raise ModelError(str(error)) from error


def _text(line: Any, where: str) -> str:
    if isinstance(line, BadLine):
        raise ModelError(f"{where}: {line}")
    text = line.get("text") if isinstance(line, dict) else line
    if not isinstance(text, str):
        raise ModelError(f"{where}: `text` is {type(text).__name__}; expected a string in each line")
    return text

"""A small CTC network that reads units back to text. Its directory has two files: `config.json`, `model.safetensors`.

It scores targets by their text: `target_cer` compares the text read from a reply's units with the reply's own text. The
network is convolutional and sees `num_layers * reach` units on either side (as shipped 24, two or three words), so it
spells the given units rather than a likely sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.tensors import check_tensors, write_tensors
from echo_targets.transforms.models.readers.base import Durations, Reader, Segments
from echo_targets.transforms.models.readers.ctc_config import ALPHABET, BLANK, UnitReaderConfig
from echo_targets.transforms.threads import single_threaded
from echo_targets.transforms.units.codebook import check_units

if TYPE_CHECKING:
    from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule

BATCH_UNITS = 20_000


class UnitReader(Reader):
    """A reader of units.

    Attributes:
        config: sizes and codebook.
        module: the network, float32, in evaluation mode.
    """

    def __init__(self, config: UnitReaderConfig, module: UnitReaderModule) -> None:
        self.config, self.module = config, module

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> UnitReader:
        """Load a model directory.

        Raises:
            ModelError: a file is missing or damaged, or tensors are missing, unexpected, or have another shape.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule

        for name in ("config.json", "model.safetensors"):
            if not (path / name).is_file():
                raise ModelError(f"{path} has no {name}: not a unit reader")
        try:
            config = UnitReaderConfig.model_validate_json((path / "config.json").read_bytes())
            state = load_file(path / "model.safetensors", device=device)
        except (ValidationError, SafetensorError) as error:
            raise ModelError(f"{path}: damaged unit reader ({error})") from error
        module = UnitReaderModule(config)
        check_tensors(path, module.state_dict(), state)
        module.load_state_dict(state)
        return cls(config, module.float().to(device).eval())

    def save(self, path: Path, half: bool = False) -> None:
        """Write the model directory, in float16 if `half`."""
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(self.config.model_dump_json(indent=1) + "\n")
        write_tensors(path / "model.safetensors", self.module.state_dict(), half)

    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        if codebook_id != self.config.codebook_id:
            raise ModelError(f"the reader is for units of {self.config.codebook_id}, not {codebook_id}")

    def read_replies(
        self, replies: Sequence[Segments], durations: Sequence[Durations | None] | None = None
    ) -> list[str]:
        """Return the text of each reply. Its segments are read one by one and joined by spaces."""
        read = iter(self.read([units for segments in replies for (units,) in segments]))
        return [" ".join(next(read) for _ in segments) for segments in replies]

    def comparable(self, text: str) -> str:
        return readable(text)

    def read(self, units: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of units by greedy CTC decoding. It does not depend on neighboring rows.

        Args:
            units: rows without equal neighbors; an empty row has an empty text.

        Returns:
            Texts of `ALPHABET`, in the order of the rows.

        Raises:
            ValueError: a unit is not in the codebook.
        """
        rows = [list(map(int, row)) for row in units]
        check_units(rows, self.config.codebook_size)
        texts = [""] * len(rows)
        for batch in _batches(rows):
            likeliest = partial(self._likeliest, [rows[row] for row in batch])
            for row, symbols in zip(batch, single_threaded(likeliest, self._device), strict=True):
                texts[row] = spelled_out(symbols[: len(rows[row]) * self.config.frames_per_unit])
        return texts

    def _likeliest(self, rows: list[list[int]]) -> list[list[int]]:
        """Return the likeliest symbol of each CTC frame."""
        import torch

        from echo_targets.transforms.models.readers.ctc_network import padded

        with torch.inference_mode():
            return self.module(*padded(rows, self._device)).argmax(-1).tolist()

    @cached_property
    def _device(self) -> str:
        return str(self.module.head.weight.device)


def readable(text: str) -> str:
    """Return a text as a reader spells it: English words, lower case, no accents or punctuation, single spaces.

    Returns an empty text if the text has digits, which can be spoken in several ways, or letters that are not English:
    the rest would not match the speech.
    """
    folded = unicodedata.normalize("NFKD", text.replace("’", "'")).lower()
    letters = "".join(character for character in folded if not unicodedata.combining(character))
    if any(letter.isalnum() and letter not in ALPHABET for letter in letters):
        return ""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", letters))


def target_cer(
    reader: Reader,
    texts: Sequence[str],
    targets: Sequence[Segments],
    durations: Sequence[Durations | None] | None = None,
) -> list[float | None]:
    """Return the character error rate of each reply's targets.

    Args:
        reader: a reader for the targets' codebook.
        texts: the text of each reply.
        targets, durations: as for `Reader.read_replies`.
    """
    return [
        character_error_rate(text, read, reader.comparable)
        for text, read in zip(texts, reader.read_replies(targets, durations), strict=True)
    ]


def character_error_rate(reference: str, read: str, comparable: Callable[[str], str] = readable) -> float | None:
    """Return the edits from the read text to the reference, per character of the reference; both made comparable.

    Returns None if nothing in the reference can be compared.
    """
    from rapidfuzz.distance import Levenshtein

    wanted = comparable(reference)
    return Levenshtein.distance(comparable(read), wanted) / len(wanted) if wanted else None


def spelled_out(symbols: Sequence[int]) -> str:
    """Return the text of CTC frames' symbols: repetitions merged, blanks dropped, words separated by single spaces."""
    changes = (now for now, before in zip(symbols, [BLANK, *symbols], strict=False) if now != before)
    return " ".join("".join(ALPHABET[symbol] for symbol in changes if symbol != BLANK).split())


def _batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return indices of the non-empty rows, in batches of similar lengths, with at most `BATCH_UNITS` padded units."""
    batches: list[list[int]] = []
    for row in sorted((row for row in range(len(rows)) if rows[row]), key=lambda row: len(rows[row])):
        if not batches or len(rows[row]) * (len(batches[-1]) + 1) > BATCH_UNITS:
            batches.append([])
        batches[-1].append(row)
    return batches

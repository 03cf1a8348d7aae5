"""Sizes and alphabet of the unit reader."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
BLANK = len(ALPHABET)


class UnitReaderConfig(BaseModel):
    """Sizes of the network, and the codebook of its units.

    Attributes:
        codebook_id, codebook_size: as in the table `units`.
        hidden_size, ffn_size, num_layers: sizes of the residual blocks.
        reach: units on either side that a block sees.
        frames_per_unit: CTC frames per unit, so that there are enough for all letters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codebook_id: str
    codebook_size: PositiveInt
    hidden_size: PositiveInt
    ffn_size: PositiveInt
    num_layers: PositiveInt
    reach: PositiveInt
    frames_per_unit: PositiveInt = 2

"""Sizes and alphabet of the network that reads units."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
BLANK = len(ALPHABET)


class UnitReaderConfig(BaseModel):
    """Sizes, and the codebook whose units are read.

    Attributes:
        codebook_id, codebook_size: as in the table `units`.
        hidden_size, ffn_size, num_layers: of the residual blocks.
        reach: units to either side that a block sees.
        frames_per_unit: CTC frames for each unit, so that there are at least as many as letters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codebook_id: str
    codebook_size: PositiveInt
    hidden_size: PositiveInt
    ffn_size: PositiveInt
    num_layers: PositiveInt
    reach: PositiveInt
    frames_per_unit: PositiveInt = 2

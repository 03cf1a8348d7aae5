"""The network of the unit reader. Imports torch, so import this only where a model is set up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from echo_targets.transforms.models.readers.ctc_config import ALPHABET, UnitReaderConfig


class UnitReaderModule(nn.Module):
    """Unit embeddings, residual convolution blocks, and a few CTC frames per unit."""

    def __init__(self, config: UnitReaderConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.unit_embedding = nn.Embedding(config.codebook_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, dropout) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.frames_per_unit * (len(ALPHABET) + 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, units: Tensor, lengths: Tensor) -> Tensor:
        """Return log-probabilities of the letters and, last, the blank.

        Args:
            units: (B, T) int64, padded on the right with any unit.
            lengths: (B,) int64, number of units of each row.

        Returns:
            (B, T * frames_per_unit, letters and blank) float32; a row's own frames come first.
        """
        mask = (torch.arange(units.shape[1], device=units.device) < lengths[:, None]).unsqueeze(-1)
        hidden = self.dropout(self.unit_embedding(units))
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.head(self.norm(hidden)).unflatten(-1, (-1, len(ALPHABET) + 1)).flatten(1, 2).float().log_softmax(-1)


class Block(nn.Module):
    """A depthwise convolution over units, then a feed-forward layer at each (ConvNeXt: Liu et al. 2022)."""

    def __init__(self, config: UnitReaderConfig, dropout: float) -> None:
        super().__init__()
        size = config.hidden_size
        self.mix = nn.Conv1d(size, size, 2 * config.reach + 1, padding=config.reach, groups=size)
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, config.ffn_size)
        self.down = nn.Linear(config.ffn_size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, hidden) and the mask (B, T, 1) to (B, T, hidden). Padding reads as zeros, like the borders."""
        mixed = self.mix((hidden * mask).transpose(1, 2)).transpose(1, 2)
        return hidden + self.dropout(self.down(nn.functional.gelu(self.up(self.norm(mixed)))))


def padded(rows: Sequence[Sequence[int] | np.ndarray], device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return rows of units as (B, T) int64 and their lengths, (B,) int64. Each row has at least one unit."""
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device), lengths.to(device)

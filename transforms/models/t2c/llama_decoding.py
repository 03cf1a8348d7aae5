"""Batched decoding with a Llama: left padding, one key-value cache, finished rows dropped.

Imports torch, so import this only where a model is set up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64
"""Steps by which a cache grows."""


def llama_config(
    *,
    hidden_size: int,
    num_attention_heads: int,
    head_dim: int | None,
    rope_scaling: Mapping[str, Any] | None,
    **sizes: Any,
) -> LlamaConfig:
    """Return a Llama's configuration, by the names of `config.json`.

    transformers 5 writes into the `rope_scaling` that it is given, so it gets a copy. It also checks that `hidden_size`
    divides into heads, even where `head_dim` makes that unnecessary, so the heads are set afterwards.
    """
    config = LlamaConfig(
        hidden_size=hidden_size,
        num_attention_heads=1,
        head_dim=head_dim or hidden_size // num_attention_heads,
        rope_scaling=None if rope_scaling is None else dict(rope_scaling),
        **sizes,
    )
    config.num_attention_heads = num_attention_heads
    return config


class RunningBatch:
    """The rows that are still being decoded, and the hidden state after each row's last token.

    Args:
        model: takes input embeddings.
        prompts: one (length, hidden_size) tensor of input embeddings per row.
        positions: (length,) positions of each prompt; 0, 1, 2 … if not given.
        seen: (length,) int64 per prompt, 0 where nothing may attend to; all 1 if not given.

    Attributes:
        states: (rows, hidden_size), after the final norm; they predict each row's next token.
    """

    def __init__(
        self,
        model: LlamaModel,
        prompts: Sequence[Tensor],
        positions: Sequence[Tensor] | None = None,
        seen: Sequence[Tensor] | None = None,
    ) -> None:
        self._model = model
        embeddings, mask = padded_left(prompts)
        placed = padded_left(positions)[0] if positions else positions_of(mask)
        self._mask = padded_left(seen)[0] if seen else mask
        self._past = Cache(layer_class_to_replicate=RoomyLayer)
        self.states = self._run(embeddings, placed)

    def step(self, rows: Sequence[int], embeddings: Tensor, positions: Tensor) -> None:
        """Process one more token in some of the rows; these become the batch.

        Args:
            rows: indices into the current batch, in any order; an index may occur several times (beams).
            embeddings: (len(rows), hidden_size) of the token.
            positions: (len(rows),) of the token.
        """
        if list(rows) != list(range(len(self._mask))):
            chosen = torch.tensor(rows, device=self._mask.device)
            self._past.batch_select_indices(chosen)
            self._mask = self._mask[chosen]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)
        self.states = self._run(embeddings[:, None], positions[:, None])

    def _run(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        read = self._model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=_causal(self._mask, embeddings.shape[1]),
            past_key_values=self._past,
            use_cache=True,
        )
        return read.last_hidden_state[:, -1]


class RoomyLayer(DynamicLayer):
    """A layer's keys and values, at the start of tensors that have room for more.

    A step writes its own into that room; transformers' layer copies the whole cache at each step.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Add (rows, heads, tokens, size) keys and values; return all of them."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not start:  # not by `lazy_initialization`, whose arguments differ between transformers 4 and 5
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._all = key_states[:, :, :0], value_states[:, :, :0]
        if end > self._all[0].shape[-2]:
            self._all = _grown(self._all[0], start, end + ROOM), _grown(self._all[1], start, end + ROOM)
        for whole, new in zip(self._all, (key_states, value_states), strict=True):
            whole[:, :, start:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Select the rows that become the batch."""
        self._all = self._all[0][indices], self._all[1][indices]
        self._show(self.get_seq_length())

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = shown = self._all[0][:, :, :length], self._all[1][:, :, :length]
        return shown


def _grown(states: Tensor, used: int, room: int) -> Tensor:
    grown = states.new_empty(*states.shape[:2], room, states.shape[-1])
    grown[:, :, :used] = states[:, :, :used]
    return grown


def _causal(seen: Tensor, queries: int) -> Tensor:
    """Map a (rows, length) mask to a (rows, 1, queries, length) bool: what each of the last tokens may attend to.

    transformers would compute the same from `seen`, with a vmap that takes longer than a small model's attention.
    """
    length = seen.shape[1]
    before = torch.ones(queries, length, dtype=torch.bool, device=seen.device).tril(length - queries)
    return seen.bool()[:, None, None] & before


def padded_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Left-pad rows of (length, …) with zeros to one (rows, longest, …) tensor; and its (rows, longest) mask."""
    longest = max(map(len, rows))
    batch = rows[0].new_zeros(len(rows), longest, *rows[0].shape[1:])
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=rows[0].device)
    for number, row in enumerate(rows):
        batch[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = 1
    return batch, mask


def positions_of(mask: Tensor) -> Tensor:
    """Return (rows, length) positions that count a padded batch's tokens from 0; 0 in the padding."""
    return (mask.cumsum(1) - 1).clamp_min(0)

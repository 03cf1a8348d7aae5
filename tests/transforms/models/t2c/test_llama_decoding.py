"""The key-value cache of batched decoding: what transformers' own cache holds, bit for bit."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("prompt", "steps"), [(1, 3), (150, 140)])
def test_the_cache_is_that_of_transformers(prompt: int, steps: int) -> None:
    import torch
    from transformers.cache_utils import DynamicLayer

    from echo_targets.transforms.models.t2c.llama_decoding import ROOM, RoomyLayer

    assert steps < ROOM or steps > 2 * ROOM  # within its first room, and past it twice
    ours, theirs = RoomyLayer(), DynamicLayer()
    rows = 4
    for step in range(steps):
        tokens = prompt if step == 0 else 1
        keys, values = torch.randn(2, rows, 3, tokens, 8)
        for found, expected in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(found, expected)
        if step % 7 == 1:  # rows that go on, in another order, one of them twice, one not at all
            chosen = torch.tensor([2, 0, 0, 3])
            ours.batch_select_indices(chosen)
            theirs.batch_select_indices(chosen)
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    assert ours.get_seq_length() == prompt + steps - 1

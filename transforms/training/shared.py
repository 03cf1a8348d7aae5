"""Shared parts of EchoX's training stages: cached frames, passes with gradients, losses, and writing the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.checkpoints.tensors import write_tensors
from echo_targets.transforms.models.echox.audio_tower import AudioTower
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.training.row_cache import RowCache

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

    from echo_targets.transforms.models.echox.network import EchoXNetwork


def cached_frames(out_dir: Path, rows: Sequence[Any], tower: AudioTower) -> RowCache:
    """Return the frozen encoder's frames of rows that have `id`, `audio` and `num_samples`."""
    step = tower.context * HOP_SAMPLES
    lengths = [-(-row.num_samples // step) * tower.context for row in rows]
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in tower.encoder.state_dict().values())
    rows_key = json.dumps([[row.id, row.num_samples] for row in rows])
    key = f"{digest(rows_key.encode())} {digest(weights)}"
    cache = RowCache(out_dir / "frames.f16", lengths, tower.width, key)
    return cache.fill(lambda numbers: tower_frames(tower, [decode_flac(rows[number].audio) for number in numbers]))


def tower_frames(tower: AudioTower, waveforms: Sequence[Any]) -> list[Tensor]:
    """Return `AudioTower.frames`, without gradients."""
    import torch

    with torch.inference_mode():
        return tower.frames(waveforms)


def prompt_ids(
    prompt: PromptTemplate, tokenizer: Tokenizer, config: EchoXConfig, system_text: str | None = None
) -> list[int]:
    """Return the ids of a prompt of one turn, with the placeholder for its audio."""
    before, after = prompt.around_audio(tokenizer, system_text)
    return [*before, config.audio_patch_id, *after]


def encode_for_training(network: EchoXNetwork, turns: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Map encoder frames of turns, one per dialogue, to embeddings and CTC logits (turns, frames / 2, vocabulary).

    Unlike `SpeechLlama.encode_audio` it returns the logits. Gradients flow through the kept frames, not
    through their choice.
    """
    from torch.nn.utils.rnn import pad_sequence

    projected = [dialogue[0] for dialogue in network.model.project([[turn] for turn in turns])]
    logits = network.model.audio_feature_head(pad_sequence(projected, batch_first=True))
    chosen = [row[: len(turn)] for row, turn in zip(logits.argmax(-1), projected, strict=True)]
    return network.model.shrink(projected, chosen), logits


def ctc_loss(logits: Tensor, lengths: Sequence[int], targets: Sequence[Sequence[int]], blank: int) -> Tensor:
    """Return the CTC loss (Graves et al. 2006) per token; targets too long for their frames count as nothing."""
    import torch
    import torch.nn.functional as functional

    counts = torch.tensor([len(target) for target in targets])
    loss = functional.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([token for target in targets for token in target]),
        torch.tensor(lengths),
        counts,
        blank,
        reduction="sum",
        zero_infinity=True,
    )
    return loss / counts.sum().clamp_min(1)


def forced_states(
    network: EchoXNetwork,
    prompts: Sequence[Sequence[int]],
    audio_embeddings: Sequence[Tensor],
    replies: Sequence[Sequence[int]],
    dropout: float = 0.0,
) -> list[Tensor]:
    """Return the states that predict each token of a reply and its end, (len(reply) + 1, hidden_size) each.

    Args:
        prompts: of one turn each, with the placeholder.
        audio_embeddings: embeddings that replace the placeholder, (any, hidden_size).
    """
    import torch
    import torch.nn.functional as functional
    from torch.nn.utils.rnn import pad_sequence

    config = network.config
    ids = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    places = [prompt.index(config.audio_patch_id) for prompt in prompts]
    embedded = network.model.embed_tokens(torch.tensor([token for row in ids for token in row])).split([*map(len, ids)])
    inputs = [
        torch.cat([row[:place], turn, row[place + 1 :]])
        for row, turn, place in zip(embedded, audio_embeddings, places, strict=True)
    ]
    # Padding is on the right, where the causal mask hides it; padding tokens in a prompt are hidden as in EchoX.
    seen = [
        torch.tensor([*_seen(row[:place], config), *[1] * len(turn), *_seen(row[place + 1 :], config)])
        for row, turn, place in zip(ids, audio_embeddings, places, strict=True)
    ]
    hides = any(not row.all() for row in seen)
    read = network.model(
        inputs_embeds=functional.dropout(pad_sequence(inputs, batch_first=True), dropout, network.training),
        attention_mask=pad_sequence(seen, batch_first=True, padding_value=1) if hides else None,
        use_cache=False,
    ).last_hidden_state
    return [
        states[len(row) - len(reply) - 1 : len(row)] for states, row, reply in zip(read, inputs, replies, strict=True)
    ]


def reply_loss(network: EchoXNetwork, states: Sequence[Tensor], replies: Sequence[Sequence[int]]) -> Tensor:
    """Return the cross-entropy of the replies' tokens and ends, from the states that predict them."""
    import torch
    import torch.nn.functional as functional

    end = network.config.end_ids[0]
    logits = network.lm_head(torch.cat(list(states)))
    return functional.cross_entropy(logits.float(), torch.tensor([token for row in replies for token in (*row, end)]))


def hidden_of(network: EchoXNetwork) -> torch.nn.Module:
    """Return the layers that map hidden states to hidden states in the speech-to-text half."""
    import torch

    front = network.model.asr_transformer_encoder, network.model.lbm.encoder_attn
    return torch.nn.ModuleList([network.model.layers, *front])


def save_echox(
    path: Path, config: EchoXConfig, network: EchoXNetwork, tokenizer: Tokenizer, half: bool = False
) -> None:
    """Write a directory for `EchoX.load`, in float16 if `half`."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config.model_dump_json(indent=1, exclude_none=True) + "\n")
    tokenizer.save(str(path / "tokenizer.json"))
    write_tensors(path / "model.safetensors", network.state_dict(), half)


def tokenizer_of(echox: EchoX) -> Tokenizer:
    """Return a checkpoint's tokenizer.

    Raises:
        ValueError: it has none.
    """
    if echox.tokenizer is None:
        raise ValueError("the model has no tokenizer.json")
    return echox.tokenizer


def _seen(ids: Sequence[int], config: EchoXConfig) -> list[int]:
    return [int(token != config.pad_token_id) for token in ids]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

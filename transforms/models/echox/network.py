"""EchoX's network with its release's tensor names. Imports torch, so import this only where a model is set up.

The release's quirks are kept, since its weights were trained with them: `asr_transformer_encoder` attends over a
dialogue's audio turns instead of over time, and look-back attention only sees the kept frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaModel

from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.t2c.llama_decoding import llama_config
from echo_targets.transforms.models.t2c.network import T2CModule

CTC_CHUNK = 1 << 26
"""Maximum logits of the CTC head to hold at a time; its vocabulary is the language model's."""


class EncodedAudio(NamedTuple):
    """A turn of audio as input of the language model.

    Attributes:
        ctc: (frames,) int64, the CTC head's choice for each frame of 40 ms.
        embeddings: (kept, hidden_size), one per run of equal choices.
    """

    ctc: Tensor
    embeddings: Tensor


class LookBack(nn.Module):
    """Look-back attention (`lbm`): the kept frames attend to each other, with residual and norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.encoder_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.atten_layer_norm = nn.LayerNorm(width)

    def forward(self, kept: Tensor, padding: Tensor) -> Tensor:
        """Attend over (turns, kept, width); `padding` is True at padding, (turns, kept)."""
        attended, _ = self.encoder_attn(kept, kept, kept, key_padding_mask=padding, need_weights=False)
        return self.atten_layer_norm(kept + attended)


class SpeechLlama(LlamaModel):
    """A Llama with a front end that turns the frames of a Whisper encoder into input embeddings."""

    def __init__(self, config: EchoXConfig, audio_width: int) -> None:
        super().__init__(llama_config(**config.llama))
        width, heads = config.hidden_size, config.num_attention_heads
        self.mm_projector1 = nn.Linear(2 * audio_width, width)
        over_turns = nn.TransformerEncoderLayer(width, heads, 2 * width, norm_first=True)
        self.asr_transformer_encoder = nn.TransformerEncoder(over_turns, 1, enable_nested_tensor=False)
        self.out_norm = nn.LayerNorm(width)
        self.audio_feature_head = nn.Linear(width, config.vocab_size, bias=False)
        self.lbm = LookBack(width, heads)

    def project(self, dialogues: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Map encoder frames of each turn of each dialogue, (frames, audio_width), to (frames / 2, hidden_size)."""
        turns = [_in_pairs(turn) for dialogue in dialogues for turn in dialogue]
        projected = self.mm_projector1(pad_sequence(turns, batch_first=True))
        ends = [0]
        for dialogue in dialogues:
            ends.append(ends[-1] + len(dialogue))
        # For this layer, a dialogue's turns are the sequence, and every frame of every dialogue is a batch element.
        stacked = pad_sequence([projected[start:end] for start, end in pairwise(ends)])
        there = pad_sequence(
            [_there(turns[start:end], projected.shape[1]) for start, end in pairwise(ends)], batch_first=True
        )
        most, count, frames, width = stacked.shape
        missing = ~there.transpose(1, 2).reshape(count * frames, most)
        missing[:, 0] = False  # a frame that no turn has is dropped below, but must not be NaN
        read = self.asr_transformer_encoder(
            stacked.reshape(most, count * frames, width), src_key_padding_mask=missing if missing.any() else None
        )
        normed = self.out_norm(read).reshape(most, count, frames, width)
        lengths = [[len(turn) for turn in turns[start:end]] for start, end in pairwise(ends)]
        return [
            [normed[turn, number, :length] for turn, length in enumerate(of_turns)]
            for number, of_turns in enumerate(lengths)
        ]

    def encode_audio(self, dialogues: Sequence[Sequence[Tensor]]) -> list[list[EncodedAudio]]:
        """Encode turns of dialogues from an even number of encoder frames each, (frames, audio_width)."""
        projected = self.project(dialogues)
        turns = [turn for dialogue in projected for turn in dialogue]
        chosen = [self._ctc(turn) for turn in turns]
        encoded = map(EncodedAudio, chosen, self.shrink(turns, chosen))
        return [[next(encoded) for _ in dialogue] for dialogue in dialogues]

    def shrink(self, turns: Sequence[Tensor], chosen: Sequence[Tensor]) -> list[Tensor]:
        """Map projected frames and the CTC head's choices to (kept, hidden_size) embeddings of each turn."""
        kept = [turn[starts_of_runs(ctc)] for turn, ctc in zip(turns, chosen, strict=True)]
        lengths = torch.tensor([len(turn) for turn in kept], device=self.device)
        padded = pad_sequence(kept, batch_first=True)
        padding = torch.arange(padded.shape[1], device=self.device) >= lengths[:, None]
        looked = self.lbm(padded, padding)
        return [row[: len(turn)] for row, turn in zip(looked, kept, strict=True)]

    def _ctc(self, frames: Tensor) -> Tensor:
        chunks = frames.split(max(1, CTC_CHUNK // self.config.vocab_size))
        return torch.cat([self.audio_feature_head(chunk).argmax(-1) for chunk in chunks])


class EchoXNetwork(nn.Module):
    """Speech-to-text LLM and unit decoder of EchoX.

    Attributes:
        model, lm_head: the language model and its output layer.
        unit_translator: the unit decoder. Its denoising adapter `aligner_MLP` maps hidden states to its input.
    """

    def __init__(self, config: EchoXConfig, audio_width: int) -> None:
        super().__init__()
        self.config = config
        self.model = SpeechLlama(config, audio_width)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.unit_translator = UnitTranslator(config)


class UnitTranslator(T2CModule):
    """The unit decoder, with the denoising adapter in front."""

    def __init__(self, config: EchoXConfig) -> None:
        super().__init__(config.unit_decoder)
        width, inner = config.hidden_size, config.denoiser_size or config.intermediate_size
        self.aligner_MLP = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Dropout(0.1), nn.Linear(inner, width))


def starts_of_runs(ctc: Tensor) -> Tensor:
    """Return (frames,) bool: True for frame 0 and every frame whose choice differs from the frame before it."""
    return torch.cat([ctc.new_ones(1, dtype=torch.bool), ctc[1:] != ctc[:-1]])


def _in_pairs(frames: Tensor) -> Tensor:
    return frames.reshape(len(frames) // 2, -1)


def _there(turns: Sequence[Tensor], frames: int) -> Tensor:
    """Return (turns, frames) bool: True for the frames that a turn has."""
    lengths = torch.tensor([len(turn) for turn in turns], device=turns[0].device)
    return torch.arange(frames, device=turns[0].device) < lengths[:, None]

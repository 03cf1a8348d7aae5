"""Features of a Whisper encoder layer, for units: 50 frames a second, each utterance at its own length.

A Whisper encoder expects 30 s windows. Its position table can be cut instead: an utterance that is padded to its own
next whole second takes a fraction of the work. Its features are not those of a 30 s window: with the embedded codebook,
96 % of the units of 13 s of speech are the same, and 80 % of the units of 2 s. So a codebook has to be fitted on
features made in this way, as `fit-codebook` does.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders.base import Encoder
from echo_targets.transforms.models.whisper.weights import encoder_digest, is_transformers, load_whisper

if TYPE_CHECKING:
    import torch
    from whisper.model import AudioEncoder, Whisper

SAMPLE_RATE = 16_000
HOP_SAMPLES = 320
WINDOW_SECONDS = 30
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE


class WhisperEncoder(Encoder):
    """The encoder of a Whisper model, as `load_whisper` takes it."""

    @staticmethod
    def reads(model: str) -> bool:
        return True

    def weights(self) -> str:
        return encoder_digest(self.model)

    def name(self) -> str:
        """The model's name; of a directory of transformers, the digest of its files."""
        if is_transformers(self.model):
            return f"whisper-{self.weights()[:8]}"
        return f"whisper-{self.model.removeprefix('embedded:').rstrip('/').split('/')[-1]}"

    def features(self, layer: int, device: str) -> WhisperFeatures:
        return WhisperFeatures(self.model, layer, device)


class WhisperFeatures:
    """Features of Whisper's encoder, each utterance padded to its next whole second and batched with its equals."""

    def __init__(self, model: str, layer: int, device: str) -> None:
        self.layer = layer
        self._whisper = load_whisper(model, device)
        if not 0 <= layer <= (layers := self._whisper.dims.n_audio_layer):
            raise ModelError(f"{model} has {layers} layers, the codebook is of layer {layer}: take the right one")

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Features of each waveform, (num_frames, D) float32, 50 frames a second.

        A waveform above 30 s is cut every 30 s, at a frame's border.
        """
        chunks = [
            (number, waveform[start : start + WINDOW_SAMPLES])
            for number, waveform in enumerate(waveforms)
            for start in range(0, len(waveform), WINDOW_SAMPLES)
        ]
        equals: dict[int, list[int]] = defaultdict(list)
        for position, (_, chunk) in enumerate(chunks):
            equals[padded_seconds(len(chunk))].append(position)
        features: dict[int, np.ndarray] = {}
        for positions in equals.values():
            batch = layer_features(self._whisper, [chunks[position][1] for position in positions], self.layer)
            features.update(zip(positions, batch, strict=True))
        parts: list[list[np.ndarray]] = [[] for _ in waveforms]
        for position, (number, _) in enumerate(chunks):
            parts[number].append(features[position])
        return [np.concatenate(part) for part in parts]


def padded_seconds(num_samples: int) -> int:
    """The whole seconds an utterance is padded to. Utterances are batched with their equals alone."""
    return max(1, -(-num_samples // SAMPLE_RATE))


def num_frames(num_samples: int) -> int:
    """Frames of 320 samples that an utterance covers, the last one perhaps in part."""
    return -(-num_samples // HOP_SAMPLES)


def layer_features(model: Whisper, waveforms: list[np.ndarray], layer: int) -> list[np.ndarray]:
    """Hidden states after `layer` blocks of the encoder (0 is the convolutional front end).

    Args:
        model: an openai-whisper model in evaluation mode.
        waveforms: float32, 16 kHz mono, at most 30 s each and all of the same `padded_seconds`.
        layer: how many Transformer blocks to run.

    Returns:
        One (num_frames, n_audio_state) float32 array per waveform.

    Raises:
        ValueError: the waveforms pad to different lengths, or are longer than the encoder's window.
    """
    seconds = {padded_seconds(len(waveform)) for waveform in waveforms}
    if len(seconds) != 1 or max(seconds) > WINDOW_SECONDS:
        raise ValueError(f"waveforms of one batch must pad to one length of at most 30 s, not {sorted(seconds)} s")
    features = hidden_states(model, waveforms, max(seconds) * SAMPLE_RATE, layer)
    return [row[: num_frames(len(waveform))] for row, waveform in zip(features, waveforms, strict=True)]


def hidden_states(
    model: Whisper, waveforms: list[np.ndarray], num_samples: int, layers: int | None = None
) -> np.ndarray:
    """What the encoder gives for waveforms that silence fills to one length.

    Args:
        model: an openai-whisper model in evaluation mode.
        waveforms: float32, 16 kHz mono, at most `num_samples` each.
        num_samples: a multiple of 320, at most 30 s.
        layers: as `encode` takes it.

    Returns:
        (B, num_samples / 320, n_audio_state) float32.
    """
    import torch

    with torch.inference_mode():
        with torch.autocast(model.device.type, enabled=False):  # a logarithm wants all its bits
            mels = [log_mel(waveform, num_samples, model.dims.n_mels, model.device) for waveform in waveforms]
        return encode(model.encoder, torch.stack(mels), layers).float().cpu().numpy()


def encode(encoder: AudioEncoder, mels: torch.Tensor, layers: int | None = None) -> torch.Tensor:
    """Log-mel (B, mels, 2 x frames), of a whole window or shorter, to hidden states (B, frames, n_audio_state).

    Args:
        layers: how many blocks to run, without the norm that follows the last; None for all of them and the norm.
    """
    import torch.nn.functional as functional

    hidden = functional.gelu(encoder.conv1(mels))
    hidden = functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
    hidden = (hidden + encoder.positional_embedding[: hidden.shape[1]]).to(mels.dtype)
    for block in list(encoder.blocks)[:layers]:
        hidden = block(hidden)
    return encoder.ln_post(hidden) if layers is None else hidden


def log_mel(waveform: np.ndarray, num_samples: int, mels: int, device: str | torch.device) -> torch.Tensor:
    """Whisper's log-mel spectrogram, (mels, num_samples / 160), of a waveform that silence fills to `num_samples`.

    One utterance at a time: the spectrogram's floor is set from its own peak, not from a neighbour's.
    """
    import whisper

    return whisper.log_mel_spectrogram(waveform, mels, num_samples - len(waveform), device=device)

"""Whisper's encoder: log-mel spectrograms to hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from echo_targets.schemas import SAMPLE_RATE

if TYPE_CHECKING:
    import torch
    from whisper.model import AudioEncoder, Whisper

HOP_SAMPLES = 320
WINDOW_SECONDS = 30
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE


def padded_seconds(num_samples: int) -> int:
    """Return the whole seconds that an utterance is padded to. Only utterances of equal padded length share a batch."""
    return max(1, -(-num_samples // SAMPLE_RATE))


def num_frames(num_samples: int) -> int:
    """Return the number of frames of 320 samples in an utterance; the last one may be partial."""
    return -(-num_samples // HOP_SAMPLES)


def layer_features(model: Whisper, waveforms: list[np.ndarray], layer: int) -> list[np.ndarray]:
    """Return hidden states after `layer` blocks of the encoder (0 is the convolutional front end).

    Args:
        model: an openai-whisper model in evaluation mode.
        waveforms: float32, 16 kHz mono, at most 30 s each and all of the same `padded_seconds`.
        layer: number of Transformer blocks to run.

    Returns:
        One (num_frames, n_audio_state) float32 array per waveform.

    Raises:
        ValueError: the waveforms pad to different lengths, or are longer than the encoder's window.
    """
    seconds = {padded_seconds(len(waveform)) for waveform in waveforms}
    if len(seconds) != 1 or max(seconds) > WINDOW_SECONDS:
        raise ValueError(f"waveforms of a batch must be padded to one length of at most 30 s, not {sorted(seconds)}")
    features = hidden_states(model, waveforms, max(seconds) * SAMPLE_RATE, layer)
    return [row[: num_frames(len(waveform))] for row, waveform in zip(features, waveforms, strict=True)]


def hidden_states(
    model: Whisper, waveforms: list[np.ndarray], num_samples: int, layers: int | None = None
) -> np.ndarray:
    """Return the encoder's output for waveforms padded with silence to one length.

    Args:
        model: an openai-whisper model in evaluation mode.
        waveforms: float32, 16 kHz mono, at most `num_samples` each.
        num_samples: a multiple of 320, at most 30 s.
        layers: as for `encode`.

    Returns:
        (B, num_samples / 320, n_audio_state) float32.
    """
    import torch

    with torch.inference_mode():
        with torch.autocast(model.device.type, enabled=False):  # the logarithm needs full precision
            mels = [log_mel(waveform, num_samples, model.dims.n_mels, model.device) for waveform in waveforms]
        return encode(model.encoder, torch.stack(mels), layers).float().cpu().numpy()


def encode(encoder: AudioEncoder, mels: torch.Tensor, layers: int | None = None) -> torch.Tensor:
    """Map log-mel (B, mels, 2 x frames), of at most a whole window, to hidden states (B, frames, n_audio_state).

    Args:
        layers: number of blocks to run, without the final norm; None runs all of them and the norm.
    """
    import torch.nn.functional as functional

    hidden = functional.gelu(encoder.conv1(mels))
    hidden = functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
    hidden = (hidden + encoder.positional_embedding[: hidden.shape[1]]).to(mels.dtype)
    for block in list(encoder.blocks)[:layers]:
        hidden = block(hidden)
    return encoder.ln_post(hidden) if layers is None else hidden


def log_mel(waveform: np.ndarray, num_samples: int, mels: int, device: str | torch.device) -> torch.Tensor:
    """Return Whisper's log-mel spectrogram, (mels, num_samples / 160), of a waveform padded with silence.

    Takes one utterance at a time, since the spectrogram's floor depends on the peak.
    """
    import whisper

    return whisper.log_mel_spectrogram(waveform, mels, num_samples - len(waveform), device=device)

"""Features of a Whisper encoder layer, for units: 50 frames a second, each utterance at its own length.

A Whisper encoder expects 30 s windows. Its position table can be cut instead: padding an utterance to its own
next whole second gives the same kind of features for a fraction of the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from whisper.model import Whisper

SAMPLE_RATE = 16_000
HOP_SAMPLES = 320
WINDOW_SECONDS = 30


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
    import torch
    import torch.nn.functional as functional

    seconds = {padded_seconds(len(waveform)) for waveform in waveforms}
    if len(seconds) != 1 or max(seconds) > WINDOW_SECONDS:
        raise ValueError(f"waveforms of one batch must pad to one length of at most 30 s, not {sorted(seconds)} s")
    encoder = model.encoder
    with torch.inference_mode():
        mels = torch.stack([_log_mel(waveform, max(seconds), model) for waveform in waveforms])
        hidden = functional.gelu(encoder.conv1(mels))
        hidden = functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + encoder.positional_embedding[: hidden.shape[1]]
        for block in encoder.blocks[:layer]:
            hidden = block(hidden)
        features = hidden.float().cpu().numpy()
    return [row[: num_frames(len(waveform))] for row, waveform in zip(features, waveforms, strict=True)]


def _log_mel(waveform: np.ndarray, seconds: int, model: Whisper) -> torch.Tensor:
    # One utterance at a time: the spectrogram's floor is set from its own peak, not from a neighbour's.
    import whisper

    padding = seconds * SAMPLE_RATE - len(waveform)
    return whisper.log_mel_spectrogram(waveform, model.dims.n_mels, padding, device=model.device)

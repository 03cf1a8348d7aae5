"""Mel spectrograms against torchaudio's, which has librosa's scale and norm."""

from __future__ import annotations

import numpy as np
import pytest

from echo_targets.transforms.audio.mel import mel_spectrogram
from tests.transforms.audio.audio_files import spoken


@pytest.mark.parametrize("length", [64_000, 400, 161, 1])
@pytest.mark.parametrize(("frame", "hop", "bands"), [(400, 160, 40), (512, 128, 80)])
def test_as_torchaudio_has_it(frame: int, hop: int, bands: int, length: int) -> None:
    """Frames of even length: torchaudio's bins of an odd one are not where its transform has them."""
    import torch
    from torchaudio.transforms import MelSpectrogram

    theirs = MelSpectrogram(
        n_fft=frame, hop_length=hop, n_mels=bands, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )(torch.from_numpy(spoken()[:length]))
    ours = mel_spectrogram(spoken()[:length], frame, hop, bands)
    assert ours.dtype == np.float32 and ours.shape == (1 + length // hop, bands)
    assert np.allclose(ours, theirs.numpy().T, rtol=1e-3, atol=1e-6 * ours.max())


def test_a_tone_is_in_its_band() -> None:
    """Bands of 321 samples, an odd number, as DNSMOS has them: 1000 Hz is mel 15 of about 45.2."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    band = int(mel_spectrogram(tone, 321, 160, 120)[50].argmax())
    assert band == round(15 / 45.245 * 121) - 1

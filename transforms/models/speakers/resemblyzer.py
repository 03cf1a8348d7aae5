"""The speaker encoder of the package Resemblyzer (Apache-2.0): GE2E (arXiv 1710.10467), three LSTM layers.

The package's own code needs librosa and webrtcvad, which has to be compiled, so only its weights are used. Embeddings
equal those of its `embed_utterance` after `normalize_volume`.
"""

from __future__ import annotations

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.mel import mel_spectrogram
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.checkpoints.embedded import RESEMBLYZER
from echo_targets.transforms.models.checkpoints.files import load_pickle, tensors_of
from echo_targets.transforms.models.checkpoints.tensors import check_tensors
from echo_targets.transforms.models.speakers.base import SpeakerEncoder

NAME = "embedded:resemblyzer"
FRAME, HOP, BANDS = 400, 160, 40
PARTIAL = 160
"""Mel frames that the network encodes at once: 1.6 s."""
STEP = round(SAMPLE_RATE / 1.3 / HOP)
COVERAGE = 0.75
"""Share of the last partial that must be covered by sound for it to count."""
LEAST_DBFS = -30.0


class ResemblyzerEncoder(SpeakerEncoder):
    """The embedded encoder. It was trained on English, on windows of 1.6 s."""

    dimension = 256

    @staticmethod
    def can_load(model: str) -> bool:
        return model == NAME

    def weight_digest(self) -> str:
        return sha256_of(RESEMBLYZER.locate())

    def load(self, device: str) -> None:
        import torch

        path = RESEMBLYZER.locate()
        with torch.device("meta"):
            layers = torch.nn.ModuleDict(
                {"lstm": torch.nn.LSTM(BANDS, 256, 3, batch_first=True), "linear": torch.nn.Linear(256, 256)}
            )
        stored = tensors_of(path, load_pickle(path)["model_state"])
        state = {name: tensor for name, tensor in stored.items() if not name.startswith("similarity_")}
        check_tensors(path, layers.state_dict(), state)
        layers.load_state_dict(state, assign=True)
        self._layers = layers.float().eval().to(device)

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        import torch

        starts = partials(len(waveform))
        padded = np.pad(_loud_enough(waveform), (0, max(0, (starts[-1] + PARTIAL) * HOP - len(waveform))))
        mel = mel_spectrogram(padded.astype(np.float32), FRAME, HOP, BANDS)
        windows = torch.from_numpy(np.stack([mel[start : start + PARTIAL] for start in starts])).to(self._device)
        with torch.inference_mode():
            _, (hidden, _) = self._layers["lstm"](windows)
            found = torch.relu(self._layers["linear"](hidden[-1]))
            found = found / found.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return np.asarray(found.mean(dim=0).cpu().numpy())


def partials(num_samples: int) -> list[int]:
    """Return the first mel frame of each partial: one every 0.77 s, the last covered by at least 75 %."""
    frames = -(-(num_samples + 1) // HOP)
    starts = list(range(0, max(1, frames - PARTIAL + STEP + 1), STEP))
    covered = (num_samples - starts[-1] * HOP) / (PARTIAL * HOP)
    return starts[:-1] if covered < COVERAGE and len(starts) > 1 else starts


def _loud_enough(waveform: np.ndarray) -> np.ndarray:
    """Raise quiet sound to -30 dBFS."""
    level = float(np.sqrt(np.mean(np.square(waveform.astype(np.float64)))))
    gain = 10 ** (LEAST_DBFS / 20) / level if level else 1.0
    return waveform * max(1.0, gain)

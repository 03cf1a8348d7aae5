"""DNSMOS: what listeners would say about speech, its background and the whole (arXiv 2010.15258, 2110.01763).

The networks are those of the package `speechmos` (MIT). Its own code needs librosa, so it is not imported; scores equal
the package's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.mel import mel_spectrogram
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.embedded import DNSMOS_P808, DNSMOS_P835

SECONDS = 9.01
"""Length of what the networks score at once. A longer recording has the mean of windows that start every second."""
MEL_FRAME, MEL_HOP, MEL_BANDS = 321, 160, 120
FLOOR_DB, RANGE_DB = 80, 40
P835 = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
"""Polynomials that map the outputs of the P.835 network to opinion scores, highest power first, in their order."""


class OpinionScores(NamedTuple):
    """Mean opinion scores from 1 to 5: P.835 of speech, background and whole, and P.808 of the whole."""

    sig: float
    bak: float
    ovrl: float
    p808: float


class Dnsmos:
    """Both networks. Each window is scored by itself in one thread, so scores don't depend on other utterances."""

    def weight_digests(self) -> dict[str, str]:
        """Return the digests of both networks.

        Raises:
            ModelError: `speechmos` is not installed, or its files are not the pinned ones.
        """
        files = {"dnsmos_p835": DNSMOS_P835, "dnsmos_p808": DNSMOS_P808}
        return {name: sha256_of(file.locate()) for name, file in files.items()}

    def setup(self) -> None:
        """Load the networks.

        Raises:
            ModelError: as for `weight_digests`, or onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError(f"{error}: pip install 'echo-targets[mos]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1

        def load(path: Any) -> Any:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        self._p835, self._p808 = load(DNSMOS_P835.locate()), load(DNSMOS_P808.locate())

    def __call__(self, waveform: np.ndarray) -> OpinionScores:
        """Return the scores of a recording.

        Args:
            waveform: (num_samples,) float32 at 16 kHz, at least one sample.
        """
        return OpinionScores(*np.mean([self._scores(window) for window in windows(waveform)], axis=0).tolist())

    def _scores(self, window: np.ndarray) -> list[float]:
        raw = self._p835.run(None, {"input_1": window[None]})[0][0].astype(np.float64)
        scores = [float(np.polyval(curve, value)) for curve, value in zip(P835.values(), raw, strict=True)]
        power = np.maximum(mel_spectrogram(window[:-MEL_HOP], MEL_FRAME, MEL_HOP, MEL_BANDS), 1e-10)
        decibels = np.maximum(10 * np.log10(power / power.max()), -FLOOR_DB)
        features = ((decibels + RANGE_DB) / RANGE_DB).astype(np.float32)
        return [*scores, float(self._p808.run(None, {"input_1": features[None]})[0][0][0])]


def windows(waveform: np.ndarray) -> list[np.ndarray]:
    """Return what the networks score, as the package cuts it.

    A recording of less than 9.01 s is doubled until it is long enough. Windows of which rounding makes a sample too few
    are left out.
    """
    size = int(SECONDS * SAMPLE_RATE)
    while len(waveform) < size:
        waveform = np.concatenate([waveform, waveform])
    count = int(len(waveform) // SAMPLE_RATE - SECONDS) + 1
    cut = [waveform[second * SAMPLE_RATE : int((second + SECONDS) * SAMPLE_RATE)] for second in range(count)]
    return [window for window in cut if len(window) >= size]

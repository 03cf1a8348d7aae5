"""Voice activity detection with Silero (v6, MIT), as shipped with faster-whisper."""

from __future__ import annotations

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.checkpoints.embedded import SILERO_VAD

Span = tuple[int, int]
WINDOW = 512
"""Samples for which Silero gives one probability."""
THRESHOLD, LOWER_THRESHOLD = 0.5, 0.35
"""Speech begins at a probability of `THRESHOLD`, and lasts while it is at least `LOWER_THRESHOLD`."""
SHORTEST_SPEECH, SHORTEST_PAUSE, PADDING = SAMPLE_RATE // 4, SAMPLE_RATE // 10, SAMPLE_RATE * 3 // 100
LOW_PEAK = 0.1
"""A recording with a lower peak is scaled up to this peak. At a peak of 0.002 Silero misses half of the speech."""


class VoiceActivity:
    """Silero VAD with its authors' settings: probability 0.5, pauses from 100 ms, speech from 250 ms.

    It uses one thread and one utterance at a time, so results do not depend on other utterances.
    """

    def weight_digest(self) -> str:
        """Return the model's digest.

        Raises:
            ModelError: faster-whisper is not installed, or its model is not the pinned one.
        """
        return sha256_of(SILERO_VAD.locate())

    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: as for `weight_digest`.
        """
        SILERO_VAD.locate()
        from faster_whisper.vad import VadOptions, get_vad_model

        get_vad_model()
        self._options = VadOptions(
            threshold=THRESHOLD, min_speech_duration_ms=250, min_silence_duration_ms=100, speech_pad_ms=30
        )

    def __call__(self, waveform: np.ndarray) -> list[Span]:
        """Return the stretches of speech.

        Args:
            waveform: (num_samples,) float32 at 16 kHz.

        Returns:
            First sample and exclusive end of each stretch, in order, without overlap.
        """
        from faster_whisper.vad import get_speech_timestamps

        peak = float(np.abs(waveform).max(initial=0.0))
        if 0 < peak < LOW_PEAK:
            waveform = waveform * np.float32(LOW_PEAK / peak)
        found = get_speech_timestamps(waveform, self._options, SAMPLE_RATE)
        return [(span["start"], span["end"]) for span in found]


class SpeechProbabilities:
    """Silero's probabilities of a recording that arrives in pieces; memory holds one chunk.

    The model's state is carried from chunk to chunk, so the probabilities are those of the whole recording. A chunk is
    scaled up if everything so far is below `LOW_PEAK`.
    """

    CHUNK = 1000 * WINDOW
    CONTEXT = 64
    """Samples before a window that the model also sees."""

    def __init__(self) -> None:
        from faster_whisper.vad import get_vad_model

        self._session = get_vad_model().session
        self._state = np.zeros((2, 1, 1, 128), np.float32)
        self._context = np.zeros(self.CONTEXT, np.float32)
        self._pieces: list[np.ndarray] = []
        self._waiting = 0
        self._peak = 0.0
        self._found: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> None:
        """Add the next samples: (n,) float32 at 16 kHz."""
        self._pieces.append(samples)
        self._waiting += len(samples)
        if self._waiting >= self.CHUNK:
            waiting = np.concatenate(self._pieces)
            whole = len(waiting) // self.CHUNK * self.CHUNK
            for start in range(0, whole, self.CHUNK):
                self._run(waiting[start : start + self.CHUNK])
            self._pieces, self._waiting = [waiting[whole:].copy()], len(waiting) - whole

    def finish(self) -> np.ndarray:
        """Return the probabilities of speech, (num_windows,) float32; the last window may extend beyond the end."""
        if self._waiting:
            waiting = np.concatenate(self._pieces)
            self._run(np.pad(waiting, (0, -len(waiting) % WINDOW)))
            self._pieces, self._waiting = [], 0
        return np.concatenate(self._found) if self._found else np.zeros(0, np.float32)

    def _run(self, chunk: np.ndarray) -> None:
        self._peak = max(self._peak, float(np.abs(chunk).max()))
        gain = np.float32(LOW_PEAK / self._peak if 0 < self._peak < LOW_PEAK else 1.0)
        windows = chunk.reshape(-1, WINDOW)
        before = np.concatenate([self._context[None], windows[:-1, -self.CONTEXT :]])
        seen = np.concatenate([before, windows], axis=1) * gain
        out, *state = self._session.run(None, {"input": seen, "h": self._state[0], "c": self._state[1]})
        self._state, self._context = np.stack(state), windows[-1, -self.CONTEXT :].copy()
        self._found.append(out.reshape(-1).astype(np.float32))


def speech_windows(probabilities: np.ndarray) -> np.ndarray:
    """Return a mask of the windows with speech, with the two thresholds of Silero's authors.

    Args:
        probabilities: (num_windows,) float32.
    """
    # Windows between the two thresholds continue what the last clear window was.
    clear = np.where(probabilities >= THRESHOLD, 1, np.where(probabilities < LOWER_THRESHOLD, 0, -1))
    last = np.maximum.accumulate(np.where(clear >= 0, np.arange(len(clear)), -1))
    return np.where(last >= 0, clear[np.maximum(last, 0)] == 1, False)


def spans_of(windows: np.ndarray, num_samples: int) -> list[Span]:
    """Return the stretches of speech: pauses under 100 ms are closed, stretches under 250 ms dropped, 30 ms are added.

    Args:
        windows: (num_windows,) bool, as from `speech_windows`.
        num_samples: length of the recording.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], windows.astype(np.int8), [0]]))) * WINDOW
    joined: list[list[int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if joined and start - joined[-1][1] < SHORTEST_PAUSE + WINDOW:  # a pause has a window on each side of 100 ms
            joined[-1][1] = end
        else:
            joined.append([start, end])
    long = [(start, min(end, num_samples)) for start, end in joined if end - start > SHORTEST_SPEECH]
    return [(max(0, start - PADDING), min(num_samples, end + PADDING)) for start, end in long]

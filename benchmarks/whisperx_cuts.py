"""Write the stretches of speech that WhisperX decodes, found by pyannote's weights in its package; for `recordings.py`.

PYTHON -I benchmarks/whisperx_cuts.py SOUND.wav OUT.json, where PYTHON has whisperx (3.8.6 was measured).
The sound is 16-bit mono at 16 kHz; the result is JSON: spans in samples, seconds of computing, GB of memory at most.
"""

from __future__ import annotations

import json
import re
import sys
import time
import wave
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000
ONSET, OFFSET, LONGEST = 0.5, 0.363, 30
"""The defaults of `whisperx.load_model` and `transcribe`."""


def main(path: str, out: str) -> None:
    from whisperx.vads.pyannote import Pyannote

    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    detector = Pyannote("cpu", vad_onset=ONSET, vad_offset=OFFSET)
    began = time.perf_counter()
    scores = detector({"waveform": Pyannote.preprocess_audio(samples), "sample_rate": SAMPLE_RATE})
    chunks = Pyannote.merge_chunks(scores, LONGEST, onset=ONSET, offset=OFFSET)
    seconds = time.perf_counter() - began
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    spans = [(round(chunk["start"] * SAMPLE_RATE), round(chunk["end"] * SAMPLE_RATE)) for chunk in chunks]
    Path(out).write_text(json.dumps({"spans": spans, "seconds": seconds, "gigabytes": int(peak) / 1e6}))


if __name__ == "__main__":
    main(*sys.argv[1:])

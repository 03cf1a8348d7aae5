"""Measure diarization on recordings of one to five speakers made of clips: the diarization error rate of md-eval.

python -m benchmarks.diarization [--minutes 5] [--model MODEL]

Turns of 2 to 6 s with pauses of 0.2 to 1 s, of the speakers with several clips. A border of a turn has a collar of
0.25 s that is not scored; missed speech, false speech and confused speakers count, with the best mapping of labels to
speakers. Pauses inside clips are not speech, by the voice activity detector that the pipeline uses too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common import options, speech_rows
from benchmarks.made_recordings import FLOOR, waveform_of
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.voice_activity import VoiceActivity
from echo_targets.transforms.models.speakers.registry import open_speaker_encoder
from echo_targets.transforms.stages.segment.diarization import DiarizationParameters, diarize

PAUSES = (0.2, 0.5, 1.0)
COLLAR = SAMPLE_RATE // 4
STEP = SAMPLE_RATE // 100
Stretch = tuple[int, int, int]
"""First sample, exclusive end, speaker."""


def main(minutes: float, model: str) -> None:
    encoder, activity = open_speaker_encoder(model), VoiceActivity()
    encoder.setup("cpu")
    activity.setup()
    print("| speakers | found by the threshold | error rate | with the number given |")
    print("| --- | --- | --- | --- |")
    for count in (1, 2, 3, 4, 5):
        found, rates = [], []
        for seed in (1, 2):
            sound, truth = mixture(speech_rows(), count, minutes, seed)
            speech = activity(sound)
            spoken = [
                (max(start, first), min(end, last), speaker)
                for start, end, speaker in truth
                for first, last in speech
                if max(start, first) < min(end, last)
            ]
            pair = []
            for number in (None, count):
                parameters = DiarizationParameters(model=model, num_speakers=number)
                said = diarize(speech, partial(_stretches, sound), encoder, parameters)
                pair.append(error_rate(spoken, said, truth))
                found += [1 + max(speaker for *_, speaker in said)] if number is None else []
            rates.append(pair)
        means = np.mean(rates, axis=0)
        print(f"| {count} | {', '.join(map(str, found))} | {means[0]:.1%} | {means[1]:.1%} |", flush=True)


def _stretches(sound: np.ndarray, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    return [sound[start:end] for start, end in spans]


def mixture(rows: Sequence[dict[str, Any]], count: int, minutes: float, seed: int) -> tuple[np.ndarray, list[Stretch]]:
    """Return a recording, (num_samples,) float32 at 16 kHz, and who speaks when."""
    rng = np.random.default_rng([seed, count])
    clips: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        clips.setdefault(row["speaker"], []).append(row)
    several = sorted(speaker for speaker, own in clips.items() if len(own) > 3)
    chosen = list(rng.choice(several, count, replace=False))
    parts, truth, at = list[np.ndarray](), list[Stretch](), 0
    while at < minutes * 60 * SAMPLE_RATE:
        speaker = int(rng.integers(count))
        own = clips[chosen[speaker]]
        waveform = waveform_of(own[int(rng.integers(len(own)))])
        length = min(len(waveform), int(rng.uniform(2, 6) * SAMPLE_RATE))
        start = int(rng.integers(0, len(waveform) - length + 1))
        silence = rng.standard_normal(int(rng.choice(PAUSES) * SAMPLE_RATE)) * FLOOR
        truth.append((at, at + length, speaker))
        parts += [waveform[start : start + length], silence.astype(np.float32)]
        at += length + len(silence)
    return np.concatenate(parts), truth


def error_rate(spoken: Sequence[Stretch], found: Sequence[Stretch], turns: Sequence[Stretch]) -> float:
    """Return missed, false and confused speech divided by the speech.

    Args:
        spoken: who speaks when.
        found: the same by diarization.
        turns: turns around whose borders nothing is scored.
    """
    from scipy.optimize import linear_sum_assignment

    size = 1 + max(end for _, end, _ in (*spoken, *found, *turns)) // STEP
    truth, said = (np.full(size, -1) for _ in range(2))
    for track, stretches in ((truth, spoken), (said, found)):
        for start, end, speaker in stretches:
            track[start // STEP : end // STEP] = speaker
    for start, end, _ in turns:
        for border in (start, end):
            outside = slice(max(0, border - COLLAR) // STEP, (border + COLLAR) // STEP)
            truth[outside] = said[outside] = -1
    both = (truth >= 0) & (said >= 0)
    counts = np.zeros((1 + truth.max(), 1 + max(said.max(), 0)))
    np.add.at(counts, (truth[both], said[both]), 1)
    right = counts[linear_sum_assignment(-counts)].sum()
    return float((((truth >= 0) | (said >= 0)).sum() - right) / (truth >= 0).sum())


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of each recording (default: %(default)s)")
    parser.add_argument("--model", default="embedded:resemblyzer", help="speaker encoder (default: %(default)s)")
    given = parser.parse_args()
    main(given.minutes, given.model)

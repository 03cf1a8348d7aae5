"""Compare transcribe with openai-whisper, faster-whisper and transformers: time and word error rate by kind of speech.

python -m benchmarks.transcribe [--limit N] [--rounds 1] [--only NAME] [--noisy 4]

The contenders take turns on each set of benchmarks/speech_sets.py, with timestamps and greedy decoding. A shorter time
counts only at an equal error rate. The last column is by how many points our error rate is above that of the best
other, with its 95 % interval over clips (benchmarks/intervals.py): where it holds 0, the set does not tell them apart.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from torch import get_num_threads, set_num_threads

from benchmarks.common import options
from benchmarks.intervals import difference, errors_by_clip
from benchmarks.speech_sets import SpeechSet, speech_sets
from benchmarks.whisper_pipeline import asr_pipeline
from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN
from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper
from echo_targets.transforms.stages.transcribe import Transcribe, TranscribeParameters
from echo_targets.transforms.text import normalize

BATCH = 8
Waveforms: TypeAlias = list[np.ndarray]
Contenders: TypeAlias = dict[str, Callable[[Waveforms], list[str]]]
OURS = ("ours", "ours, bfloat16")


def main(limit: int | None, rounds: int, only: str, noisy: int) -> None:
    contenders = _contenders()
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    print(f"| set | {' | '.join(contenders)} | ours above the best other |")
    print(f"| --- |{' --- |' * len(contenders)} --- |")
    for speech in speech_sets(limit, only, noisy):
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        errors: dict[str, np.ndarray] = {}
        for number in range(rounds):
            for name, transcribe in contenders.items():
                print(f"{speech.name}, round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                started = time.perf_counter()
                texts = transcribe(speech.waveforms)
                taken[name].append(time.perf_counter() - started)
                errors[name] = _errors(speech, texts)
        ours = taken[next(iter(contenders))]
        for name, seconds in taken.items():
            ratios[name] += [other / own for other, own in zip(seconds, ours, strict=True)]
        words = _words(speech)
        rates = {name: found.sum() / words.sum() for name, found in errors.items()}
        cells = [f"{rates[name]:.2%}, {statistics.median(taken[name]):.1f} s" for name in contenders]
        best = min((name for name in contenders if name not in OURS), key=rates.__getitem__)
        cells.append(f"{best}: {difference(errors[OURS[0]], errors[best], words)}")
        about = f"{speech.name}: {len(speech.waveforms)}, {speech.seconds / 60:.1f} min"
        print(f"| {about} | {' | '.join(cells)} |", flush=True)
    spread = (f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" for found in ratios.values())
    print(f"| times ours | {' | '.join(spread)} |")


def _errors(speech: SpeechSet, texts: list[str]) -> np.ndarray:
    """Word errors of each clip, after Whisper's normalizer."""
    wanted = [[normalize(text, "en") for text in clips] for clips in speech.texts]
    found = [errors_by_clip(clips, normalize(text, "en")) for clips, text in zip(wanted, texts, strict=True)]
    return np.concatenate(found)


def _words(speech: SpeechSet) -> np.ndarray:
    """Words of each clip's reference."""
    return np.array([len(normalize(text, "en").split()) for clips in speech.texts for text in clips])


def _contenders() -> Contenders:
    from faster_whisper import WhisperModel

    torch_model = load_whisper(EMBEDDED)
    threads = get_num_threads()
    model = WhisperModel(str(WHISPER_TINY_EN.locate().parent), device="cpu", compute_type="int8", cpu_threads=threads)
    set_num_threads(threads)  # CTranslate2 changes the thread count of torch's OpenMP

    def ours(encoder_dtype: Literal["float32", "bfloat16"]) -> Callable[[Waveforms], list[str]]:
        stage = Transcribe(TranscribeParameters(encoder_dtype=encoder_dtype))
        stage.setup()

        def transcribe(waveforms: Waveforms) -> list[str]:
            batches = (waveforms[start : start + BATCH] for start in range(0, len(waveforms), BATCH))
            return [found.text for batch in batches for found in stage.transcribe(batch, [""] * len(batch))]

        return transcribe

    def openai(waveforms: Waveforms) -> list[str]:
        return [torch_model.transcribe(waveform, language="en", fp16=False)["text"] for waveform in waveforms]

    def faster(waveforms: Waveforms) -> list[str]:
        found = (model.transcribe(waveform, language="en", beam_size=1)[0] for waveform in waveforms)
        return ["".join(segment.text for segment in segments) for segments in found]

    return {
        "ours": ours("float32"),
        "ours, bfloat16": ours("bfloat16"),
        "openai-whisper": openai,
        "faster-whisper": faster,
        "transformers": asr_pipeline(BATCH),
    }


if __name__ == "__main__":
    parser = options(__doc__, rounds=1)
    parser.add_argument("--only", default="", help="a part of the name of the sets to measure (default: all)")
    parser.add_argument("--noisy", type=int, default=4, help="add noise to every N-th clip (default: 4; 1 for all)")
    arguments = parser.parse_args()
    main(arguments.limit, arguments.rounds, arguments.only, arguments.noisy)

"""Time the parts of transcribe: Whisper's encoder in CTranslate2 and in torch, and its decoder by context length.

python -m benchmarks.whisper_parts [--limit N] [--rounds 5]

Times are for every fifth utterance, word error rates for all. Decoding is greedy, without a fallback to whole windows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import ctranslate2
import jiwer
import numpy as np
import torch

from benchmarks.common import chosen, compare, speech
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.faster_whisper import FasterWhisper
from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN
from echo_targets.transforms.models.whisper.encoder import (
    HOP_SAMPLES,
    WINDOW_SAMPLES,
    hidden_states,
    log_mel,
    padded_seconds,
)
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.text import normalize
from echo_targets.transforms.threads import encode_each, in_threads

BATCH = 8
Waveforms = list[np.ndarray]
Encode = Callable[[Waveforms], Waveforms]


def main(limit: int | None, rounds: int) -> None:
    recognizer = FasterWhisper(EMBEDDED, "cpu", "en", best_of=1)
    recognizer.setup()
    threads = torch.get_num_threads()
    theirs = ctranslate2.models.Whisper(
        str(WHISPER_TINY_EN.locate().parent), compute_type="int8", intra_threads=threads
    )
    torch.set_num_threads(threads)  # CTranslate2 changes the thread count of torch's OpenMP
    encoders: dict[str, Encode] = {
        "torch, bfloat16, a thread a window": partial(_torch, recognizer, "bfloat16", None),
        "torch, float32, a thread a window": partial(_torch, recognizer, "float32", None),
        "CTranslate2, int8, batches of 8": partial(_ctranslate2, theirs),
        "torch, bfloat16, the clip and 4 s": partial(_torch, recognizer, "bfloat16", 4),
    }
    timed, _, _ = speech(every=5, limit=limit)
    seconds = sum(map(len, timed)) / SAMPLE_RATE
    print(f"{len(timed)} utterances, {seconds / 60:.1f} minutes, tiny.en, {threads} threads\n\nencoder\n")
    compare({name: partial(encode, timed) for name, encode in encoders.items()}, seconds, rounds)

    waveforms, references, _ = speech(limit=limit)
    wanted = [normalize(text, "en") for text in references]
    contexts = {"30 s": 30, "the speech and 1 s": 1, "the speech and 4 s": 4}
    whole = next(iter(encoders.values()))(timed)
    print("\ndecoder, by what it attends to\n")
    decoders = {name: partial(_decode, recognizer, timed, whole, silence) for name, silence in contexts.items()}
    compare(decoders, seconds, rounds)
    print(f"\nword error rate on {len(waveforms)} utterances, after Whisper's normalizer\n")
    for name, encode in encoders.items():
        encoded = encode(waveforms)
        for context, silence in contexts.items():
            texts = [normalize(text, "en") for text in _decode(recognizer, waveforms, encoded, silence)]
            print(f"{jiwer.wer(wanted, texts):.2%}  {name}; {context}", flush=True)


def _torch(recognizer: FasterWhisper, dtype: str, silence: int | None, waveforms: Waveforms) -> Waveforms:
    """Encode whole windows, or each utterance padded with some seconds of silence."""

    def encode(some: Waveforms) -> Waveforms:
        seconds = 30 if silence is None else min(padded_seconds(len(some[0])) + silence, 30)
        return list(hidden_states(recognizer._whisper, some, seconds * SAMPLE_RATE))

    return encode_each(encode, waveforms, "cpu", dtype)


def _ctranslate2(model: ctranslate2.models.Whisper, waveforms: Waveforms) -> Waveforms:
    mels = in_threads(lambda waveform: log_mel(waveform, WINDOW_SAMPLES, 80, "cpu").numpy(), waveforms)
    batches = [np.stack(mels[first : first + BATCH]) for first in range(0, len(mels), BATCH)]
    encoded = [model.encode(ctranslate2.StorageView.from_array(batch), to_cpu=True) for batch in batches]
    return [row for batch in encoded for row in np.array(batch)]


def _decode(recognizer: FasterWhisper, waveforms: Waveforms, encoded: Waveforms, silence: int) -> list[str]:
    """Decode with one thread per window, attending at most to the encoded part."""

    def text(pair: tuple[np.ndarray, np.ndarray]) -> str:
        waveform, hidden = pair
        frames = (padded_seconds(len(waveform)) + silence) * SAMPLE_RATE // HOP_SAMPLES
        (heard,) = recognizer._greedy([(hidden[:frames], len(waveform))])
        return heard.text

    return in_threads(text, zip(waveforms, encoded, strict=True))


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

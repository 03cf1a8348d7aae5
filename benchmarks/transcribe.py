"""transcribe against openai-whisper and faster-whisper file by file, and the batched pipelines of two libraries.

python -m benchmarks.transcribe [--limit N] [--rounds 5]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jiwer
import numpy as np
from torch import get_num_threads, set_num_threads

from benchmarks.common import SAMPLE_RATE, chosen, compare, speech
from benchmarks.whisper_pipeline import asr_pipeline
from pipeline.batching import pack
from transforms.models.embedded import WHISPER_TINY_EN
from transforms.models.whisper_encoder import WINDOW_SAMPLES
from transforms.models.whisper_weights import EMBEDDED, load_whisper
from transforms.text import normalize
from transforms.transcribe import Transcribe, TranscribeParameters, Window

BATCH = 8
Waveforms: TypeAlias = list[np.ndarray]


def main(limit: int | None, rounds: int) -> None:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    stage = Transcribe(TranscribeParameters())
    stage.setup()
    torch_model = load_whisper(EMBEDDED)
    threads = get_num_threads()
    their_model = WhisperModel(
        str(WHISPER_TINY_EN.locate().parent), device="cpu", compute_type="int8", cpu_threads=threads
    )
    set_num_threads(threads)  # CTranslate2 gives torch's OpenMP its own number
    pipeline = BatchedInferencePipeline(model=their_model)

    def ours(waveforms: Waveforms) -> list[str]:
        texts = [""] * len(waveforms)
        for batch in pack([WINDOW_SAMPLES] * len(waveforms), BATCH * WINDOW_SAMPLES):
            windows = [Window(number, 0, waveforms[place]) for number, place in enumerate(batch)]
            for place, result in zip(batch, stage._decode(windows, list(map(str, batch))), strict=True):
                texts[place] = result.text
        return texts

    def openai(waveforms: Waveforms) -> list[str]:
        return [torch_model.transcribe(waveform, language="en", fp16=False)["text"] for waveform in waveforms]

    def faster(waveforms: Waveforms) -> list[str]:
        heard = (their_model.transcribe(waveform, language="en", beam_size=1)[0] for waveform in waveforms)
        return ["".join(part.text for part in parts) for parts in heard]

    def batched(waveforms: Waveforms) -> list[str]:
        return ["".join(part.text for part in _batched(pipeline, waveform)) for waveform in waveforms]

    ways: dict[str, Callable[[Waveforms], list[str]]] = {
        "echo-targets, as the stage decodes": ours,
        "openai-whisper transcribe, per file": openai,
        "faster-whisper transcribe, per file": faster,
        "faster-whisper BatchedInferencePipeline": batched,
        "transformers ASR pipeline, batched": asr_pipeline(BATCH),
    }
    timed, _, _ = speech(every=5, limit=limit)
    seconds = sum(map(len, timed)) / SAMPLE_RATE
    print(f"{len(timed)} utterances, {seconds / 60:.1f} minutes, tiny.en\n")
    compare({name: partial(way, timed) for name, way in ways.items()}, seconds, rounds)

    waveforms, references, _ = speech(limit=limit)
    wanted = [normalize(text, "en") for text in references]
    print(f"\nword error rate on {len(waveforms)} utterances, after Whisper's normaliser\n")
    for name, way in ways.items():
        print(f"{jiwer.wer(wanted, [normalize(text, 'en') for text in way(waveforms)]):.2%}  {name}", flush=True)


def _batched(pipeline: object, waveform: np.ndarray) -> object:
    whole = [{"start": 0.0, "end": len(waveform) / SAMPLE_RATE}]
    return pipeline.transcribe(  # type: ignore[attr-defined]
        waveform, language="en", beam_size=1, batch_size=BATCH, vad_filter=False, clip_timestamps=whole
    )[0]


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

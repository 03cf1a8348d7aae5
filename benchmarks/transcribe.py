"""transcribe against openai-whisper and faster-whisper file by file, and the batched pipelines of two libraries.

python -m benchmarks.transcribe [--limit N] [--rounds 5]
"""

from __future__ import annotations

import jiwer
import numpy as np

from benchmarks.common import SAMPLE_RATE, chosen, compare, speech
from benchmarks.whisper_pipeline import asr_pipeline
from pipeline.batching import pack
from transforms.models.embedded import WHISPER_TINY_EN
from transforms.models.recognisers import WINDOW_SAMPLES
from transforms.models.whisper_weights import EMBEDDED, load_whisper
from transforms.transcribe import Transcribe, TranscribeParameters, Window, normalize

BATCH = 8


def main(limit: int | None, rounds: int) -> None:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    waveforms, references, _ = speech(every=14, limit=limit)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    heard: dict[str, list[str]] = {}
    transformers_pipeline = asr_pipeline(BATCH)

    stage = Transcribe(TranscribeParameters())
    stage.setup()
    torch_model = load_whisper(EMBEDDED)
    their_model = WhisperModel(str(WHISPER_TINY_EN.locate().parent), device="cpu", compute_type="int8")
    pipeline = BatchedInferencePipeline(model=their_model)

    def run_ours() -> None:
        texts = [""] * len(waveforms)
        costs = [WINDOW_SAMPLES] * len(waveforms)
        for batch in pack(costs, BATCH * WINDOW_SAMPLES):
            windows = [Window(number, 0, waveforms[place]) for number, place in enumerate(batch)]
            for place, result in zip(batch, stage._decode(windows, list(map(str, batch))), strict=True):
                texts[place] = result.text
        heard["echo-targets, as the stage decodes"] = texts

    def run_openai() -> None:
        heard["openai-whisper transcribe, per file"] = [
            torch_model.transcribe(waveform, language="en", fp16=False)["text"] for waveform in waveforms
        ]

    def run_faster() -> None:
        heard["faster-whisper transcribe, per file"] = [
            "".join(part.text for part in their_model.transcribe(waveform, language="en", beam_size=1)[0])
            for waveform in waveforms
        ]

    def run_batched() -> None:
        heard["faster-whisper BatchedInferencePipeline"] = [
            "".join(part.text for part in _batched(pipeline, waveform)) for waveform in waveforms
        ]

    def run_transformers() -> None:
        heard["transformers ASR pipeline, batched"] = transformers_pipeline(waveforms)

    contenders = {
        "echo-targets, as the stage decodes": run_ours,
        "openai-whisper transcribe, per file": run_openai,
        "faster-whisper transcribe, per file": run_faster,
        "faster-whisper BatchedInferencePipeline": run_batched,
        "transformers ASR pipeline, batched": run_transformers,
    }
    print(f"{len(waveforms)} utterances, {seconds / 60:.1f} minutes, tiny.en; WER after Whisper's normaliser\n")
    compare(contenders, seconds, rounds)
    wanted = [normalize(text, "en") for text in references]
    for name, texts in heard.items():
        print(f"WER {jiwer.wer(wanted, [normalize(text, 'en') for text in texts]):.2%}  {name}")


def _batched(pipeline: object, waveform: np.ndarray) -> object:
    whole = [{"start": 0.0, "end": len(waveform) / SAMPLE_RATE}]
    return pipeline.transcribe(  # type: ignore[attr-defined]
        waveform, language="en", beam_size=1, batch_size=BATCH, vad_filter=False, clip_timestamps=whole
    )[0]


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

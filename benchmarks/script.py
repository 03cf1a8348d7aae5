"""A plain script as an alternative to a job: loads, transcribes, aligns and tokenizes one file after another.

python -m benchmarks.script MANIFEST OUT.parquet

The libraries and weights are those of `folder.yaml`: faster-whisper in int8, hama and torchaudio's `forced_align`,
openai-whisper's encoder with windows of 30 s, scikit-learn's nearest centroid. It neither checks nor resumes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.aligners.ctc import viterbi
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN
from echo_targets.transforms.models.whisper.encoder import encode, num_frames
from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper
from echo_targets.transforms.stages.tokenize import TokenizeParameters
from echo_targets.transforms.text import words_of
from echo_targets.transforms.units.codebook import Codebook, collapse


def main(manifest: Path, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile
    import torch
    from faster_whisper import WhisperModel
    from sklearn.cluster import KMeans
    from whisper import log_mel_spectrogram, pad_or_trim

    directory, threads = str(WHISPER_TINY_EN.locate().parent), os.cpu_count() or 1
    whisper = WhisperModel(directory, device="cpu", compute_type="int8", cpu_threads=threads)
    aligner, encoder = CtcAligner(), load_whisper(EMBEDDED).encoder
    aligner.setup()
    book = Codebook.load(asset(TokenizeParameters().codebook))
    kmeans = KMeans(book.size, n_init=1, max_iter=1).fit(book.centroids)
    kmeans.cluster_centers_ = book.centroids

    def row(item: dict[str, Any]) -> dict[str, Any]:
        waveform, _ = soundfile.read(manifest.parent / item["audio"], dtype="float32")
        parts, _ = whisper.transcribe(waveform, language="en", beam_size=1)
        text = "".join(part.text for part in parts)
        words = [aligner.tokens(symbol) or () for symbol, _, _ in words_of(item["text"])]
        peaks = viterbi(aligner.emissions(waveform), [id_ for word in words for id_ in word], aligner.blank)
        mel = log_mel_spectrogram(pad_or_trim(waveform))[None]
        with torch.inference_mode():
            features = encode(encoder, mel, book.layer)[0, : num_frames(len(waveform))].numpy()
        units, durations = collapse(kmeans.predict(((features - book.mean) / book.std).astype(np.float32)))
        starts = [peak.start for peak in peaks]
        return {"id": item["id"], "text": text, "starts": starts, "units": units, "durations": durations}

    items = [json.loads(line) for line in manifest.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist([row(item) for item in items]), out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

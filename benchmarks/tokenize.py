"""tokenize (features and nearest centroids) against one utterance at a time, and against 30 s windows.

python -m benchmarks.tokenize [--limit N] [--rounds 5]
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import SAMPLE_RATE, chosen, compare, speech
from pipeline.batching import pack
from transforms.assets import asset
from transforms.codebook import Codebook
from transforms.models.whisper_encoder import WhisperFeatures, num_frames, padded_seconds
from transforms.models.whisper_weights import EMBEDDED, load_whisper
from transforms.tokenize import TokenizeParameters

BUDGET = 240 * SAMPLE_RATE


def main(limit: int | None, rounds: int) -> None:
    import torch
    from sklearn.cluster import KMeans
    from whisper import log_mel_spectrogram, pad_or_trim

    waveforms, _, _ = speech(limit=limit)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    book = Codebook.load(asset(TokenizeParameters().codebook))
    features = WhisperFeatures(EMBEDDED, book.layer, "cpu")
    whisper = load_whisper(EMBEDDED)
    kmeans = KMeans(book.size, n_init=1, max_iter=1).fit(book.centroids)
    kmeans.cluster_centers_ = book.centroids

    def ours() -> None:
        costs = [padded_seconds(len(waveform)) * SAMPLE_RATE for waveform in waveforms]
        for batch in pack(costs, BUDGET, equal_costs=True):
            for rows in features([waveforms[place] for place in batch]):
                book.quantize(rows)

    def one_at_a_time() -> None:
        for waveform in waveforms:
            (rows,) = features([waveform])
            kmeans.predict(((rows - book.mean) / book.std).astype(np.float32))

    def thirty_second_windows() -> None:
        for waveform in waveforms:
            mel = log_mel_spectrogram(pad_or_trim(waveform))[None]
            with torch.inference_mode():
                hidden = torch.nn.functional.gelu(whisper.encoder.conv1(mel))
                hidden = torch.nn.functional.gelu(whisper.encoder.conv2(hidden)).permute(0, 2, 1)
                hidden = hidden + whisper.encoder.positional_embedding
                for block in whisper.encoder.blocks[: book.layer]:
                    hidden = block(hidden)
            rows = hidden[0, : num_frames(len(waveform))].numpy()
            kmeans.predict(((rows - book.mean) / book.std).astype(np.float32))

    print(f"{len(waveforms)} utterances, {seconds / 60:.1f} minutes, layer {book.layer} of tiny.en, K = {book.size}\n")
    contenders = {
        "echo-targets": ours,
        "one utterance at a time, scikit-learn predict": one_at_a_time,
        "30 s windows, scikit-learn predict": thirty_second_windows,
    }
    compare(contenders, seconds, rounds)


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

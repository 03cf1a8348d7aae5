"""Compare tokenize, also in half precision, with one utterance at a time and with features of 30 s windows.

python -m benchmarks.tokenize [--limit N] [--rounds 5]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.common import chosen, compare, speech
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.encoders.whisper import WhisperFeatures
from echo_targets.transforms.models.whisper.encoder import num_frames
from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper
from echo_targets.transforms.stages.tokenize import TokenizeParameters
from echo_targets.transforms.threads import encode_each
from echo_targets.transforms.units.codebook import Codebook


def main(limit: int | None, rounds: int) -> None:
    import torch
    from sklearn.cluster import KMeans
    from whisper import log_mel_spectrogram, pad_or_trim

    waveforms, _, _ = speech(every=3, limit=limit)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    book = Codebook.load(asset(TokenizeParameters().codebook))
    features = WhisperFeatures(EMBEDDED, book.layer, "cpu")
    whisper = load_whisper(EMBEDDED)
    kmeans = KMeans(book.size, n_init=1, max_iter=1).fit(book.centroids)
    kmeans.cluster_centers_ = book.centroids

    def ours(dtype: str) -> list[np.ndarray]:
        return encode_each(lambda some: [book.quantize(rows) for rows in features(some)], waveforms, "cpu", dtype)

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
    contenders: dict[str, Callable[[], object]] = {
        "echo-targets": partial(ours, "float32"),
        "echo-targets, dtype=bfloat16": partial(ours, "bfloat16"),
        "one utterance at a time, scikit-learn predict": one_at_a_time,
        "30 s windows, scikit-learn predict": thirty_second_windows,
    }
    compare(contenders, seconds, rounds)
    exact, near = np.concatenate(ours("float32")), np.concatenate(ours("bfloat16"))
    print(f"{np.mean(exact != near):.2%} of {len(exact)} frames have another unit in bfloat16")


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

"""align against `forced_align` one at a time, and the trellis and backtrack of WhisperX, on the same emissions.

python -m benchmarks.align [--limit N] [--rounds 5]

No one has marked these words by hand, so boundaries are held against an aligner of another kind: Whisper's
cross-attention. That is a reference for comparing, not a measure of either's error. Words are spelt beforehand, so
that no contender pays for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.common import SAMPLE_RATE, chosen, compare, speech
from transforms.models.hama_ctc import HOP_SAMPLES, CtcAligner, viterbi
from transforms.models.whisper_attention import AttentionAligner
from transforms.text import words_of

Starts = list[list[int]]


def main(limit: int | None, rounds: int) -> None:
    waveforms, texts, _ = speech(every=10, limit=limit)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    aligner, attention = CtcAligner(), AttentionAligner()
    aligner.setup()
    attention.setup()
    found: dict[str, Starts] = {}
    for text in texts:
        for symbol, _, _ in words_of(text):
            aligner.phonemes(symbol)

    def ours() -> None:
        found["echo-targets"] = [[word.start_sample for word in each.words] for each in aligner(waveforms, texts)]

    def plain(name: str, first_frames: Callable[[np.ndarray, list[int], int], list[int]]) -> Callable[[], None]:
        def run() -> None:
            found[name] = []
            for waveform, text in zip(waveforms, texts, strict=True):
                words = [aligner.phonemes(symbol) or () for symbol, _, _ in words_of(text)]
                targets = [id_ for word in words for id_ in word]
                frames = first_frames(aligner.emissions(waveform), targets, aligner.blank)
                places = np.cumsum([0, *map(len, words)])[:-1]
                found[name].append([frames[min(place, len(frames) - 1)] * HOP_SAMPLES for place in places])

        return run

    names = ("forced_align, one at a time", "WhisperX's trellis and backtrack")
    contenders = {"echo-targets": ours, names[0]: plain(names[0], _viterbi), names[1]: plain(names[1], _trellis)}
    print(f"{len(waveforms)} utterances, {seconds / 60:.1f} minutes\n")
    compare(contenders, seconds, rounds)
    reference = [[word.start_sample for word in each.words] for each in attention(waveforms, texts)]
    for name, starts in found.items():
        pairs = [pair for pair in zip(starts, reference, strict=True) if len(pair[0]) == len(pair[1])]
        apart = np.abs(np.concatenate([np.subtract(*pair) for pair in pairs])) * 1000 / SAMPLE_RATE
        print(f"{name}: {np.median(apart):.0f} ms from the attention's starts in the median, of {len(apart)} words")


def _viterbi(log_probs: np.ndarray, targets: list[int], blank: int) -> list[int]:
    return [peak.start for peak in viterbi(log_probs, targets, blank)]


def _trellis(log_probs: np.ndarray, targets: list[int], blank: int) -> list[int]:
    """First frame of each token, by the trellis and greedy backtrack of torchaudio's tutorial on forced alignment.

    WhisperX aligns by these too.
    """
    import torch

    emission, tokens = torch.from_numpy(log_probs), torch.tensor(targets)
    frames = len(emission)
    trellis = torch.zeros((frames, len(targets)))
    trellis[1:, 0] = torch.cumsum(emission[1:, blank], 0)
    trellis[0, 1:] = -float("inf")
    trellis[-len(targets) + 1 :, 0] = float("inf")
    for frame in range(frames - 1):
        stayed = trellis[frame, 1:] + emission[frame, blank]
        changed = trellis[frame, :-1] + emission[frame, tokens[1:]]
        trellis[frame + 1, 1:] = torch.maximum(stayed, changed)
    token, first = len(targets) - 1, [0] * len(targets)
    for frame in range(frames - 1, 0, -1):
        if token == 0:
            break
        stayed = trellis[frame - 1, token] + emission[frame - 1, blank]
        changed = trellis[frame - 1, token - 1] + emission[frame - 1, tokens[token]]
        if changed > stayed:
            first[token] = frame - 1
            token -= 1
    return first


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)

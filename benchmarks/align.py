"""Compare align with one-by-one `forced_align`, and with WhisperX's trellis and backtracking, on the same emissions.

python -m benchmarks.align [--limit N] [--rounds 5]

Times are for real speech. It has no manual word annotations, so word starts are compared on other sentences, spoken by
the embedded voice, whose word starts are known (`voices.narrator`). `python -m benchmarks.borders` evaluates borders
in more detail. Words are converted to symbols beforehand, outside the timing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.borders import spread, voiced
from benchmarks.common import chosen, compare, speech
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.aligners.ctc import HOP_SAMPLES, viterbi
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.voices.delivery import PLAIN
from echo_targets.transforms.models.voices.narrator import Narrator
from echo_targets.transforms.text import words_of

Starts = list[list[int]]
Align = Callable[[list[np.ndarray], list[str]], Starts]


def main(limit: int | None, rounds: int) -> None:
    waveforms, texts, _ = speech(every=10, limit=limit)
    spoken = list(voiced(Narrator(), speech(every=7, limit=limit)[1], PLAIN))
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    aligner = CtcAligner()
    aligner.setup()
    for text in [*texts, *(text for text, _ in spoken)]:
        for symbol, _, _ in words_of(text):
            aligner.tokens(symbol)

    def ours(waveforms: list[np.ndarray], texts: list[str]) -> Starts:
        return [[word.start_sample for word in each.words] for each in aligner(waveforms, texts)]

    def plain(first_frames: Callable[[np.ndarray, list[int], int], list[int]]) -> Align:
        def starts(waveforms: list[np.ndarray], texts: list[str]) -> Starts:
            found = Starts()
            for waveform, text in zip(waveforms, texts, strict=True):
                words = [aligner.tokens(symbol) or () for symbol, _, _ in words_of(text)]
                targets = [id_ for word in words for id_ in word]
                frames = first_frames(aligner.emissions(waveform), targets, aligner.blank)
                places = np.cumsum([0, *map(len, words)])[:-1]
                found.append([frames[min(place, len(frames) - 1)] * HOP_SAMPLES for place in places])
            return found

        return starts

    contenders: dict[str, Align] = {
        "echo-targets": ours,
        "forced_align, one at a time": plain(_viterbi),
        "WhisperX's trellis and backtrack": plain(_trellis),
    }
    print(f"{len(waveforms)} utterances, {seconds / 60:.1f} minutes\n")
    compare({name: partial(starts, waveforms, texts) for name, starts in contenders.items()}, seconds, rounds)
    for name, starts in contenders.items():
        found = starts([said.waveform for _, said in spoken], [text for text, _ in spoken])
        pairs = [
            (own[place + 1], border)
            for own, (_, said) in zip(found, spoken, strict=True)
            for place, border in said.times.borders().items()
            if own
        ]
        print(f"{name}: starts of {len(pairs)} words of the voice: bias, median, 90 % {spread(pairs)} ms")


def _viterbi(log_probs: np.ndarray, targets: list[int], blank: int) -> list[int]:
    return [peak.start for peak in viterbi(log_probs, targets, blank)]


def _trellis(log_probs: np.ndarray, targets: list[int], blank: int) -> list[int]:
    """Return the first frame of each token by the trellis and greedy backtracking of torchaudio's alignment tutorial.

    WhisperX uses the same algorithm.
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

"""A second speaker 20 dB below the first one: how many words transcribe loses in a row, and whether it says so.

python -m benchmarks.quiet_speaker [--limit N]

Two shufflings of short clips, 40 pairs each, with a pause of 0.3 s between the two.
"""

from __future__ import annotations

import jiwer
import numpy as np

from benchmarks.common import chosen, speech
from benchmarks.speech_sets import FLOOR
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.stages.transcribe import Transcribe, TranscribeParameters
from echo_targets.transforms.text import normalize

SEEDS, PAIRS = (11, 12), 40
PAUSE, BELOW_DB = 0.3, 20
LONGEST_CLIP = 14
LOST = 3
"""Words in a row that count as lost."""


def main(limit: int | None) -> None:
    stage = Transcribe(TranscribeParameters())
    stage.setup()
    words = errors = pairs = 0
    lost: list[int] = []
    marked: dict[bool, int] = {True: 0, False: 0}
    for seed in SEEDS:
        for waveform, text in _pairs(seed)[:limit]:
            (found,) = stage.transcribe([waveform], [""])
            compared = jiwer.process_words(normalize(text, "en"), normalize(found.text, "en"))
            deleted = [chunk for chunk in compared.alignments[0] if chunk.type == "delete"]
            longest = max((chunk.ref_end_idx - chunk.ref_start_idx for chunk in deleted), default=0)
            pairs, words = pairs + 1, words + len(compared.references[0])
            errors += compared.substitutions + compared.deletions + compared.insertions
            if longest >= LOST:
                lost.append(longest)
            marked[longest >= LOST] += "uncovered_speech" in stage._flags(found)
    print(f"{pairs} pairs, {errors / words:.2%} errors")
    print(f"{len(lost)} lost {LOST} words or more in a row: {sorted(lost)}; {marked[True]} of them are flagged")
    print(f"{marked[False]} of the others are flagged")


def _pairs(seed: int) -> list[tuple[np.ndarray, str]]:
    waveforms, texts, _ = speech()
    rng = np.random.default_rng(seed)
    short = [place for place, waveform in enumerate(waveforms) if len(waveform) < LONGEST_CLIP * SAMPLE_RATE]
    order = [short[place] for place in rng.permutation(len(short))]
    found = []
    for one, two in list(zip(order[::2], order[1::2], strict=False))[:PAIRS]:
        loud, quiet = waveforms[one], waveforms[two]
        scale = np.sqrt(np.mean(loud**2) / np.mean(quiet**2)) / 10 ** (BELOW_DB / 20)
        silence = rng.standard_normal(int(PAUSE * SAMPLE_RATE)) * FLOOR
        joined = np.concatenate([loud, silence, quiet * scale]).astype(np.float32)
        found.append((joined, f"{texts[one]} {texts[two]}"))
    return found


if __name__ == "__main__":
    main(chosen(__doc__).limit)

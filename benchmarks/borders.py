"""Measure bias and spread of every aligner's word borders against ground truths that no aligner made.

python -m benchmarks.borders [--limit N] [--voice]

- the embedded voice: the durations of its own phonemes (`voices.narrator`), at three paces and in noise;
- sibilants within real speech: where the energy moves above 3.5 kHz, or back below;
- pauses in real speech: where the energy falls and rises; the aligners also detect silence by energy, so this truth is
  not independent of them;
- pairs of real recordings with a known pause between them: the border of `recorded_segments` must be in the pause;
- real speech shifted by a known time: borders must shift by the same time.

`--voice` measures the voice's own durations against its audio. The report uses the half of the texts to which no
constant was fitted. No letter-based checkpoint (such as wav2vec2) is embedded, so none is measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np

from benchmarks.common import options, speech, speech_rows
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.aligners.attention import AttentionAligner
from echo_targets.transforms.models.aligners.base import Aligner, Alignment
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.aligners.pauses import Levels
from echo_targets.transforms.models.voices.delivery import PLAIN, Delivery
from echo_targets.transforms.models.voices.narrator import Narrator, Said

DELIVERIES = {
    "voice": PLAIN,
    "voice, 0.8 x as fast": Delivery(speed=0.8),
    "voice, 1.3 x as fast": Delivery(speed=1.3),
    "voice, white noise at 10 dB": Delivery(snr_db=10),
}
TEXTS = 60
SHIFT = 4_321  # samples; not a multiple of a frame
NEAR = 1_600  # samples (100 ms) around a word border within which an acoustic event is matched to it
Pairs = list[tuple[float, float]]
"""Pairs of (found, true) samples."""


def main(limit: int | None) -> None:
    aligners: dict[str, Aligner] = {"ctc (hama)": CtcAligner(), "attention (tiny.en)": AttentionAligner()}
    narrator = Narrator()
    _, texts, paths = speech(every=3, limit=TEXTS)
    texts = [text for _, text in sorted(zip(paths, texts, strict=True))][1::2][:limit]  # the others were fitted on
    waveforms, said, _ = speech(every=6, limit=limit)
    print("| aligner | truth | borders | starts: bias, median, 90 % (ms) | ends: bias, median, 90 % (ms) |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name, aligner in aligners.items():
        aligner.setup()
        for truth, delivery in DELIVERIES.items():
            spoken = list(voiced(narrator, texts, delivery))
            found = aligner([each.waveform for _, each in spoken], [text for text, _ in spoken])
            row(name, truth, *against_borders(found, [each for _, each in spoken]))
            if delivery == PLAIN:
                row(name, "voice, durations as they are", *against_durations(found, [each for _, each in spoken]))
        found = aligner(waveforms, said)
        row(name, "sibilants", *against_sibilants(found, waveforms))
        row(name, "pauses by energy", *against_pauses(found, waveforms))
        for seconds in (0.3, 1.0):
            outside, count, ends, starts = joined(aligner, seconds, limit)
            row(name, f"known pause of {seconds} s", starts, ends)
            print(f"{name}: {count - outside} of {count} segment borders lie in the pause", flush=True)
        moved = aligner([np.concatenate([np.zeros(SHIFT, np.float32), each]) for each in waveforms[:10]], said[:10])
        row(name, f"moved by {SHIFT} samples", *_shifted(found[:10], moved))


def voiced(narrator: Narrator, texts: list[str], delivery: Delivery) -> Iterator[tuple[str, Said]]:
    """Synthesize the texts whose words can be told apart in the voice's phonemes."""
    for text in texts:
        if said := narrator.say(text, delivery):
            yield text, said


def against_borders(found: list[Alignment], spoken: list[Said]) -> tuple[Pairs, Pairs]:
    """Return starts and ends of words without a pause between them."""
    starts, ends = Pairs(), Pairs()
    for alignment, said in zip(found, spoken, strict=True):
        for place, border in said.times.borders().items():
            if alignment.words:
                ends.append((alignment.words[place].end_sample, border))
                starts.append((alignment.words[place + 1].start_sample, border))
    return starts, ends


def against_durations(found: list[Alignment], spoken: list[Said]) -> tuple[Pairs, Pairs]:
    """Return starts and ends against the durations without `VOICE_LAG`; the last word's end is in trailing silence."""
    words = [
        pair
        for alignment, said in zip(found, spoken, strict=True)
        if alignment.words
        for pair in list(zip(alignment.words, said.times.words, strict=True))[:-1]
    ]
    return [(w.start_sample, start) for w, (start, _) in words], [(w.end_sample, end) for w, (_, end) in words]


def sibilances(waveform: np.ndarray) -> list[tuple[int, int]]:
    """Return stretches of at least 40 ms with more energy above 3.5 kHz than below 2.5 kHz, after 30 ms without."""
    from scipy.signal import medfilt, stft

    hz, seconds, spectrum = stft(waveform, SAMPLE_RATE, nperseg=256, noverlap=216)
    power = np.abs(spectrum) ** 2
    balance = np.log((power[hz > 3500].sum(0) + 1e-12) / (power[hz < 2500].sum(0) + 1e-12))
    hissing = np.concatenate([[False], medfilt(balance, 5) > 0, [False]]).astype(np.int8)
    stretches = np.flatnonzero(np.diff(hissing)).reshape(-1, 2)
    samples = np.append(seconds, seconds[-1]) * SAMPLE_RATE
    before = np.append(-12, stretches[:, 1])
    return [
        (round(samples[begin]), round(samples[over]))
        for (begin, over), last in zip(stretches, before, strict=False)
        if over - begin >= 16 and begin - last >= 12
    ]


def against_sibilants(found: list[Alignment], waveforms: list[np.ndarray]) -> tuple[Pairs, Pairs]:
    """Return starts and ends of words at an s that is next to a vowel or sonorant, judged by spelling."""
    starts, ends = Pairs(), Pairs()
    for alignment, waveform in zip(found, waveforms, strict=True):
        turns = np.array(sibilances(waveform) or [(-NEAR, -NEAR)])
        for before, after in zip(alignment.words, alignment.words[1:], strict=False):
            if after.start_sample - before.end_sample > NEAR:
                continue
            if after.symbol[0] == "s" and before.symbol[-1] in "aeiouylmnrw":
                starts += _nearest(after.start_sample, turns[:, 0])
            if before.symbol[-1] == "s" and after.symbol[0] in "aeioulmnrwy":
                ends += _nearest(before.end_sample, turns[:, 1])
    return starts, ends


def _nearest(sample: int, events: np.ndarray) -> Pairs:
    near = events[np.abs(events - sample) <= NEAR]
    return [(sample, float(near[0]))] if len(near) == 1 else []


def against_pauses(found: list[Alignment], waveforms: list[np.ndarray]) -> tuple[Pairs, Pairs]:
    """Return word starts after and word ends before silences of at least 200 ms, including the first and last word."""
    starts, ends = Pairs(), Pairs()
    for alignment, waveform in zip(found, waveforms, strict=True):
        for begin, over in Levels(waveform).silences(0, len(waveform)):
            if over - begin < 3_200 or not alignment.words:
                continue
            middles = [(word.start_sample + word.end_sample) / 2 for word in alignment.words]
            following = next(
                (word for word, middle in zip(alignment.words, middles, strict=True) if middle > over), None
            )
            before = [word for word, middle in zip(alignment.words, middles, strict=True) if middle < begin]
            if following and abs(following.start_sample - over) <= 2 * NEAR:
                starts.append((following.start_sample, over))
            if before and abs(before[-1].end_sample - begin) <= 2 * NEAR:
                ends.append((before[-1].end_sample, begin))
    return starts, ends


@cache
def pairs(seconds: float, count: int) -> list[tuple[np.ndarray, int, int, str, int]]:
    """Return pairs of recordings with a pause: waveform, first and last sample of the pause, text, words before it."""
    import soundfile

    rows = [each for each in speech_rows() if each["duration"] < 14]
    random.Random(1).shuffle(rows)
    noise = (np.random.RandomState(0).randn(round(seconds * SAMPLE_RATE)) * 1e-4).astype(np.float32)
    made: list[tuple[np.ndarray, int, int, str, int]] = []
    for one, other in zip(rows[::2], rows[1::2], strict=False):
        before, after = (soundfile.read(each["audio"], dtype="float32")[0] for each in (one, other))
        if len(before) + len(noise) + len(after) <= 29 * SAMPLE_RATE and len(made) < count:
            text = f"{one['text']} {other['text']}"
            whole = np.concatenate([before, noise, after])
            made.append((whole, len(before), len(before) + len(noise), text, len(one["text"].split())))
    return made


def joined(aligner: Aligner, seconds: float, limit: int | None) -> tuple[int, int, Pairs, Pairs]:
    """Return how many segment borders lie outside the pause, the number of pairs, and the words on both sides."""
    made = pairs(seconds, min(limit or 40, 40))
    found = aligner([each[0] for each in made], [each[3] for each in made])
    outside, ends, starts = 0, Pairs(), Pairs()
    for alignment, (_, first, last, _, before) in zip(found, made, strict=True):
        if not alignment.words:
            outside += 1
            continue
        end, start = alignment.words[before - 1].end_sample, alignment.words[before].start_sample
        outside += not first <= (end + start) / 2 <= last
        ends.append((end, first))
        starts.append((start, last))
    return outside, len(made), ends, starts


def _shifted(found: list[Alignment], moved: list[Alignment]) -> tuple[Pairs, Pairs]:
    words = [pair for one, other in zip(found, moved, strict=True) for pair in zip(other.words, one.words, strict=True)]
    return (
        [(later.start_sample, word.start_sample + SHIFT) for later, word in words],
        [(later.end_sample, word.end_sample + SHIFT) for later, word in words],
    )


def row(aligner: str, truth: str, starts: Pairs, ends: Pairs) -> None:
    figures = " | ".join(spread(each) for each in (starts, ends))
    print(f"| {aligner} | {truth} | {len(starts)}, {len(ends)} | {figures} |", flush=True)


def spread(found: Sequence[tuple[float, float]]) -> str:
    """Format the median error, and the median and 90th percentile of the absolute error, in ms."""
    if not found:
        return "none"
    errors = np.array([sample - true for sample, true in found]) * 1000 / SAMPLE_RATE
    bias, median, most = np.median(errors), np.median(np.abs(errors)), np.percentile(np.abs(errors), 90)
    return f"{bias:+.0f}, {median:.0f}, {most:.0f}"


def measure_voice() -> None:
    """Measure how far the voice's durations are from its audio, using spaces next to sibilants."""
    narrator, vowels = Narrator(), "aiouəɛæɑɔɪʊʌɜᵻAIOWYᵊɐQnmlɹwj"
    _, texts, _ = speech(every=3, limit=TEXTS)
    for name, delivery in list(DELIVERIES.items())[:3]:
        rises, falls = Pairs(), Pairs()
        for _, said in voiced(narrator, texts, delivery):
            turns = np.array(sibilances(said.waveform) or [(-NEAR, -NEAR)])
            tokens = [("", 0), *((p, s) for p, s in said.times.phonemes if p not in "ˈˌ"), ("", 0)]
            for (before, _), (space, sample), (after, start) in zip(tokens, tokens[1:], tokens[2:], strict=False):
                if space == " " and start - sample <= NEAR and before and after:
                    if after in "sʃ" and before in vowels:
                        rises += _nearest(sample, turns[:, 0])
                    if before in "szʃ" and after in vowels:
                        falls += _nearest(sample, turns[:, 1])
        print(f"{name}: delay of a space's start after the audible border (bias, median, 90 %, ms):")
        print(f"  before a sibilant {spread(rises)} of {len(rises)}; after one {spread(falls)} of {len(falls)}")


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--voice", action="store_true", help="only measure the voice's durations against its audio")
    chosen = parser.parse_args()
    measured: Callable[[], None] = measure_voice if chosen.voice else lambda: main(chosen.limit)
    measured()

"""How far the scores of `measure` can be trusted: real speech, degraded by known amounts.

`--dnsmos` adds the real-time factor of DNSMOS, and its scores in noise, on every tenth utterance.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
import soxr

from benchmarks.common import options, speech
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.degradation import bandwidth_hz, clipped_share, snr_db
from echo_targets.transforms.models.mos.dnsmos import Dnsmos
from echo_targets.transforms.stages.measure import loudness

Change = Callable[[np.ndarray], np.ndarray]
TALKERS = 12


def quantized(waveform: np.ndarray) -> np.ndarray:
    """Return the waveform in 16-bit steps, as it is stored."""
    return (np.rint(waveform * 32_768).clip(-32_768, 32_767) / 32_768).astype(np.float32)


def resampled(rate: int) -> Change:
    """Return a change to another sampling rate and back."""
    return lambda sound: soxr.resample(soxr.resample(sound, SAMPLE_RATE, rate), rate, SAMPLE_RATE)


def coded(container: str, subtype: str, rate: int = SAMPLE_RATE, level: float | None = None) -> Change:
    """Return a change by a codec of libsndfile. A `level` of 0 is the best quality, 1 the worst."""

    def change(sound: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        at_rate = soxr.resample(sound, SAMPLE_RATE, rate)
        soundfile.write(buffer, at_rate, rate, format=container, subtype=subtype, compression_level=level)
        buffer.seek(0)
        return soxr.resample(soundfile.read(buffer, dtype="float32")[0], rate, SAMPLE_RATE)

    return change


def clipped(share: float, gain: float = 1.0, *codec: Any) -> Change:
    """Return a change that clips the loudest samples, scales, and then codes, if there are arguments of `coded`."""
    then: Change = coded(*codec) if codec else lambda sound: sound
    return lambda sound: then(gain * np.clip(sound / np.quantile(np.abs(sound), 1 - share), -1, 1))


def at_44_khz(change: Change) -> Change:
    """Return a change that is made at 44.1 kHz and then scaled down."""
    return lambda sound: soxr.resample(0.5 * change(soxr.resample(sound, SAMPLE_RATE, 44_100)), 44_100, SAMPLE_RATE)


def noise_of(kind: str, sounds: list[np.ndarray], rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Return a source of noise: white, pink (1/f), or `babble`: many talkers at once."""
    talk = np.concatenate(sounds)

    def noise(length: int) -> np.ndarray:
        if kind == "babble":
            starts = rng.integers(0, len(talk) - length, TALKERS)
            return np.sum([talk[start : start + length] for start in starts], axis=0)
        white = rng.standard_normal(length)
        if kind == "white":
            return white
        spectrum = np.fft.rfft(white)
        return np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), length)

    return noise


def noisy(sound: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Return the sum at a ratio of mean powers, in dB, without the sound's constant offset."""
    sound = sound - sound.mean()
    return quantized(sound + noise * np.sqrt(np.mean(sound**2) / np.mean(noise**2) / 10 ** (snr / 10)))


CODECS: dict[str, Change] = {
    "as recorded": lambda sound: sound,
    "8 kHz and back": resampled(8000),
    "11.025 kHz and back": resampled(11_025),
    "12 kHz and back": resampled(12_000),
    "G.711 (mu-law, 8 kHz)": coded("WAV", "ULAW", 8000),
    "GSM 06.10 (8 kHz)": coded("WAV", "GSM610", 8000),
    "MP3, lowest quality, 16 kHz": coded("MP3", "MPEG_LAYER_III", level=0.99),
    "MP3, lowest quality, 8 kHz": coded("MP3", "MPEG_LAYER_III", 8000, 0.99),
    "every second sample, twice": lambda sound: np.repeat(sound[::2], 2),
}


def percentiles(values: list[float], digits: int = 1) -> str:
    """Return median (5th to 95th percentile)."""
    low, middle, high = np.percentile(values, (5, 50, 95)).round(digits)
    return f"{middle:g} ({low:g} to {high:g})"


def bandwidths(sounds: list[np.ndarray]) -> Iterator[str]:
    for name, change in CODECS.items():
        found = [bandwidth_hz(quantized(change(sound))) or 0.0 for sound in sounds]
        yield f"| {name} | {percentiles(found, 0)} | {min(found):g} | {max(found):g} |"


def clippings(sounds: list[np.ndarray]) -> Iterator[str]:
    plain = [100 * clipped_share(sound) for sound in sounds]
    yield f"| 0 | {percentiles(plain, 3)} | | |"
    for share in (0.001, 0.01, 0.05):
        changes = (clipped(share), at_44_khz(clipped(share)), clipped(share, 0.9, "MP3", "MPEG_LAYER_III"))
        found = [percentiles([100 * clipped_share(quantized(change(one))) for one in sounds], 3) for change in changes]
        yield f"| {100 * share:g} | {' | '.join(found)} |"


def ratios(sounds: list[np.ndarray]) -> Iterator[str]:
    for kind in ("white", "pink", "babble"):
        noise = noise_of(kind, sounds, np.random.default_rng(0))
        cells = []
        for snr in (-5, 0, 5, 10, 15, 20, 30):
            found = [snr_db(noisy(sound, noise(len(sound)), snr)) or 0.0 for sound in sounds]
            cells.append(percentiles([value - snr for value in found]))
        yield f"| {kind} | {' | '.join(cells)} |"


def opinions(sounds: list[np.ndarray]) -> Iterator[str]:
    dnsmos = Dnsmos()
    dnsmos.setup()
    noise = noise_of("babble", sounds, np.random.default_rng(0))
    for snr in (None, 20, 10, 0):
        given = [sound if snr is None else noisy(sound, noise(len(sound)), snr) for sound in sounds]
        started = time.perf_counter()
        found = np.array([dnsmos(sound) for sound in given])
        factor = (time.perf_counter() - started) / (sum(map(len, given)) / SAMPLE_RATE)
        cells = [percentiles(column.tolist(), 2) for column in found.T]
        yield f"| {'none' if snr is None else f'{snr} dB'} | {' | '.join(cells)} | {factor:.2f} |"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dnsmos", action="store_true", help="only score with DNSMOS, which takes minutes")
    chosen = parser.parse_args()
    if chosen.dnsmos:
        sounds, _, _ = speech(10, chosen.limit)
        print(
            "| babble | sig | bak | ovrl | p808 | real-time factor, one core |\n| --- | --- | --- | --- | --- | --- |"
        )
        print("\n".join(opinions(sounds)))
        return
    sounds, _, _ = speech(limit=chosen.limit)
    print("| bandwidth of | Hz | min | max |\n| --- | --- | --- | --- |", *bandwidths(sounds), sep="\n")
    print("\n| clipped, % | found, % | clipped at 44.1 kHz | then MP3 |\n| --- | --- | --- | --- |")
    print(*clippings(sounds), sep="\n")
    print("\n| noise | -5 dB | 0 dB | 5 dB | 10 dB | 15 dB | 20 dB | 30 dB |\n|" + " --- |" * 8)
    print(*ratios(sounds), sep="\n")
    for score in (bandwidth_hz, clipped_share, snr_db, loudness):
        started = time.perf_counter()
        for sound in sounds:
            score(sound)
        seconds = time.perf_counter() - started
        print(f"{score.__name__}: real-time factor {seconds / (sum(map(len, sounds)) / SAMPLE_RATE):.5f}")


if __name__ == "__main__":
    main()

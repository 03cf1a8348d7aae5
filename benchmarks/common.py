"""Test speech and paired timing: contenders take turns, so that slow drift of the machine affects all of them."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.speech import folder, recorded, rows


def options(about: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser with `--limit` and `--rounds`, described by the first line of the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--limit", type=int, help="use only the first N items, for a quick look rather than a figure")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"number of paired runs (default: {rounds})")
    return parser


def chosen(about: str | None, rounds: int = 5) -> argparse.Namespace:
    """Parse `--limit` and `--rounds` for a benchmark without other options."""
    return options(about, rounds).parse_args()


def speech_rows() -> list[dict[str, Any]]:
    """Return rows of the recorded speech, or of speech of the embedded voice; `audio` is an absolute path."""
    if not recorded():
        print("no recordings in ../shared/speech; using speech of the embedded voice", file=sys.stderr)
    return [row | {"audio": str(row["audio"])} for row in rows(folder())]


def speech(every: int = 1, limit: int | None = None) -> tuple[list[np.ndarray], list[str], list[Path]]:
    """Return waveforms (float32, 16 kHz), reference texts and files of every n-th utterance, at most `limit`."""
    import soundfile

    taken = speech_rows()[::every][:limit]
    paths = [Path(row["audio"]) for row in taken]
    return [soundfile.read(path, dtype="float32")[0] for path in paths], [row["text"] for row in taken], paths


def compare(
    contenders: Mapping[str, Callable[[], object]],
    seconds: float,
    rounds: int,
    rows: int | None = None,
    size: int | None = None,
) -> None:
    """Time all contenders in turn, `rounds` times, and print each relative to the first.

    Args:
        contenders: functions to time, by name; ours first.
        seconds: seconds of audio that each processes, for the real-time factor.
        rows: number of rows that each processes; prints rows per second instead of the real-time factor.
        size: bytes that each writes; also prints MB per second.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr, flush=True)
            started = time.perf_counter()
            contender()
            times[name].append(time.perf_counter() - started)
    ours = next(iter(contenders))
    measure = ("real-time factor" if rows is None else "rows/s") + ("" if size is None else ", MB/s")
    print(f"| {'':44} | seconds | {measure} | times ours (min to max of {rounds} pairs) |")
    print("| --- | --- | --- | --- |")
    for name, took in times.items():
        ratios = sorted(other / own for other, own in zip(took, times[ours], strict=True))
        median = statistics.median(took)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        figure = f"{median / seconds:.2g}" if rows is None else f"{rows / median:,.0f}"
        figure += "" if size is None else f", {size / median / 1e6:,.0f}"
        print(f"| {name:44} | {median:7.3g} | {figure} | {spread} |", flush=True)

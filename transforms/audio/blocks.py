"""Blocks of samples that decoders yield, and the checks that every decoder makes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from echo_targets.transforms.audio.containers.base import (
    TOLERANCE,
    BadAudio,
    Link,
    Span,
    is_padding,
    size_of,
    zeros_at_end,
)

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Hz. At lower rates a few bytes would become hours at 16 kHz."""
MAX_CHANNELS = 64
BLOCK = 1 << 18
"""Samples, over all channels, to decode at once."""


class Block(NamedTuple):
    """A block of decoded samples.

    Attributes:
        samples: (frames, channels) float32.
        rate: Hz; it may differ from the previous block's.
        skipped: frames before this block that were not decoded.
    """

    samples: np.ndarray
    rate: int
    skipped: int = 0


def check_header(channels: int, rate: int) -> None:
    if not (MIN_RATE <= rate <= MAX_RATE and 0 < channels <= MAX_CHANNELS):
        raise BadAudio("bad_header", f"claims {channels} channels at {rate} Hz")


def check_zeros(span: Span) -> None:
    """Raise BadAudio if compressed data ends in zeros: an incomplete download into a preallocated file."""
    size = size_of(span)
    zeros = zeros_at_end(span, 0, size)
    if not is_padding(zeros, size):
        raise BadAudio("truncated", f"is truncated: it has {size - zeros} of {size} bytes; the rest are zeros")


def check_end(link: Link, seconds: float, promised: float | None, allowed: float = 0.0) -> None:
    """Compare what was decoded with what the container promises.

    Args:
        link: the container's structure.
        seconds: decoded duration.
        promised: duration that the container promises, if it does.
        allowed: seconds that may be missing, if more than 50 ms.

    Raises:
        BadAudio: more is missing than is allowed.
    """
    if promised is None and 0 < link.present < link.claimed:
        promised = seconds * link.claimed / link.present
    if promised is not None and promised - seconds > max(TOLERANCE, allowed):
        raise BadAudio("truncated", f"is truncated: it has {seconds:.2f} s of {promised:.2f} s")
    if link.cut is not None:
        raise BadAudio("truncated", f"is truncated: it has {seconds:.2f} s, and {link.cut}")
    if not seconds:
        raise BadAudio("empty", "holds no samples")

"""Targets of a reply: its units by segment and codebook, as a model, a voice or the reply's recording says them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.tables.targets import OF_CODEBOOK, TARGET
from echo_targets.transforms.base import rounded
from echo_targets.transforms.models.t2c.config import Decoded
from echo_targets.transforms.models.tokenizers.base import UnitTokenizer
from echo_targets.transforms.segments.rule import Border, borders_of, recorded_segments

ANOTHER_TEXT = 0.5
"""Word error rate of a reply's transcript above which its recording says another text; publish's default `max_wer`."""

Target = dict[str, Any]
"""A struct of `echo_targets`."""


@dataclass(frozen=True)
class SegmentUnits:
    """The units of one segment.

    Attributes:
        units: (N, Q) int32 collapsed units of Q codebooks.
        durations: N numbers of frames; None if they are not known.
    """

    units: np.ndarray
    durations: list[int] | None = None


def target_of(codebook: UnitTokenizer | dict[str, Any], segments: Sequence[SegmentUnits], **more: Any) -> Target:
    """Return a target.

    Args:
        codebook: a tokenizer, or a row of `units`.
        segments: the units of each segment; all of them or none have durations.
        more: other fields of the target.
    """
    get = codebook.__getitem__ if isinstance(codebook, dict) else partial(getattr, codebook)
    durations = [segment.durations for segment in segments]
    return {
        **dict.fromkeys(field.name for field in TARGET),
        **{name: get(name) for name in ("codebook_id", *OF_CODEBOOK)},
        "units": [segment.units.T.tolist() for segment in segments],
        "durations": None if None in durations else durations,
        **more,
    }


def decoded_target(codebook: UnitTokenizer, decoded: Sequence[Decoded], **more: Any) -> Target:
    """Return the target that a model decoded, which has one codebook."""
    segments = [
        SegmentUnits(np.array(segment.units, np.int32).reshape(-1, 1), segment.durations) for segment in decoded
    ]
    return target_of(
        codebook,
        segments,
        mean_logprob=[rounded(segment.mean_logprob) for segment in decoded],
        stop_reason=[segment.stop_reason for segment in decoded],
        **more,
    )


def recorded_target(reply: dict[str, Any], char_ends: Sequence[int]) -> Target | None:
    """Return the units of the reply's recording, cut where its text is cut.

    They are None if there are none, if the recording says something else than the reply's text, or if the alignment
    does not show where to cut. A single segment needs no alignment.

    Args:
        reply: rows of the reply by table, as `turns.with_dialogue` joins them.
        char_ends: exclusive end of each segment in the text, in characters.
    """
    units, transcript = reply["units"], reply["transcripts"]
    if units is None or (transcript is not None and (transcript["wer_vs_reference"] or 0.0) > ANOTHER_TEXT):
        return None
    borders = _borders(reply) if len(char_ends) > 1 else []
    cut = recorded_segments(np.array(units["units"], np.int32).T, units["durations"], borders, char_ends)
    return (
        None if cut is None else target_of(units, [SegmentUnits(runs, durations.tolist()) for runs, durations in cut])
    )


def _borders(reply: dict[str, Any]) -> list[Border]:
    """Return where the recording and the text can be cut together."""
    units, alignment = reply["units"], reply["alignments"]
    wanted = "reference" if reply["utterances"]["reference_text"] else "transcript"
    if alignment is None or alignment["status"] == "failed" or alignment["text_source"] != wanted:
        return []
    frame = units["hop_samples"] * SAMPLE_RATE / units["sampling_rate"]
    return borders_of(alignment["items"], frame, units["num_frames"])


def unit_error_rate(target: Target, recorded: Target | None) -> float | None:
    """Return edits from a target's units to the recorded ones, by segment, per recorded unit.

    A unit of several codebooks is one unit. The rate is None without recorded units of the same codebook.
    """
    from rapidfuzz.distance import Levenshtein

    if recorded is None or any(recorded[name] != target[name] for name in ("codebook_id", "num_codebooks")):
        return None
    pairs = [[list(zip(*segment, strict=True)) for segment in each["units"]] for each in (target, recorded)]
    length = sum(map(len, pairs[1]))
    return sum(Levenshtein.distance(*pair) for pair in zip(*pairs, strict=True)) / length if length else None

"""Units of a reply's own recording, cut where its text is cut and compared with the targets."""

from __future__ import annotations

from typing import Any

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.segments.rule import borders_of, recorded_segments

ANOTHER_TEXT = 0.5
"""Word error rate of a reply's transcript above which its recording says another text; publish's default `max_wer`."""


def recorded_units(reply: dict[str, Any], char_ends: list[int], codebook_id: str) -> list[list[int]] | None:
    """Return the reply's recorded units by segment, collapsed.

    They are None if the units belong to another codebook than the model's, if the recording says something else than
    the reply's text, or if the alignment does not show where to cut. A single segment needs no alignment.

    Args:
        reply: rows of the reply by table, as `turns.with_dialogue` joins them.
        char_ends: exclusive end of each segment in the text, in characters.
        codebook_id: the codebook of the targets.
    """
    units, alignment, transcript = reply["units"], reply["alignments"], reply["transcripts"]
    if units is None or units["codebook_id"] != codebook_id:
        return None
    if transcript is not None and (transcript["wer_vs_reference"] or 0.0) > ANOTHER_TEXT:
        return None
    (codebook,) = units["units"]
    if len(char_ends) == 1:
        return [codebook]
    if alignment is None or alignment["status"] == "failed":
        return None
    wanted = "reference" if reply["utterances"]["reference_text"] else "transcript"
    if alignment["text_source"] != wanted:
        return None
    frame = units["hop_samples"] * SAMPLE_RATE / units["sampling_rate"]
    borders = borders_of(alignment["items"], frame, units["num_frames"])
    cut = recorded_segments(codebook, units["durations"], borders, char_ends)
    return None if cut is None else [segment.tolist() for segment in cut]


def unit_error_rate(targets: list[list[int]], recorded: list[list[int]] | None) -> float | None:
    """Return edits from targets to recorded units, by segment, per recorded unit; None without a recording."""
    from rapidfuzz.distance import Levenshtein

    length = sum(map(len, recorded or []))
    if not recorded or not length:
        return None
    return sum(Levenshtein.distance(*pair) for pair in zip(targets, recorded, strict=True)) / length

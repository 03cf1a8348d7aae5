"""The list of formats, by the ending of a file's name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.timed_texts.base import BadTimedText, Phrase, decoded
from echo_targets.transforms.sources.timed_texts.cues import srt, vtt
from echo_targets.transforms.sources.timed_texts.nist import ctm, rttm, stm
from echo_targets.transforms.sources.timed_texts.textgrid import textgrid

ENDINGS = (".srt", ".vtt", ".textgrid", ".ctm", ".stm", ".rttm")
"""Endings of timed texts, in lower case."""


def is_timed_text(name: str) -> bool:
    """Return True if a file's name has the ending of a timed text."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def phrases_of(data: bytes, name: str, recordings: Sequence[str], tiers: Sequence[str] = ()) -> list[Phrase]:
    """Return the phrases of a timed text in order of their start.

    Args:
        data: the file.
        name: its name, whose ending says the format.
        recordings: names that the recording may have in CTM, STM and RTTM, the preferred one first.
        tiers: names of the tiers of a TextGrid that have the text.

    Raises:
        BadData: a part of it can't be used; nothing is left out.
    """
    ending = os.path.splitext(name)[1].lower()
    try:
        text = decoded(data)
        if ending == ".srt":
            found = srt(text)
        elif ending == ".vtt":
            found = vtt(text)
        elif ending == ".textgrid":
            found = textgrid(text, tiers)
        else:
            found = {".ctm": ctm, ".stm": stm, ".rttm": rttm}[ending](text, recordings)
    except BadTimedText as error:
        where = f"{name}:{error.line}:" if error.line else name
        raise BadData("bad_timed_text", f"can't be cut by its text: {where} {error}") from error
    trimmed = (_trimmed(phrase) for phrase in found)
    kept = [phrase for phrase in trimmed if phrase.text != ""]
    return sorted(kept, key=lambda each: (each.start, each.end, each.line))


def _trimmed(phrase: Phrase) -> Phrase:
    """Return a phrase without blanks around its text and its speaker's name, which is on one line."""
    text = None if phrase.text is None else phrase.text.strip(BLANK)
    return replace(phrase, text=text, speaker=" ".join((phrase.speaker or "").split()) or None)

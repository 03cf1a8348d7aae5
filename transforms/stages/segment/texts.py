"""A recording's timed text: opened through its source, checked against the recording, and given to its channels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.transforms.audio.mixing import MIX
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.sources.base import Source, file_name, is_missing, may_be_credentials
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.sources.timed_texts.registry import phrases_of
from echo_targets.transforms.stages.of_entries import Entry

LITTLE, MUCH = 0.2, 0.5
"""The text's channels are wrong if less than `LITTLE` of one is spoken in it, and more than `MUCH` in another."""


def phrases_of_tracks(
    entry: Entry, source: Source, num_samples: int, channels: Sequence[int], tiers: Sequence[str]
) -> list[list[Phrase]]:
    """Return the phrases of each track in order; none if the recording comes without a timed text.

    Args:
        entry: the recording's entry.
        source: its source.
        num_samples: its length.
        channels: the tracks' channels; one track, -1, is the mean of all.
        tiers: names of the tiers of a TextGrid that have the text.

    Raises:
        BadData: the text is missing, malformed, or does not fit the recording.
        OSError: storage failed.
    """
    if entry["timed_text"] is None:
        return [[] for _ in channels]
    name = file_name(entry["timed_text"])
    audio = file_name(entry["locator"])
    names = (entry[KEY], os.path.splitext(audio)[0], audio)
    phrases = phrases_of(_read(source, entry["timed_text"], name), name, names, tiers)
    for phrase in phrases:
        if phrase.start >= num_samples:
            raise _bad(
                name,
                phrase,
                f"starts at {phrase.start / SAMPLE_RATE:.2f} s, but the recording ends at "
                f"{num_samples / SAMPLE_RATE:.2f} s: is it the text of another recording?",
            )
    phrases = [replace(phrase, end=min(phrase.end, num_samples)) for phrase in phrases]
    return [_mixed(phrases)] if list(channels) == [MIX] else _by_channel(name, phrases, channels)


def check_channels(entry: Entry, texts: Sequence[Sequence[Phrase]], speech: Sequence[Sequence[Span]]) -> None:
    """Check that the phrases of each channel are spoken in it.

    Args:
        entry: the recording's entry.
        texts: the phrases of each track, with places in samples.
        speech: each track's own speech, in order.

    Raises:
        BadData: what the text says in one channel is spoken in another.
    """
    for place, phrases in enumerate(texts):
        shares = [_share_in(phrases, spans) for spans in speech]
        other = int(np.argmax(shares))
        if shares[place] < LITTLE and shares[other] > MUCH:
            name = file_name(entry["timed_text"] or "")
            message = (
                f"of what it says in channel {place + 1}, {shares[place]:.0%} is spoken there and {shares[other]:.0%} "
                f"in channel {other + 1}: correct the channels"
            )
            raise _bad(name, phrases[0], message)


def _share_in(phrases: Sequence[Phrase], speech: Sequence[Span]) -> float:
    """Return the share of the phrases' time that lies in speech."""
    spans = np.array(speech, np.float64).reshape(-1, 2)
    lengths = np.stack([np.zeros(len(spans)), spans[:, 1] - spans[:, 0]], axis=1)
    borders, spoken = np.append(0, spans), np.append(0, np.cumsum(lengths))
    times = np.array([(phrase.start, phrase.end) for phrase in phrases], np.float64).reshape(-1, 2)
    inside = np.diff(np.interp(times, borders, spoken), axis=1).sum()  # of the speech before each time
    return float(inside / max(1, np.diff(times, axis=1).sum()))


def _read(source: Source, locator: str, name: str) -> bytes:
    try:
        return source.read(locator)
    except OSError as error:
        if not is_missing(error) or may_be_credentials(error):
            raise
        raise BadData("missing_file", f"names the timed text {name}: {error.strerror or error}") from error


def _mixed(phrases: Sequence[Phrase]) -> list[Phrase]:
    """Return the phrases of all channels. Without names, the channels tell speakers apart."""
    if len({phrase.channel for phrase in phrases}) < 2:
        return list(phrases)
    return [phrase if phrase.speaker else replace(phrase, speaker=str(phrase.channel)) for phrase in phrases]


def _by_channel(name: str, phrases: Sequence[Phrase], channels: Sequence[int]) -> list[list[Phrase]]:
    """Return the phrases of each channel. A text that names one channel at most is that of a single channel."""
    named = {phrase.channel for phrase in phrases}
    if len(channels) == 1 and len(named) < 2:
        return [list(phrases)]
    for phrase in phrases:
        if phrase.channel is None:
            raise _bad(name, phrase, "names no channel, but each speaker has one: use CTM or STM, or speakers: one")
        if len(channels) > 1 and phrase.channel not in channels:
            number = phrase.channel + 1
            raise _bad(name, phrase, f"names channel {number}, but the recording has {len(channels)}: correct it")
    if len(channels) > 1 and len(named) == 1:  # as diarization of a mix writes it
        other = next((phrase for phrase in phrases if phrase.speaker != phrases[0].speaker), None)
        if other is not None:
            number = (phrases[0].channel or 0) + 1
            raise _bad(
                name,
                other,
                f"names a second speaker in channel {number}, and none in another, but each has one: correct the "
                "channels, or set speakers: one",
            )
    found = [[phrase for phrase in phrases if phrase.channel == channel] for channel in channels]
    if phrases and not any(found):
        raise _bad(name, phrases[0], f"names other channels than {channels[0] + 1}, which is cut: correct `channel`")
    return found


def _bad(name: str, phrase: Phrase, message: str) -> BadData:
    return BadData("bad_timed_text", f"can't be cut by its text: {name}:{phrase.line}: {message}")

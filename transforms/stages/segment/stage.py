"""segment: find the utterances of recordings. A row is a recording, with its cuts and the gaps between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from echo_targets.schemas import CUTS, KEY, SAMPLE_RATE
from echo_targets.transforms.audio.mixing import MIX
from echo_targets.transforms.audio.waveforms import BadAudio
from echo_targets.transforms.base import Parameters, rounded
from echo_targets.transforms.models.asr.voice_activity import SHORTEST_SPEECH, WINDOW, VoiceActivity, spans_of
from echo_targets.transforms.sources.base import Source
from echo_targets.transforms.sources.registry import AnySource, named
from echo_targets.transforms.stages.of_entries import Entry, OfEntries, Row
from echo_targets.transforms.stages.segment.cross_talk import own_speech
from echo_targets.transforms.stages.segment.cutting import Border, Cut, Lengths, cut
from echo_targets.transforms.stages.segment.scanning import FRAME, Recording, Track, scan
from echo_targets.transforms.stages.segment.turns import turns

Role = Literal["user", "assistant", "narrator"]
SILENCE_DBFS = -200.0


class SegmentParameters(Parameters):
    """Parameters of segment.

    Attributes:
        sources: the recordings.
        speakers: `one` if a recording has one speaker, or several that need not be told apart; `channels` if each
            channel has a speaker.
        roles: with `channels`, the role of each channel's speaker. Users and assistants take turns in a dialogue, whose
            cuts are whole turns; other speakers are narrators.
        min_seconds, max_seconds: wanted lengths of cuts. Shorter speech is joined to what is near; longer speech is cut
            where it is quietest.
        padding_seconds: silence to keep before and after the speech.
    """

    sources: list[AnySource]
    speakers: Literal["one", "channels"] = "one"
    roles: dict[int, Role] = {}
    min_seconds: PositiveFloat = 2.0
    max_seconds: PositiveFloat = 30.0
    padding_seconds: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.roles and self.speakers == "one":
            raise ValueError("roles are given to channels: set speakers to channels, or remove roles")
        if self.max_seconds < 2 * (self.min_seconds + self.padding_seconds):
            raise ValueError("max_seconds must be at least twice min_seconds and padding_seconds together")
        return self

    @property
    def lengths(self) -> Lengths:
        """The wanted lengths in samples."""
        seconds = (self.min_seconds, self.max_seconds, self.padding_seconds)
        return Lengths(*(round(value * SAMPLE_RATE) for value in seconds))


class Segment(OfEntries):
    """Scan each recording once, and cut it."""

    name: ClassVar[str] = "segment"
    version: ClassVar[int] = 1
    writes = CUTS
    openers: ClassVar[int] = 2
    Parameters = SegmentParameters
    parameters: SegmentParameters

    def __init__(self, parameters: Any, device: str = "cpu") -> None:
        super().__init__(parameters, device)
        self._sources = named(self.parameters.sources)

    @property
    def sources(self) -> dict[str, Source]:
        return self._sources

    def weight_digests(self) -> dict[str, str]:
        return {"vad": VoiceActivity().weight_digest()}

    def setup(self) -> None:
        VoiceActivity().setup()

    def rows_of(self, entries: Sequence[Entry], source: Source, file: str) -> list[Row | BadAudio]:
        return [self._row(entry, source) for entry in entries]

    def _row(self, entry: Entry, source: Source) -> Row | BadAudio:
        if entry["start_seconds"] is not None or entry["section_seconds"] is not None:
            return BadAudio("is_section", "is listed as a section; segment takes whole files: list each file once")
        separately = self.parameters.speakers == "channels"
        recording = scan(source.open(entry["locator"]), entry["channel"], separately)
        if not recording.num_samples:
            return BadAudio("empty", "holds no samples")
        own = own_speech(recording.tracks)
        cuts = sorted(self._cuts(entry, recording, own), key=lambda cut: (cut["start_sample"], cut["end_sample"]))
        return {
            KEY: entry[KEY],
            "sampling_rate": recording.source_rate,
            "num_channels": recording.num_channels,
            "num_samples": recording.num_samples,
            "cuts": cuts,
            "gaps": [
                gap for track, mask in zip(recording.tracks, own, strict=True) for gap in _gaps(track, mask, cuts)
            ],
        }

    def _cuts(self, entry: Entry, recording: Recording, own: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        speech = [spans_of(mask, recording.num_samples) for mask in own]
        roles = [self.parameters.roles.get(track.channel, "narrator") for track in recording.tracks]
        talkers = [place for place, role in enumerate(roles) if role != "narrator"]

        def described(place: int, found: Cut, turn: int | None) -> dict[str, Any]:
            track = recording.tracks[place]
            others = [mask for other, mask in enumerate(own) if other != place]
            return {
                "channel": track.channel,
                "start_sample": found.start,
                "end_sample": found.end,
                "speaker_id": entry["speaker_id"] if track.channel == MIX else _speaker(entry, track.channel),
                "role": roles[place],
                "turn": turn,
                "overlap": rounded(_share(others, found)),
                "level_dbfs": rounded(_level(track, found)),
                "border": found.border,
            }

        cuts: list[dict[str, Any]] = []
        for place, track in enumerate(recording.tracks):
            if place not in talkers:
                for found in cut(speech[place], track.high_passed, recording.num_samples, self.parameters.lengths):
                    cuts.append(described(place, found, None))
        number: int | None = None
        padding, ends = self.parameters.lengths.padding, [0] * len(talkers)
        found_turns = turns([speech[place] for place in talkers])
        for position, turn in enumerate(found_turns):
            place = talkers[turn.speaker]
            following = next(
                (other.start for other in found_turns[position + 1 :] if other.speaker == turn.speaker), None
            )
            limit = recording.num_samples if following is None else (turn.end + following) // 2
            start = max(ends[turn.speaker], turn.start - padding)
            end = min(limit, turn.end + padding)
            ends[turn.speaker] = end
            border: Border = "end" if end == recording.num_samples else "turn"
            if not turn.is_inside:
                # Users have even turns, so that whoever numbers turns by role finds them there.
                first = 0 if roles[place] == "user" else 1
                number = first if number is None else number + 1
            cuts.append(described(place, Cut(start, end, border), None if turn.is_inside else number))
        return cuts


def _speaker(entry: Entry, channel: int) -> str:
    return f"{entry['speaker_id'] or entry[KEY]}-{channel}"


def _share(others: Sequence[np.ndarray], found: Cut) -> float:
    """Return the share of a cut's windows in which another channel's speaker speaks."""
    if not others:
        return 0.0
    return float(np.any([mask[found.start // WINDOW : -(-found.end // WINDOW)] for mask in others], axis=0).mean())


def _level(track: Track, found: Cut) -> float:
    """Return the power of a cut in dB relative to full scale."""
    power = float(track.power[found.start // FRAME : -(-found.end // FRAME)].mean(dtype=np.float64))
    return max(SILENCE_DBFS, 10 * float(np.log10(max(power, 1e-30))))


def _gaps(track: Track, own: np.ndarray, cuts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what lies between the cuts of a channel."""
    mine = [cut for cut in cuts if cut["channel"] == track.channel]
    ends = [0, *(cut["end_sample"] for cut in mine)]
    starts = [*(cut["start_sample"] for cut in mine), track.num_samples]
    return [
        {
            "channel": track.channel,
            "start_sample": start,
            "end_sample": end,
            "why": "cross_talk" if _is_cross_talk(track, own, start, end) else "no_speech",
        }
        for start, end in zip(ends, starts, strict=True)
        if start < end
    ]


def _is_cross_talk(track: Track, own: np.ndarray, start: int, end: int) -> bool:
    windows = slice(start // WINDOW, -(-end // WINDOW))
    return int((track.speech[windows] & ~own[windows]).sum()) * WINDOW >= SHORTEST_SPEECH

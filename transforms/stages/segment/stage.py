"""segment: find the utterances of recordings. A row is a recording, with its cuts and the gaps between them."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from echo_targets.schemas import CUTS, KEY, SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import BadAudio
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.models.aligners.ctc import TokenAligner
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.aligners.letters import LetterAligner
from echo_targets.transforms.models.aligners.registry import open_letters
from echo_targets.transforms.models.asr.voice_activity import SHORTEST_SPEECH, WINDOW, VoiceActivity, spans_of
from echo_targets.transforms.models.speakers.base import SpeakerEncoder
from echo_targets.transforms.models.speakers.registry import open_speaker_encoder
from echo_targets.transforms.sources.base import Source
from echo_targets.transforms.sources.registry import AnySource, named
from echo_targets.transforms.stages.of_entries import Entry, OfEntries, Row
from echo_targets.transforms.stages.segment.cross_talk import own_speech
from echo_targets.transforms.stages.segment.cutter import Cutter, Role, Talker
from echo_targets.transforms.stages.segment.cutting import Lengths
from echo_targets.transforms.stages.segment.diarization import DiarizationParameters, diarize, with_speakers
from echo_targets.transforms.stages.segment.scanning import Recording, Track, scan
from echo_targets.transforms.stages.segment.stretches import StretchLoader
from echo_targets.transforms.stages.segment.texts import check_channels, phrases_of_tracks
from echo_targets.transforms.stages.segment.untimed_text import words_in

LOADING = Lock()
"""Held while an aligner loads, since several recordings are cut at once."""


class AlignmentParameters(Parameters):
    """How texts without times are aligned.

    Attributes:
        model: a directory with a CTC head over letters, as for `align.model`; null for the embedded model of English
            phonemes.
        language: the language of the texts, which a multilingual MMS model must be given.
    """

    model: str | None = None
    language: str = "en"

    def open(self) -> TokenAligner:
        """Return the aligner, not loaded.

        Raises:
            ModelError: the checkpoint is of no supported kind.
        """
        return LetterAligner(open_letters(self.model, "cpu", self.language)) if self.model else CtcAligner()


class SegmentParameters(Parameters):
    """Parameters of segment.

    Attributes:
        sources: the recordings.
        speakers: `one` if a recording has one speaker, or several that need not be told apart; `channels` if each
            channel has a speaker; `diarized` to tell the speakers of one channel apart by their voices.
        roles: the role of each channel's speaker; with `diarized`, of the first one to speak (0), the second (1), and
            so on. Users and assistants take turns in a dialogue, whose cuts are whole turns; others are narrators.
        diarization: how to tell speakers apart, with `diarized`.
        alignment: how to align texts without times.
        min_seconds, max_seconds: wanted lengths of cuts. Shorter speech is joined to what is near; longer speech is cut
            where it is quietest.
        padding_seconds: silence to keep before and after the speech.
        tiers: names of the tiers that have the text in TextGrids; by default `words`, or the only tier that is not of
            phones.
    """

    sources: list[AnySource]
    speakers: Literal["one", "channels", "diarized"] = "one"
    roles: dict[int, Role] = {}
    diarization: DiarizationParameters = DiarizationParameters()
    alignment: AlignmentParameters = AlignmentParameters()
    min_seconds: PositiveFloat = 2.0
    max_seconds: PositiveFloat = 30.0
    padding_seconds: float = Field(0.2, ge=0, le=1)
    tiers: list[str] = []

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.roles and self.speakers == "one":
            raise ValueError(
                "roles need speakers that are told apart: set speakers to channels or diarized, or remove roles"
            )
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
    version: ClassVar[int] = 4
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

    @property
    def _encoder(self) -> SpeakerEncoder | None:
        """The speaker encoder, not loaded; None without diarization."""
        chosen = self.parameters
        return open_speaker_encoder(chosen.diarization.model) if chosen.speakers == "diarized" else None

    def fingerprint_parameters(self) -> dict[str, Any]:
        chosen = super().fingerprint_parameters()
        diarization = {name: value for name, value in chosen.pop("diarization").items() if name != "model"}
        del chosen["alignment"]["model"]
        return chosen | ({"diarization": diarization} if self._encoder else {})

    def weight_digests(self) -> dict[str, str]:
        speakers = {"speakers": self._encoder.weight_digest()} if self._encoder else {}
        return {"vad": VoiceActivity().weight_digest()} | speakers | self.parameters.alignment.open().weight_digests()

    def setup(self) -> None:
        VoiceActivity().setup()
        self._loaded_encoder = self._encoder
        if self._loaded_encoder:
            self._loaded_encoder.setup()  # on the CPU, like voice activity detection: the stage needs no device
        self._aligner: TokenAligner | None = None

    def _loaded_aligner(self) -> TokenAligner:
        """Return the aligner, loaded for the first text without times: few recordings have one, and it takes 0.5 GB."""
        with LOADING:
            if self._aligner is None:
                aligner = self.parameters.alignment.open()
                aligner.setup()
                self._aligner = aligner
            return self._aligner

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
        cutter = Cutter(entry, recording, own, self.parameters.lengths)
        cuts = sorted(
            cutter.cuts(self._talkers(entry, source, recording, own)),
            key=lambda cut: (cut["start_sample"], cut["end_sample"]),
        )
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

    def _talkers(self, entry: Entry, source: Source, recording: Recording, own: Sequence[np.ndarray]) -> list[Talker]:
        """Return who is cut: the speaker of each channel, or each speaker of one channel."""
        channels = [track.channel for track in recording.tracks]
        speech = [spans_of(mask, recording.num_samples) for mask in own]
        texts = phrases_of_tracks(entry, source, recording.num_samples, channels, self.parameters.tiers)
        check_channels(entry, texts, speech)
        if entry["timed_text"] is None and entry["reference_text"] and len(channels) == 1:
            load, again = (StretchLoader(source.open(entry["locator"]), channels[0]) for _ in range(2))
            texts = [words_in(entry["reference_text"], speech[0], load, again, self._loaded_aligner())]
        roles = self.parameters.roles
        if self._loaded_encoder is None:
            return [
                Talker(place, speech[place], texts[place], roles.get(channel, "narrator"))
                for place, channel in enumerate(channels)
            ]
        if any(phrase.speaker for phrase in texts[0]):
            raise BadData(
                "bad_timed_text",
                f"has a text that names its speakers, {entry['timed_text']}: set speakers: one",
            )
        load = StretchLoader(source.open(entry["locator"]), channels[0])
        said = diarize(speech[0], load, self._loaded_encoder, self.parameters.diarization)
        phrases = with_speakers(texts[0], said)
        if not roles:
            return [Talker(0, speech[0], phrases, "narrator")]
        return [
            Talker(
                0,
                [(start, end) for start, end, one in said if one == speaker],
                [phrase for phrase in phrases if phrase.text and phrase.speaker == str(speaker)],
                roles.get(speaker, "narrator"),
                str(speaker),
            )
            for speaker in sorted({speaker for *_, speaker in said})
        ]


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

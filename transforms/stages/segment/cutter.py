"""The cuts of one recording: turns of users and assistants, and stretches of the wanted lengths of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from echo_targets.schemas import KEY
from echo_targets.transforms.audio.mixing import MIX
from echo_targets.transforms.base import rounded
from echo_targets.transforms.models.asr.voice_activity import WINDOW, Span
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.of_entries import Entry
from echo_targets.transforms.stages.segment.cutting import Border, Cut, Lengths, cut, joined_spans
from echo_targets.transforms.stages.segment.phrase_cuts import cut_by_phrases, spoken_at_once
from echo_targets.transforms.stages.segment.scanning import FRAME, Recording, Track
from echo_targets.transforms.stages.segment.turns import turns
from echo_targets.transforms.text import join

Role: TypeAlias = Literal["user", "assistant", "narrator"]
SILENCE_DBFS = -200.0


@dataclass(frozen=True)
class Talker:
    """A speaker whose speech is cut.

    Attributes:
        place: position of the track.
        speech: stretches of speech, in order.
        phrases: what is known to be said, and by whom.
        role: the role.
        name: the speaker's name; None for that of the channel or of the phrases.
    """

    place: int
    speech: Sequence[Span]
    phrases: Sequence[Phrase]
    role: Role
    name: str | None = None


@dataclass(frozen=True)
class Cutter:
    """Cuts one recording.

    Attributes:
        own: for each track, the windows in which its speakers speak.
        lengths: wanted lengths.
    """

    entry: Entry
    recording: Recording
    own: Sequence[np.ndarray]
    lengths: Lengths

    def cuts(self, talkers: Sequence[Talker]) -> list[dict[str, Any]]:
        """Return the cuts of all speakers: turns on the tracks of users and assistants, and what fits elsewhere."""
        tracks = {talker.place for talker in talkers if talker.role != "narrator"}
        others = [talker for talker in talkers if talker.place not in tracks]
        cuts = [row for talker in others for row in self._rows(talker)]
        return cuts + list(self._turns([talker for talker in talkers if talker.place in tracks]))

    def _rows(self, talker: Talker) -> Iterator[dict[str, Any]]:
        """Yield the cuts of a speaker who takes no turns, of the wanted lengths."""
        power, num_samples = self.recording.tracks[talker.place].high_passed, self.recording.num_samples
        heard = talker.speech, power, num_samples, self.lengths
        at_once = spoken_at_once(talker.phrases, num_samples)
        for found in cut_by_phrases(talker.phrases, *heard) if talker.phrases else cut(*heard):
            yield self._row(talker, found, None, at_once)

    def _turns(self, talkers: Sequence[Talker]) -> Iterator[dict[str, Any]]:
        """Yield the cuts of speakers who take turns."""
        number: int | None = None
        num_samples, padding = self.recording.num_samples, self.lengths.padding
        ends = dict.fromkeys((talker.place for talker in talkers), 0)
        at_once = [spoken_at_once(talker.phrases, num_samples) for talker in talkers]
        found = turns([_spoken(talker) for talker in talkers])
        for position, turn in enumerate(found):
            talker = talkers[turn.speaker]
            same = (other.start for other in found[position + 1 :] if talkers[other.speaker].place == talker.place)
            following = next(same, None)
            limit = num_samples if following is None else (turn.end + following) // 2
            start = max(ends[talker.place], turn.start - padding)
            end = ends[talker.place] = min(limit, turn.end + padding)
            is_turn = not turn.is_inside and talker.role != "narrator"
            if is_turn:
                # Users have even turns, so that whoever numbers turns by role finds them there.
                first = 0 if talker.role == "user" else 1
                number = first if number is None else number + 1
            phrases = [each for each in talker.phrases if turn.start <= each.start < turn.end]
            said = join(each.text or "" for each in phrases) or None
            names = {each.speaker for each in phrases}
            border: Border = "end" if end == num_samples else "turn"
            made = Cut(start, end, border, said, names.pop() if len(names) == 1 else None)
            yield self._row(talker, made, number if is_turn else None, at_once[turn.speaker])

    def _row(self, talker: Talker, found: Cut, turn: int | None, at_once: np.ndarray) -> dict[str, Any]:
        track = self.recording.tracks[talker.place]
        others = [mask for other, mask in enumerate(self.own) if other != talker.place]
        default = self.entry["speaker_id"] if track.channel == MIX else _speaker(self.entry, track.channel)
        name = found.speaker or talker.name
        return {
            "channel": track.channel,
            "start_sample": found.start,
            "end_sample": found.end,
            "speaker_id": default if name is None else f"{self.entry[KEY]}-{name}",
            "role": talker.role,
            "turn": turn,
            "overlap": rounded(max(_share(others, found, WINDOW), _share([at_once], found, FRAME))),
            "level_dbfs": rounded(_level(track, found)),
            "border": found.border,
            "text": found.text,
        }


def _speaker(entry: Entry, channel: int) -> str:
    return f"{entry['speaker_id'] or entry[KEY]}-{channel}"


def _spoken(talker: Talker) -> list[Span]:
    """Return the stretches of speech and of phrases, joined where they meet."""
    return joined_spans([*talker.speech, *((phrase.start, phrase.end) for phrase in talker.phrases)])


def _share(masks: Sequence[np.ndarray], found: Cut, window: int) -> float:
    """Return the share of a cut's windows, of `window` samples, that one of the masks marks."""
    if not masks:
        return 0.0
    return float(np.any([mask[found.start // window : -(-found.end // window)] for mask in masks], axis=0).mean())


def _level(track: Track, found: Cut) -> float:
    """Return the power of a cut in dB relative to full scale."""
    power = float(track.power[found.start // FRAME : -(-found.end // FRAME)].mean(dtype=np.float64))
    return max(SILENCE_DBFS, 10 * float(np.log10(max(power, 1e-30))))

"""lhotse's JSON of cuts, recordings and supervisions: the utterances they describe, and where their audio is.

Each supervision is an utterance: the part of the recording that it covers, which is what its text says. A cut or
recording without supervisions is an utterance without text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from echo_targets.transforms.audio.mixing import MIX
from echo_targets.transforms.sources.base import Item, bad_line
from echo_targets.transforms.sources.record import AGREED_SECONDS, Fields, item_from
from echo_targets.transforms.sources.values import BadLine, identifier, integer, kind_of, number

Json = Mapping[str, Any]

STORE = "store its audio with lhotse, `cuts.save_audios(FOLDER)`, and list the cuts that this returns"
CUTS = ("MonoCut", "MultiCut", "Cut")
"""Types of cuts that are a part of one recording. `Cut` is the former name of MonoCut."""
HARMLESS = ("Resample",)
"""Transforms of a recording that change neither what is said nor when. All audio is resampled to 16 kHz anyway."""
OWN_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "text": ("text",),
    "speaker_id": ("speaker",),
    "language": ("language",),
    **dict.fromkeys(("audio", "start", "end", "duration", "channel"), ()),
}
"""lhotse's names of fields. Those of dialogues, and names that a source gives in `columns`, may be keys of `custom`."""
OUTSIDE_SECONDS = 0.1
"""By how much a supervision may end after its recording, since times are those of frames."""
SOURCES = {
    "command": "its audio is the output of a shell command, which is not run: write that to a file, or ",
    "memory": "its audio is in the manifest itself: ",
}


class Place(NamedTuple):
    """Where an utterance's audio is.

    Attributes:
        kind: the type of lhotse's AudioSource: `file`, `url` or `shar`.
        source: its path or URL; for `shar` the id of the cut.
        channel: the channel of that file; None for a file with one channel.
    """

    kind: str
    source: str
    channel: int | None


def of_cut(cut: Json, where: str, fields: Fields) -> Iterator[tuple[Item, Place | None]]:
    """Yield the utterances of a cut, without a locator; bad ones as error items without a place."""
    try:
        if (kind := cut.get("type")) not in CUTS:
            altered = kind in ("MixedCut", "PaddingCut")
            raise BadLine(f"is a {kind}: {STORE}" if altered else f"has the type {kind!r}; expected a cut of lhotse")
        if not isinstance(recording := cut.get("recording"), Mapping):
            raise BadLine("has no recording, so no audio: list cuts with recordings")
        start = _seconds(cut, "start")
        supervisions = _list(cut, "supervisions")
        key = identifier(("id", cut.get("id")))
    except BadLine as error:
        yield _error(where, error), None
        return
    if not supervisions:
        whole = {name: cut.get(name) for name in ("duration", "channel", "custom")} | {"id": key}
        yield _of_shar(utterance(recording, whole, where, fields, start), str(key))
    for position, supervision in enumerate(supervisions):
        place = f"{where}[{position}]" if len(supervisions) > 1 else where
        if isinstance(supervision, Mapping):
            custom = _custom(cut) | _custom(supervision)
            channel = supervision.get("channel", 0) if cut.get("type") == "MultiCut" else cut.get("channel", 0)
            supervision = {**supervision, "custom": custom, "channel": channel}
        yield _of_shar(utterance(recording, supervision, place, fields, start), str(key))


def utterance(
    recording: Json, supervision: Any, where: str, fields: Fields, origin: float = 0.0
) -> tuple[Item, Place | None]:
    """Return an utterance without a locator, and its place; a bad one as an error item without a place.

    Args:
        origin: the time in the recording, in seconds, that the supervision's times are relative to.
    """
    try:
        if not isinstance(supervision, Mapping):
            raise BadLine(f"has {kind_of(supervision)} as a supervision; expected an object")
        names = {name for known in fields.names.values() for name in known}
        given = {**_custom(supervision), **supervision}
        item = item_from(fields({name: value for name, value in given.items() if name in names}), where)
        start, lasts = origin + _seconds(supervision, "start"), _seconds(supervision, "duration")
        total = _seconds(recording, "duration")
        if start < -AGREED_SECONDS or not lasts or start + lasts > total + OUTSIDE_SECONDS:
            raise BadLine(f"is from {start:g} to {start + lasts:g} s of a recording of {total:g} s: correct its times")
        is_whole = start <= AGREED_SECONDS and abs(start + lasts - total) <= AGREED_SECONDS
        item = replace(
            item,
            seconds=lasts,
            start_seconds=None if is_whole else max(0.0, start),
            section_seconds=None if is_whole else lasts,
            declared_seconds=total if is_whole else None,
        )
        place = _place(recording, supervision.get("channel"))
        return replace(item, channel=place.channel), place
    except BadLine as error:
        return _error(where, error), None


def _place(recording: Json, channel: Any) -> Place:
    """Return where a channel of a recording is, or a mix of all of its channels.

    Raises:
        BadLine: it is not in one file, or lhotse would alter it.
    """
    transforms = [one.get("name") if isinstance(one, Mapping) else one for one in _list(recording, "transforms")]
    if altered := [str(name) for name in transforms if name not in HARMLESS]:
        raise BadLine(
            f"has a recording that lhotse alters when it loads it ({', '.join(altered)}): leave the cut out, or {STORE}"
        )
    sources = [source for source in _list(recording, "sources") if isinstance(source, Mapping)]
    wanted = _channels(channel)
    there = {one for source in sources for one in _channels(source.get("channels"))}
    if len(wanted) > 1 and set(wanted) != there:
        raise BadLine(f"has the channels {wanted} of a recording with {sorted(there)}: name one channel, or all")
    found = [source for source in sources if set(wanted) <= set(_channels(source.get("channels")))]
    if not found:
        what = "in several files" if set(wanted) <= there else f"not among {sorted(there)}"
        raise BadLine(f"has channel {', '.join(map(str, wanted))}, which is {what}: name one channel of one file")
    kind, name, channels = found[0].get("type"), found[0].get("source"), _channels(found[0].get("channels"))
    if kind not in ("file", "url", "shar"):
        raise BadLine(f"can't be loaded: {SOURCES.get(str(kind), f'its audio is of type {kind!r}: ')}{STORE}")
    if not isinstance(name, str):
        raise BadLine(f"has {kind_of(name)} as the source of its audio; expected a path or a URL")
    if len(channels) == 1:
        return Place(kind, name, None)
    return Place(kind, name, MIX if len(wanted) > 1 else channels.index(wanted[0]))


def _of_shar(found: tuple[Item, Place | None], cut: str) -> tuple[Item, Place | None]:
    item, place = found
    return item, place._replace(source=cut) if place and place.kind == "shar" else place


def _channels(value: Any) -> list[int]:
    channels = [integer(("channel", one), 0, 127) for one in (value if isinstance(value, list) else [value])]
    return [0 if channel is None else channel for channel in channels]


def _seconds(record: Json, name: str) -> float:
    """Return a time; 0 if it is missing. Only a supervision's start may be negative."""
    return number((name, record.get(name)), -1e6 if name == "start" else 0, 1e6) or 0.0


def _list(record: Json, name: str) -> list[Any]:
    value = record.get(name)
    if value is not None and not isinstance(value, list):
        raise BadLine(f"`{name}` is {kind_of(value)}; expected a list")
    return value or []


def _custom(record: Json) -> dict[str, Any]:
    custom = record.get("custom")
    return dict(custom) if isinstance(custom, Mapping) else {}


def _error(where: str, error: BadLine) -> Item:
    return bad_line(where, f"{where} {error}")

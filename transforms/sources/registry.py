"""The list of sources, and the plan's entries made from their items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.versions import fingerprint_of
from echo_targets.transforms.sources.base import Item, Source, SourceError
from echo_targets.transforms.sources.common_voice import CommonVoiceSource
from echo_targets.transforms.sources.dialogues import DialoguesSource
from echo_targets.transforms.sources.folder import FolderSource
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.kaldi import KaldiSource
from echo_targets.transforms.sources.lhotse import LhotseSource
from echo_targets.transforms.sources.librispeech import LibriSpeechSource
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.mls import MlsSource
from echo_targets.transforms.sources.nemo import NemoSource
from echo_targets.transforms.sources.spoken import SpokenSource
from echo_targets.transforms.sources.webdataset import WebDatasetSource

AnySource = Annotated[
    CommonVoiceSource
    | DialoguesSource
    | FolderSource
    | HuggingFaceSource
    | KaldiSource
    | LhotseSource
    | LibriSpeechSource
    | ManifestSource
    | MlsSource
    | NemoSource
    | SpokenSource
    | WebDatasetSource,
    Field(discriminator="kind"),
]


def named(sources: Sequence[Source]) -> dict[str, Source]:
    """Return sources by a name that stays the same if others are added: the corpus, the split, and `#2` if repeated."""
    found, counts = dict[str, Source](), Counter[str]()
    for source in sources:
        name = f"{source.corpus}/{source.split}"
        counts[name] += 1
        found[f"{name}#{counts[name]}" if counts[name] > 1 else name] = source
    return found


def entries(sources: Sequence[Source]) -> Iterator[dict[str, Any]]:
    """Yield rows of the table `entries`: all items of all sources, in order. Repeated ids and turns become errors.

    Raises:
        SourceError: a source can't be listed, has no items, or has only bad ones; or its dialogues don't show who
            speaks first.
    """
    first_seen: dict[str, str] = {}
    turns: dict[tuple[str, int], str] = {}
    systems: dict[str, tuple[int, str]] = {}
    for name, source in named(sources).items():
        fingerprint = fingerprint_of([source.fingerprint_parameters(), source.weight_digests()])
        count, readable, first_error = 0, False, ""
        without_role: set[int] = set()
        for item in source.items():
            count, readable, first_error = count + 1, readable or item.error is None, first_error or item.error or ""
            if item.id not in first_seen:
                item = _checked_system(_checked_turn(item, turns), systems)
            if item.turn is not None and not item.role:
                without_role.add(item.turn)
            yield _entry(name, source, item, first_seen) | {"source_fingerprint": fingerprint}
        if without_role and 0 not in without_role:
            raise SourceError(
                f"{source.corpus}: no dialogue of {source.place} has a turn 0, so it is unclear who speaks first: "
                "number turns from 0 (even turns are the user's), or give each row a `role`"
            )
        if not count:
            raise SourceError(f"{source.corpus}: {source.place} has no items; correct its path or remove the source")
        if not readable:
            message = f"none of the {count} items of {source.place} can be ingested; the first error: {first_error}"
            raise SourceError(f"{source.corpus}: {message}")


def _checked_turn(item: Item, turns: dict[tuple[str, int], str]) -> Item:
    """Return the item, or an error item if another item has the same dialogue and turn."""
    if item.error is not None or item.dialogue_id is None or item.turn is None:
        return item
    turn = (item.dialogue_id, item.turn)
    first = turns.setdefault(turn, item.where)
    if first is item.where:
        return item
    message = (
        f"{item.where}: turn {item.turn} of dialogue {item.dialogue_id} is already at {first}; give each turn its own "
        "number"
    )
    return Item(id=item.where, where=item.where, error_class="duplicate_turn", error=message)


def _checked_system(item: Item, systems: dict[str, tuple[int, str]]) -> Item:
    """Return the item, or an error item if another item of its dialogue has another system text.

    Args:
        systems: by dialogue, the hash of its system text and the first item that has it.
    """
    if item.error is not None or item.dialogue_id is None or item.system is None:
        return item
    given, first = systems.setdefault(item.dialogue_id, (hash(item.system), item.where))
    if given == hash(item.system):
        return item
    message = (
        f"{item.where}: dialogue {item.dialogue_id} has another `system` text at {first}; write the same text at both, "
        "or only one"
    )
    return Item(id=item.where, where=item.where, error_class="bad_line", error=message)


def _entry(name: str, source: Source, item: Item, first_seen: dict[str, str]) -> dict[str, Any]:
    error = (item.error_class, item.error)
    key = item.id
    if item.error is None and key in first_seen:
        error = ("duplicate_id", f"{item.where}: id {key!r} is already used at {first_seen[key]}")
        key = item.where
    while key in first_seen:  # only if a source lists the same place twice
        key = f"{key}+"
    first_seen[key] = item.where
    role = item.role or ("narrator" if item.turn is None else ("user", "assistant")[item.turn % 2])
    return {
        KEY: key,
        "source": name,
        # Null for a readable item: its place in a manifest may change, and the entry must not.
        "where": item.where if error[1] else None,
        "locator": item.locator,
        "size": item.size,
        "timed_text": item.timed_text,
        "timed_text_sha256": item.timed_text_sha256,
        "error_class": error[0],
        "error": error[1],
        "seconds": _seconds(item),
        "start_seconds": item.start_seconds,
        "section_seconds": item.section_seconds,
        "declared_seconds": item.declared_seconds,
        "recording_id": item.recording_id,
        "overlap": item.overlap,
        "dialogue_id": item.dialogue_id,
        "turn": item.turn,
        "role": role,
        "corpus": source.corpus,
        "split": item.split or source.split,
        "language": item.language or source.language,
        "channel": source.channel if item.channel is None else item.channel,
        "speaker_id": item.speaker_id,
        "reference_text": item.text,
        "system_text": item.system,
        "license": source.license,
        "attempt": 0,
    }


def _seconds(item: Item) -> float:
    """Return the estimated seconds of an item, or of its section if it is one."""
    return item.section_seconds or max(0.0, item.seconds - (item.start_seconds or 0.0))

"""Spoken dialogues: each archive of the data set is unpacked to its own folder, with `data.json` next to the audio."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, ClassVar, Literal

from echo_targets.schemas.dataset.storage import is_url
from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import not_utf8
from echo_targets.transforms.sources.manifest import probed
from echo_targets.transforms.sources.record import Fields, item_from
from echo_targets.transforms.sources.values import BadLine, NamedValue, is_missing, place

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
FIELDS_OF_A_TURN = Fields(usual={"text": ("value", "content", "text"), "audio": ("audio",), "role": ()})
SYSTEM = "system"
"""The role whose text is the dialogue's system text, and the dialogue's key for the same."""


class DialoguesSource(Source):
    """Turns of dialogues in the layout of EchoX-Dialogues.

    `<tree>/<subset>/<archive>/data.json` is a list of objects with `conversations`, a list of turns: `from` (human or
    gpt; or `role`), `value` (the text; or `content`) and `audio`, a path relative to `data.json`. A turn from
    system, or the object's `system`, is the dialogue's system text.

    Attributes:
        tree: the folder that holds the subsets; a path or a URL.
        subsets: names of the subsets to take, such as ["S2S-QA/AudioQA"].
        roles: roles whose turns to take. A turn of these without audio is rejected; other turns are skipped.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["dialogues"]
    tree: str
    subsets: list[str]
    roles: list[Literal["user", "assistant"]] = ["user", "assistant"]

    def items(self) -> Iterator[Item]:
        tree = self.files(self.tree)
        found = [archive for subset in self.subsets for archive in self._archives(tree, subset)]
        with ThreadPoolExecutor(tree.probes) as pool:
            for archive in found:
                turns = self._turns(tree, archive)
                try:
                    while chunk := list(islice(turns, 1000)):
                        yield from pool.map(lambda turn: self._item(tree, *turn), chunk)
                except UnicodeDecodeError as error:
                    raise SourceError(f"{self.tree}/{archive}: {not_utf8(error)}") from error
                except (OSError, ValueError, RecursionError) as error:
                    raise SourceError(f"{self.tree}/{archive}: {error}") from error

    def open(self, locator: str) -> Raw:
        return self.files(self.tree).open(locator)

    def _archives(self, tree: Files, subset: str) -> list[str]:
        try:
            found = tree.find(subset, depth=1, suffix="data.json")
        except OSError as error:
            raise SourceError(f"{self.tree}/{subset}: {error}") from error
        if not found:
            raise SourceError(
                f"{self.tree}/{subset}: has no <archive>/data.json; unpack each archive to its own folder"
            )
        return found

    def _turns(self, tree: Files, archive: str) -> Iterator[tuple[str, int, NamedValue | BadLine | None, int, Any]]:
        """Yield the turns to take: `data.json`, the dialogue's index and system text, the turn's number, the turn."""
        with tree.stream(archive) as file:
            dialogues = json.load(file)
        if not isinstance(dialogues, list):
            raise SourceError(f"{self.tree}/{archive}: expected a list of dialogues")
        for number, dialogue in enumerate(dialogues):
            turns = dialogue.get("conversations") if isinstance(dialogue, dict) else None
            if not isinstance(turns, list):
                yield archive, number, None, 0, None
                continue
            spoken = [turn for turn in turns if _value(turn, "from", "role") != SYSTEM]
            system = _system_of(dialogue, turns)
            for turn_number, turn in enumerate(spoken):
                role = ROLES.get(str(_value(turn, "from", "role")))
                if role is None or role in self.roles:
                    yield archive, number, system, turn_number, turn

    def _item(
        self,
        tree: Files,
        archive: str,
        number: int,
        system: NamedValue | BadLine | None,
        turn_number: int,
        turn: Any,
    ) -> Item:
        where = f"{archive}[{number}] turn {turn_number}"
        folder = archive.rpartition("/")[0]
        dialogue = f"{self.corpus}-{folder.replace('/', '-')}-{number:06d}"
        try:
            if turn is None:
                raise BadLine("is not an object with a list 'conversations'")
            if isinstance(system, BadLine):
                raise system
            _check_text(turn)
            role = ROLES.get(str(_value(turn, "from", "role")))
            if role is None:
                raise BadLine(f"has the role {_value(turn, 'from', 'role')!r}; expected one of {', '.join(ROLES)}")
            fields = FIELDS_OF_A_TURN(turn)
            if "audio" not in fields:
                raise BadLine(f"has no audio; if only the others speak, leave {role} out of the source's roles")
            known = {name: (name, value) for name, value in (("dialogue_id", dialogue), ("turn", turn_number))}
            known |= {"id": ("id", f"{dialogue}-{turn_number}"), "role": ("role", role)}
            known |= {"system": system} if system else {}
            locator = place(fields["audio"])
            return probed(
                tree, item_from(fields | known, where), locator if is_url(locator) else os.path.join(folder, locator)
            )
        except BadLine as error:
            return bad_line(where, f"{where} {error}")


def _system_of(dialogue: dict[str, Any], turns: list[Any]) -> NamedValue | BadLine | None:
    """Return a dialogue's system text with its key, None if it has none, or what is wrong if it has several."""
    found = [(SYSTEM, _value(dialogue, SYSTEM))]
    found += [("value", _value(turn, "value", "content")) for turn in turns if _value(turn, "from", "role") == SYSTEM]
    found = [named for named in found if named[1] is not None]
    if len({str(value).strip(BLANK) for _, value in found}) > 1:
        return BadLine("belongs to a dialogue with several system texts: join them, or keep one")
    return found[0] if found else None


def _check_text(turn: Any) -> None:
    try:
        json.dumps(turn, ensure_ascii=False).encode()  # half a surrogate pair is not text
    except UnicodeEncodeError as error:
        raise BadLine(f"is not text ({error})") from error


def _value(turn: Any, *names: str) -> Any:
    """Return the first of a turn's values that is not missing."""
    found = (turn[name] for name in names if name in turn) if isinstance(turn, dict) else ()
    return next((value for value in found if not is_missing(value)), None)

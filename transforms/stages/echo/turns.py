"""User turns, joined with the dialogue before them and with their replies."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import ALIGNMENTS, KEY, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.transforms.base import joined


def user_turns(utterances: pa.Table) -> pa.Table:
    """Return the rows that need a reply: the user turns of dialogues."""
    is_user = pc.equal(utterances["role"].cast(pa.string()), "user")
    return utterances.filter(pc.and_(is_user, pc.is_valid(utterances["dialogue_id"])))


def with_dialogue(
    users: pa.Table, shard: Mapping[str, pa.Table], history_turns: int | None = None
) -> tuple[pa.Table, list[list[str]]]:
    """Join each user turn with its dialogue.

    Args:
        users: user turns of the table `utterances`.
        shard: the shard's tables by name.
        history_turns: how many of the user turns before this one to keep, the latest ones; None for all.

    Returns:
        The rows, and for each row the keys of the user turns that are kept. New columns:

        - `transcripts`: the turn's own.
        - `user_audio_ids`: the keys of the user turns that are kept; this one is last.
        - `earlier`: the replies to these but this one, a list of structs of their rows by table.
        - `reply`: the reply to this turn, such a struct.
    """
    users = joined(users, TRANSCRIPTS, shard.get("transcripts"))
    turns = {
        (row["dialogue_id"], row["turn"]): row
        for row in shard["utterances"].select(["dialogue_id", "turn", "role", KEY]).to_pylist()
    }
    audio_ids, earlier, replies = [], [], []
    for user in users.select(["dialogue_id", "turn"]).to_pylist():
        so_far = [turns.get((user["dialogue_id"], turn)) for turn in range(user["turn"] + 2)]
        pairs = [(so_far[turn], so_far[turn + 1]) for turn in range(user["turn"] + 1)]
        answered = [(turn[KEY], _assistant_key(reply)) for turn, reply in pairs if turn and turn["role"] == "user"]
        if history_turns is not None:
            answered = answered[max(0, len(answered) - 1 - history_turns) :]
        audio_ids.append([key for key, _ in answered])
        earlier.append([reply for _, reply in answered[:-1]])
        replies.append(answered[-1][1])
    users = users.append_column("user_audio_ids", pa.array(audio_ids, pa.list_(pa.string())))
    flat = [key for keys in earlier for key in keys]
    users = users.append_column("earlier", lists_like(earlier, _replies(flat, shard)))
    return users.append_column("reply", _replies(replies, shard)), audio_ids


def reply_text(reply: dict[str, Any]) -> str | None:
    """Return a reply's reference text, else its transcript; None without either."""
    utterance, transcript = reply["utterances"], reply["transcripts"]
    if utterance is None:
        return None
    text: str | None = utterance["reference_text"] or (transcript and transcript["text"])
    return text.strip() if text else None


def lists_like(lists: list[list[Any]], values: pa.Array) -> pa.Array:
    """Return the values in lists of the lengths of `lists`."""
    offsets = pa.array([0, *accumulate(map(len, lists))], pa.int64())
    return pa.LargeListArray.from_arrays(offsets, values)


def _assistant_key(turn: dict[str, Any] | None) -> str | None:
    return str(turn[KEY]) if turn and turn["role"] == "assistant" else None


def _replies(keys: list[str | None], shard: Mapping[str, pa.Table]) -> pa.StructArray:
    """Return structs of the rows of replies, by table; null where a table has none."""
    rows = pa.table({"reply_id": pa.array(keys, pa.string())})
    rows = joined(rows, UTTERANCES, shard["utterances"], "reply_id")
    for table in (TRANSCRIPTS, ALIGNMENTS, UNITS):
        rows = joined(rows, table, shard.get(table.name), "reply_id")
    structs = rows.combine_chunks().to_struct_array()
    return structs.combine_chunks() if isinstance(structs, pa.ChunkedArray) else structs

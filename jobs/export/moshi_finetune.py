"""moshi-finetune (kyutai-labs): stereo dialogues on one time axis, with the words of the model's channel.

train.jsonl                               path, duration in seconds
data_stereo/train-00000/DIALOGUE.wav      16 kHz; left is the model's voice, right the user's
data_stereo/train-00000/DIALOGUE.json     {"alignments": [[word, [start s, end s], "SPEAKER_MAIN"], …]}
"""

from __future__ import annotations

import io
import wave
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from echo_targets.jobs.export.base import OUT, Format, Tick, Wrote
from echo_targets.jobs.export.files import FileWriter, join, json_line, part
from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.source import Piece, Source
from echo_targets.jobs.export.time_axis import starts_of
from echo_targets.schemas import ALIGNMENTS, ENTRIES, KEY, SAMPLE_RATE, TRANSCRIPTS, UTTERANCES
from echo_targets.schemas.dataset.storage import Storage
from echo_targets.schemas.errors import UserError

SPEAKER = "SPEAKER_MAIN"
CHANNELS = {"assistant": 0, "user": 1}
PARTIAL = "another turn of its dialogue has another split or is left out by a filter"

Row = Mapping[str, Any]


class MoshiFinetune(Format):
    """Whole dialogues without a system text: those of which each turn passes the filters, and each reply is aligned.

    Its `text_conditions` are no place for a system text: they need a model with conditioners, which Moshi has not.
    """

    name: ClassVar[str] = "moshi-finetune"

    def open(self, version: str | None, filters: Sequence[str]) -> list[Source]:
        joins = (ALIGNMENTS.name, TRANSCRIPTS.name, ENTRIES.name)
        source = Source(self.dataset, UTTERANCES.name, version, joins, filters)
        if ALIGNMENTS.name in source.left_out:
            raise UserError(
                f"{self.dataset.root}: no alignments of these utterances, but {self.name} takes the times of the "
                "replies' words. Run the job with the stage align."
            )
        texts = {text for (text,) in source.values(["system_text"])}
        if texts and None not in texts:
            raise UserError(
                f"{self.dataset.root}: all utterances have a system text, for which {self.name} has no place. Export "
                "another format, or ingest dialogues without one: list `system` under the source's `ignore`."
            )
        return [source]

    def write(self, out: Storage, piece: Piece, tick: Tick) -> Wrote:
        left_out, lines, rows = Counter[str](), list[bytes](), 0
        split = safe_name(piece.split)
        with FileWriter(out) as files:
            for name, turns in _dialogues(piece, left_out, tick):
                if reason := _reason(turns):
                    left_out[reason] += len(turns)
                    continue
                path = f"data_stereo/{split}-{piece.number:05d}/{safe_name(name)}"
                samples, words = _on_one_axis(turns)
                files.put(f"{path}.wav", _wav(samples))
                files.put(f"{path}.json", json_line({"alignments": words}))
                lines.append(json_line({"path": f"{path}.wav", "duration": len(samples) / SAMPLE_RATE}))
                rows += len(turns)
        out.write(part(split, piece.number), b"".join(lines))
        return Wrote(rows, left_out)

    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        parts: dict[str, list[str]] = {}
        for piece, wrote in done:
            if wrote.rows:
                split = safe_name(piece.split)
                parts.setdefault(split, []).append(part(split, piece.number))
        for split, names in parts.items():
            join(out, f"{split}.jsonl", names)
        return [f"data: {{train_data: {OUT}/{split}.jsonl}}" for split in parts]


def _dialogues(piece: Piece, left_out: Counter[str], tick: Tick) -> Iterator[tuple[str, list[Row]]]:
    """Yield the name and turns of each dialogue of a piece; count the rows of no whole dialogue in `left_out`."""
    keys = piece.source.read(piece.shard, UTTERANCES.name, ["dialogue_id"])
    sizes = Counter(keys["dialogue_id"].to_pylist())  # with turns that a filter leaves out
    waiting = defaultdict[str, list[Row]](list)
    for turn in _turns(piece, tick):
        name = turn["dialogue_id"]
        if name is None:
            left_out["it belongs to no dialogue"] += 1
            continue
        waiting[name].append(turn)
        if len(waiting[name]) == sizes[name]:
            yield name, sorted(waiting.pop(name), key=lambda turn: turn["turn"])
    if waiting:
        left_out[PARTIAL] += sum(map(len, waiting.values()))


def _turns(piece: Piece, tick: Tick) -> Iterator[Row]:
    """Yield the rows of a piece, each with its alignment and transcript."""
    columns = [KEY, "dialogue_id", "turn", "role", "reference_text", "system_text", "synthetic", "audio"]
    joins = {
        ALIGNMENTS.name: ALIGNMENTS.columns,
        TRANSCRIPTS.name: [KEY, "text"],
        ENTRIES.name: [KEY, "source", "locator", "start_seconds", "channel"],
    }
    for batch in piece.source.batches(piece, columns, joins):
        yield from batch.to_pylist()
        tick(len(batch))


def _reason(turns: Sequence[Row]) -> str | None:
    """Return why a dialogue can't be expressed, or None if it can."""
    if any(turn["role"] not in CHANNELS for turn in turns):
        return "its dialogue has a speaker who is neither user nor assistant"
    if turns[0]["system_text"] is not None:
        return "its dialogue has a system text"
    replies = [turn for turn in turns if turn["role"] == "assistant"]
    if not replies:
        return "its dialogue has no reply"
    words = [turn[ALIGNMENTS.name] for turn in replies]
    if any(each is None or each["status"] == "failed" or each["tier"] != "word" for each in words):
        return "a reply of its dialogue has no word alignment"
    if any(item["start_sample"] is None for each in words for item in each["items"]):
        return "a reply of its dialogue has a word without times"
    return None


def _on_one_axis(turns: Sequence[Row]) -> tuple[np.ndarray, list[Any]]:
    """Return a dialogue's samples, (N, 2) int16, and the words of its replies, sorted by start."""
    decoded = [_decode(turn) for turn in turns]
    lengths = [len(samples) for samples in decoded]
    starts = starts_of(turns, lengths)
    total = max(start + length for start, length in zip(starts, lengths, strict=True))
    stereo = np.zeros((total, len(CHANNELS)), np.int16)
    words = list[Any]()
    for turn, samples, start in zip(turns, decoded, starts, strict=True):
        stereo[start : start + len(samples), CHANNELS[turn["role"]]] = samples
        if turn["role"] == "assistant":
            words += [[word, [start + first, start + last], SPEAKER] for word, first, last in _words(turn)]
    words.sort(key=lambda word: word[1])
    return stereo, [[word, [sample / SAMPLE_RATE for sample in span], speaker] for word, span, speaker in words]


def _words(turn: Row) -> Iterator[tuple[str, int, int]]:
    """Yield the words of a turn with the punctuation around them, and their first and last samples."""
    alignment = turn[ALIGNMENTS.name]
    transcript = turn.get(TRANSCRIPTS.name) or {}
    text = turn["reference_text"] if alignment["text_source"] == "reference" else transcript.get("text")
    items = alignment["items"]
    spelled = [item["symbol"] for item in items] if text is None else _with_punctuation(text, items)
    for word, item in zip(spelled, items, strict=True):
        yield word, item["start_sample"], item["end_sample"]


def _with_punctuation(text: str, items: Sequence[Row]) -> list[str]:
    """Return the stretch of a text that each word stands for, which together are the text but for white space."""
    borders = [0, *(_border(text, one["char_end"], two["char_start"]) for one, two in pairwise(items)), len(text)]
    return [text[start:end].strip() for start, end in pairwise(borders)]


def _border(text: str, end: int, start: int) -> int:
    """Return where a word's punctuation ends and that of the next begins: at the last space between them."""
    space = max((place for place in range(end, start) if text[place].isspace()), default=None)
    return start if space is None else space + 1


def _decode(turn: Row) -> np.ndarray:
    import soundfile

    try:
        samples, _ = soundfile.read(io.BytesIO(turn["audio"]["bytes"]), dtype="int16")
    except soundfile.SoundFileError as error:
        raise UserError(f"{turn[KEY]}: damaged audio ({error}). Run `echo-targets check` for details.") from error
    return np.asarray(samples)


def _wav(samples: np.ndarray) -> bytes:
    """Return (N, channels) int16 samples as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(samples.dtype.itemsize)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.astype("<i2", copy=False).data)
    return file.getvalue()

"""Stand-ins that draw any number of rows of ingest, transcribe, tokenize and echo from a seed, without audio.

Every value depends only on the row's key, and whole batches are drawn at once in numpy, so that the pipeline dominates
the time. Units come from the shipped unit language, whose words and counts are those of real speech; ten variants of
each of its 100 units make a codebook of 1000. The distribution of durations was counted on LibriSpeech.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from json import loads
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echo_targets.schemas import ECHO_TARGETS, ENTRIES, KEY, SAMPLE_RATE, TRANSCRIPTS, UNITS, UTTERANCES, Table
from echo_targets.schemas.tables.base import AUDIO, CATEGORY
from echo_targets.schemas.tables.targets import TARGET
from echo_targets.transforms.base import Output, Parameters, Reject, Transform, joined
from echo_targets.transforms.stages.echo.turns import user_turns

HOP = 320
LANGUAGE_UNITS, SHADES = 100, 10
MAX_WORD_UNITS = 4
CHARS_PER_TOKEN, TOKENS_PER_SEGMENT, SECONDS_PER_SEGMENT, WORDS_PER_SECOND = 4, 12, 10, 2.6
CHUNK = 10_000

Integers = NDArray[np.int64]
Bits = NDArray[np.uint64]


@dataclass(frozen=True)
class Corpus:
    """A corpus of the design: its items and hours, and whether its items are turns of dialogues."""

    name: str
    items: int
    hours: float
    dialogues: bool = False
    reference: bool = True


CORPORA = (
    Corpus("librispeech", 281_241, 960),
    Corpus("mls", 723_636, 3_000),
    Corpus("audioqa", 178_576, 989, reference=False),
    Corpus("speechinstruct", 31_563, 84),
    Corpus("hh-rlhf-speech", 124_945, 656),
    Corpus("sharechatx", 43_223, 178, dialogues=True),
    Corpus("magpie-pro-speech", 117_000, 327, dialogues=True),
)

# Number of units that last 1, 2, 3, … frames, among 55,723 units of 39 minutes of LibriSpeech.
DURATIONS = (24298, 15410, 8339, 4194, 1748, 770, 406, 219, 137, 83, 44, 34, 19, 9, 5, 2, 6)


def draw(seeds: Bits, counts: Integers, stream: int) -> Bits:
    """Return 64 random bits for each element of ragged rows, from the row's seed and the index (splitmix64)."""
    starts = np.cumsum(counts) - counts
    place = np.arange(counts.sum()) - np.repeat(starts, counts)
    bits = np.repeat(seeds + np.uint64(stream << 40), counts) + (place.astype(np.uint64) + 1) * np.uint64(
        0x9E3779B97F4A7C15
    )
    bits = (bits ^ (bits >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> 27)) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> 31)


def uniform(bits: Bits) -> NDArray[np.float64]:
    """Convert random bits to numbers in (0, 1)."""
    return ((bits >> 11).astype(np.float64) + 0.5) / 2**53


def seeds_of(keys: pa.ChunkedArray) -> Bits:
    """Return a seed per row."""
    return np.fromiter((zlib.crc32(key.encode()) << 32 for key in keys.to_pylist()), np.uint64, len(keys))


def ranked(counts: NDArray[np.float64], size: int) -> Integers:
    """Return a table of `size` positions, each occurring in proportion to its count, to draw from by index."""
    return np.searchsorted(np.cumsum(counts) / counts.sum(), (np.arange(size) + 0.5) / size)


@cache
def _language() -> tuple[Integers, NDArray[np.int32], NDArray[np.bool_]]:
    """Return words to draw from, and each word's units (padded) with a mask."""
    language = loads((files("echo_targets.transforms.assets") / "unit-language-k100.json").read_text())
    words: list[list[int]] = language["vocabulary"]
    units = np.array([word + [0] * (MAX_WORD_UNITS - len(word)) for word in words], np.int32)
    there = np.arange(MAX_WORD_UNITS) < np.array([len(word) for word in words])[:, None]
    return ranked(np.array(language["counts"], float), 2**16), units, there


@cache
def _duration() -> NDArray[np.int32]:
    return (ranked(np.array(DURATIONS, float), 2**8) + 1).astype(np.int32)


@dataclass(frozen=True)
class Units:
    """Concatenated unit sequences of all rows: units and durations with their number per row, and words with theirs."""

    units: NDArray[np.int32]
    durations: NDArray[np.int32]
    runs: Integers
    words: NDArray[np.int32]
    word_counts: Integers


def units_of(seeds: Bits, frames: Integers, stream: int) -> Units:
    """Draw collapsed units that last for the given numbers of frames."""
    language, vocabulary, there = _language()
    duration = _duration()
    wanted = frames // 5 + 16  # a word has 5.7 frames on average
    bits = draw(seeds, wanted, stream)
    row = np.repeat(np.arange(len(frames)), wanted)
    word, shade = language[bits & 0xFFFF], ((bits >> 16) & 0xFFFF).astype(np.int64) % SHADES
    first, last = vocabulary[:, 0], vocabulary[np.arange(len(vocabulary)), there.sum(axis=1) - 1]
    while True:
        repeats = (first[word[1:]] == last[word[:-1]]) & (shade[1:] == shade[:-1]) & (row[1:] == row[:-1])
        if not repeats.any():
            break
        keep = np.concatenate([[True], ~repeats])
        bits, row, word, shade = bits[keep], row[keep], word[keep], shade[keep]
    shifts = np.arange(32, 64, 8, dtype=np.uint64)
    lasts = duration[(bits[:, None] >> shifts).astype(np.uint8)] * there[word]
    ends = np.cumsum(lasts.sum(axis=1, dtype=np.int64))
    starts_of_rows = np.searchsorted(row, np.arange(len(frames)))
    ends -= np.repeat(np.concatenate([[0], ends])[starts_of_rows], np.bincount(row, minlength=len(frames)))
    keep = ends <= frames[row]
    word, shade, row, lasts, ends = word[keep], shade[keep], row[keep], lasts[keep], ends[keep]
    word_counts = np.bincount(row, minlength=len(frames))
    runs = np.bincount(row, weights=there[word].sum(axis=1), minlength=len(frames)).astype(np.int64)
    mask = there[word]
    durations = lasts[mask]
    durations[np.cumsum(runs) - 1] += (frames - ends[np.cumsum(word_counts) - 1]).astype(np.int32)
    units = (vocabulary[word] * np.int32(SHADES) + shade[:, None].astype(np.int32))[mask]
    return Units(units, durations, runs, (word * SHADES + shade).astype(np.int32), word_counts)


@cache
def _lexicon() -> tuple[Integers, pa.Array]:
    """Return English words to draw from."""
    sentences = (files("echo_targets.jobs.corpora") / "nano_sentences.jsonl").read_text().splitlines()
    counts = Counter(re.findall(r"[a-z']+", " ".join(loads(line)["text"] for line in sentences).lower()))
    return ranked(np.array(list(counts.values()), float), 2**16), pa.array(list(counts))


def texts_of(seeds: Bits, seconds: NDArray[np.float64], stream: int) -> pa.StringArray:
    """Draw texts as long as speech of the given durations in seconds."""
    lexicon, words = _lexicon()
    counts = (seconds * WORDS_PER_SECOND).astype(np.int64) + 1
    drawn = words.take(pa.array(lexicon[draw(seeds, counts, stream) & 0xFFFF]))
    return pc.binary_join(lists(counts, drawn, pa.list_(pa.string())), " ")


def offsets(counts: Integers) -> pa.Int32Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())


def lists(counts: Integers, values: Any, kind: pa.DataType) -> pa.ListArray:
    """Return a list column from the rows' lengths and the concatenated elements."""
    elements = values if isinstance(values, pa.Array) else pa.array(values, kind.value_type)
    return pa.ListArray.from_arrays(offsets(counts), elements, type=kind)


def pieces(counts: Integers, parts: Integers) -> Integers:
    """Return lengths that divide each row's count into the given number of about equal parts."""
    part = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    count, of = np.repeat(counts, parts), np.repeat(parts, parts)
    return (part + 1) * count // of - part * count // of


def cut_texts(texts: pa.StringArray, lengths: Integers) -> pa.StringArray:
    """Cut concatenated ASCII text into strings of the given lengths."""
    whole = pa.concat_arrays([texts])
    return pa.StringArray.from_buffers(len(lengths), offsets(lengths).buffers()[1], whole.buffers()[2])


def category(value: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def entries(fraction: float, more: int = 0) -> Iterator[dict[str, Any]]:
    """Yield rows of the table `entries`, for the given share of every corpus, and `more` rows of the last corpus."""
    for corpus in CORPORA:
        items = round(corpus.items * fraction) + (more if corpus is CORPORA[-1] else 0)
        for start in range(0, items, CHUNK):
            yield from _entries(corpus, np.arange(start, min(start + CHUNK, items))).to_pylist()


def _entries(corpus: Corpus, numbers: Integers) -> pa.Table:
    count = len(numbers)
    turn = numbers % 2 if corpus.dialogues else None
    names = pa.array([f"{corpus.name}-{number // 2 if corpus.dialogues else number:07d}" for number in numbers])
    keys = names if turn is None else pc.binary_join_element_wise(names, pa.array(turn).cast(pa.string()), "-")
    seeds = seeds_of(keys)
    four = uniform(draw(seeds, np.full(count, 4), 0)).reshape(count, 4)
    seconds = 1 - np.log(four).sum(axis=1) / 4 * (corpus.hours * 3600 / corpus.items - 1)
    roles = pa.array(["user", "assistant"]).take(pa.array(turn)) if turn is not None else pa.repeat("narrator", count)
    values: dict[str, Any] = {
        KEY: keys,
        "source": pa.repeat(f"{corpus.name}/train", count),
        "source_fingerprint": pa.repeat("0" * 16, count),
        "locator": pc.binary_join_element_wise("audio", keys, "/"),
        "size": pa.array((seconds * 32_000).astype(np.int64)),
        "seconds": pa.array(seconds.astype(np.float32)),
        "dialogue_id": names if corpus.dialogues else None,
        "turn": pa.array(turn, pa.int16()) if corpus.dialogues else None,
        "role": roles,
        "corpus": pa.repeat(corpus.name, count),
        "split": pa.repeat("train", count),
        "language": pa.repeat("en", count),
        "channel": pa.array(np.full(count, -1, np.int8)),
        "speaker_id": pa.array(seeds >> 56).cast(pa.string()),
        "reference_text": texts_of(seeds, seconds, 1) if corpus.reference else None,
        "license": pa.repeat("CC-BY-4.0", count),
        "attempt": pa.array(np.zeros(count, np.int16)),
    }
    return table(values, ENTRIES, count)


def table(values: Mapping[str, Any], kind: Table, count: int) -> pa.Table:
    """Return columns in a table's order; missing ones are null."""
    found = [values.get(field.name) for field in kind.schema]
    arrays = [
        pa.array([None] * count, field.type) if array is None else array
        for array, field in zip(found, kind.schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=kind.schema)


class StandInParameters(Parameters):
    """Parameters of a stand-in.

    Attributes:
        notes: folder in which each worker records the seconds that it spent drawing rows.
    """

    notes: str = ""


class StandIn(Transform):
    """Base class of stages that draw their rows."""

    version: ClassVar[int] = 1
    Parameters = StandInParameters
    parameters: StandInParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def drawn(self, batch: pa.Table) -> Output:
        """Draw the stage's output for a batch."""

    def __call__(self, batch: pa.Table) -> Output:
        started = time.perf_counter()
        output = self.drawn(batch)
        with (Path(self.parameters.notes) / f"{self.name}.{os.getpid()}").open("a") as note:
            note.write(f"{time.perf_counter() - started}\n")
        return output


class Ingest(StandIn):
    """Draws utterances without audio bytes."""

    name: ClassVar[str] = "ingest"
    reads = (ENTRIES,)
    writes = UTTERANCES

    def costs(self, rows: pa.Table) -> list[int]:
        return pc.multiply(rows["seconds"], float(SAMPLE_RATE)).cast(pa.int64(), safe=False).to_pylist()

    def drawn(self, batch: pa.Table) -> Output:
        batch = batch.combine_chunks()
        count = len(batch)
        bits = draw(seeds_of(batch[KEY]), np.full(count, 4), 2)
        paths = pc.binary_join_element_wise(batch["locator"], "", ".flac").combine_chunks()
        seconds = batch["seconds"].to_numpy().astype(np.float64)
        same = {name: batch[name] for name in UTTERANCES.columns if name in batch.column_names}
        same |= {name: batch[name].cast(CATEGORY) for name in ("role", "corpus", "split", "language", "license")}
        return Output(
            table(
                same
                | {
                    "audio": pa.StructArray.from_arrays([pa.nulls(count, pa.binary()), paths], fields=list(AUDIO)),
                    "audio_sha256": pa.FixedSizeBinaryArray.from_buffers(
                        pa.binary(32), count, [None, pa.py_buffer(bits.tobytes())]
                    ).cast(pa.binary()),
                    "sampling_rate": pa.array(np.full(count, SAMPLE_RATE, np.int32)),
                    "num_samples": pa.array(np.round(seconds * SAMPLE_RATE).astype(np.int64)),
                    "synthetic": pa.repeat(False, count),
                },
                UTTERANCES,
                count,
            )
        )


class Transcribe(StandIn):
    """Uses the reference as the transcript, or draws one; rejects one row in a thousand."""

    name: ClassVar[str] = "transcribe"
    reads = (UTTERANCES,)
    writes = TRANSCRIPTS

    def drawn(self, batch: pa.Table) -> Output:
        seeds = seeds_of(batch[KEY])
        silent = seeds % 1009 == 0
        rejects = [
            Reject(key, "no_speech", f"{key}: drawn to be silent") for key in batch[KEY].filter(silent).to_pylist()
        ]
        batch, seeds = batch.filter(~silent).combine_chunks(), seeds[~silent]
        count = len(batch)
        samples = batch["num_samples"].to_numpy()
        seconds = samples / SAMPLE_RATE
        text = pc.coalesce(batch["reference_text"].combine_chunks(), texts_of(seeds, seconds, 3))
        chars = pc.utf8_length(text).to_numpy().astype(np.int64)
        segments = (seconds / SECONDS_PER_SEGMENT).astype(np.int64) + 1
        borders = np.cumsum(pieces(samples, segments)) - np.repeat(np.cumsum(samples) - samples, segments)
        starts = np.where(
            np.arange(segments.sum()) - np.repeat(np.cumsum(segments) - segments, segments), np.roll(borders, 1), 0
        )
        chance = uniform(draw(seeds, segments, 4)).astype(np.float32)
        kind = TRANSCRIPTS.schema.field("segments").type
        said = [
            pa.array(starts),
            pa.array(borders),
            cut_texts(text, pieces(chars, segments)),
            pa.array(-chance),
            pa.array(chance**8),
            pa.array(1 + chance),
        ]
        one = uniform(draw(seeds, np.ones(count, np.int64), 5)).astype(np.float32)
        wer = pa.array(np.round(-np.log(one) * np.float32(0.08), 4))
        referenced = pc.is_valid(batch["reference_text"])
        values = {
            KEY: batch[KEY],
            "text": text,
            "text_normalized": text,
            "language": category("en", count),
            "language_prob": pa.array(np.round(1 - one / 10, 4)),
            "segments": lists(segments, pa.StructArray.from_arrays(said, fields=list(kind.value_type)), kind),
            "wer_vs_reference": pc.if_else(referenced, wer, None),
            "wer_unit": pc.if_else(referenced, "word", None).dictionary_encode(),
            "chars_per_s": pa.array((chars / seconds).astype(np.float32)),
            "flags": lists(
                np.zeros(count, np.int64), pa.array([], pa.string()), TRANSCRIPTS.schema.field("flags").type
            ),
        }
        return Output(table(values, TRANSCRIPTS, count), rejects)


class Tokenize(StandIn):
    """Draws units of the codebook's size that last as long as the audio."""

    name: ClassVar[str] = "tokenize"
    reads = (UTTERANCES,)
    writes = UNITS

    def drawn(self, batch: pa.Table) -> Output:
        count = len(batch)
        frames = -(-batch["num_samples"].to_numpy() // HOP)
        found = units_of(seeds_of(batch[KEY]), frames, 6)
        kinds = {field.name: field.type for field in UNITS.schema}
        units = lists(found.runs, found.units, kinds["units"].value_type)
        values = {
            KEY: batch[KEY],
            "codebook_id": category("rehearsal-k1000", count),
            "codebook_size": pa.array(np.full(count, LANGUAGE_UNITS * SHADES, np.int32)),
            "num_codebooks": pa.array(np.ones(count, np.int8)),
            "layer": pa.array(np.full(count, 9, np.int8)),
            "sampling_rate": pa.array(np.full(count, SAMPLE_RATE, np.int32)),
            "hop_samples": pa.array(np.full(count, HOP, np.int16)),
            "num_frames": pa.array(frames, pa.int32()),
            "units": lists(np.ones(count, np.int64), units, kinds["units"]),
            "durations": lists(found.runs, found.durations, kinds["durations"]),
            "unit_words": lists(found.word_counts, found.words, kinds["unit_words"]),
            "unit_language_id": category("rehearsal-words", count),
        }
        return Output(table(values, UNITS, count))


class Echo(StandIn):
    """Draws targets as long as the spoken reply, in segments of a few tokens, with the recorded units of the reply."""

    name: ClassVar[str] = "echo"
    reads = (UTTERANCES, UNITS)
    writes = ECHO_TARGETS

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        users = user_turns(window)
        users = users.append_column("reply_id", pc.binary_join_element_wise(users["dialogue_id"], "1", "-"))
        for other in self.reads:
            users = joined(users, other, shard[other.name], "reply_id")
        return users

    def drawn(self, batch: pa.Table) -> Output:
        alone = pc.is_null(batch["utterances"])
        rejects = [Reject(key, "no_reply", f"{key}: no reply") for key in batch[KEY].filter(alone).to_pylist()]
        batch = batch.filter(pc.invert(alone)).combine_chunks()
        count, seeds = len(batch), seeds_of(batch[KEY])
        reply, units = batch["utterances"].combine_chunks(), batch["units"].combine_chunks()
        text = pc.struct_field(reply, "reference_text")
        frames = -(-pc.struct_field(reply, "num_samples").to_numpy() // HOP)
        chars = pc.utf8_length(text).to_numpy().astype(np.int64)
        tokens = chars // CHARS_PER_TOKEN + 1
        segments = tokens // TOKENS_PER_SEGMENT + 1
        found = units_of(seeds, frames, 7)
        recorded = pc.list_flatten(pc.struct_field(units, "units"))
        recorded_runs = pc.list_value_length(recorded).to_numpy().astype(np.int64)
        char_ends = np.cumsum(pieces(chars, segments)) - np.repeat(np.cumsum(chars) - chars, segments)
        kinds = {field.name: field.type for field in ECHO_TARGETS.schema}
        chance = uniform(draw(seeds, segments, 8)).astype(np.float32)
        vocabulary = np.uint64(128_000)

        of_target = {field.name: field.type for field in TARGET}

        def cut(runs: Integers, values: Any) -> pa.ListArray:
            kind = of_target["units"]
            ones = lists(pieces(runs, segments), values, kind.value_type.value_type)
            return lists(segments, lists(np.ones(len(ones), np.int64), ones, kind.value_type), kind)

        def target(units: pa.ListArray, **more: pa.Array) -> pa.StructArray:
            whole: dict[str, Any] = {"sampling_rate": SAMPLE_RATE, "hop_samples": HOP, "num_codebooks": 1}
            whole |= {"codebook_id": "rehearsal-k1000", "codebook_size": LANGUAGE_UNITS * SHADES}
            said = {name: pa.repeat(pa.scalar(value, of_target[name]), count) for name, value in whole.items()}
            said |= {"units": units} | more
            fields = [said.get(name, pa.nulls(count, kind)) for name, kind in of_target.items()]
            return pa.StructArray.from_arrays(fields, fields=list(TARGET))

        values = {
            KEY: batch[KEY],
            "dialogue_id": batch["dialogue_id"],
            "turn": batch["turn"],
            "user_audio_ids": lists(np.ones(count, np.int64), batch[KEY].combine_chunks(), kinds["user_audio_ids"]),
            "asr_target_ids": lists(tokens, draw(seeds, tokens, 9) % vocabulary, kinds["asr_target_ids"]),
            "assistant_after_audio_shift": pa.array(np.full(count, 5, np.int32)),
            "response_text": text,
            "response_token_ids": lists(tokens, draw(seeds, tokens, 10) % vocabulary, kinds["response_token_ids"]),
            "sub_lengths": lists(segments, pieces(tokens, segments), kinds["sub_lengths"]),
            "segment_char_ends": lists(segments, char_ends, kinds["segment_char_ends"]),
            "seed": pa.array(np.zeros(count, np.int64)),
            "t2c": target(
                cut(found.runs, found.units),
                mean_logprob=lists(segments, np.round(np.log(chance) * np.float32(0.3), 4), of_target["mean_logprob"]),
                unit_error_rate=pa.array(np.round(chance[np.cumsum(segments) - 1], 4)),
                stop_reason=lists(
                    segments,
                    pa.array(["end", "length"]).take(pa.array((chance > 0.999).astype(np.int8))),
                    of_target["stop_reason"],
                ),
            ),
            "recorded": target(cut(recorded_runs, pc.list_flatten(recorded))),
            "response_source": category("reference", count),
        }
        named = ("prompt_template_id", "tokenizer_id", "echo_model_id")
        return Output(
            table(values | {name: category("rehearsal", count) for name in named}, ECHO_TARGETS, count), rejects
        )

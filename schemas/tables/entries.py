"""entries: the plan of an ingest, with one row for each item that a source lists, readable or not."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import KEY, ORIGIN, RECORDING, TURN, Rule, Table, column
from echo_targets.schemas.tables.rules import not_empty_rule, range_rule, trimmed_rule

ENTRIES = Table(
    name="entries",
    version="1.5.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("source", pa.string()),
            column("source_fingerprint", pa.string()),
            column("where", pa.string(), nullable=True),
            column("locator", pa.string()),
            column("size", pa.int64(), nullable=True),
            column("timed_text", pa.string(), nullable=True),
            column("timed_text_sha256", pa.string(), nullable=True),
            column("error_class", pa.string(), nullable=True),
            column("error", pa.string(), nullable=True),
            column("seconds", pa.float32()),
            column("start_seconds", pa.float64(), nullable=True),
            column("section_seconds", pa.float64(), nullable=True),
            column("declared_seconds", pa.float64(), nullable=True),
            column("recording_id", pa.string(), nullable=True),
            column("overlap", pa.float32(), nullable=True),
            column("dialogue_id", pa.string(), nullable=True),
            column("turn", pa.int16(), nullable=True),
            column("role", pa.string()),
            column("corpus", pa.string()),
            column("split", pa.string()),
            column("language", pa.string()),
            column("channel", pa.int8()),
            column("speaker_id", pa.string(), nullable=True),
            column("reference_text", pa.string(), nullable=True),
            column("system_text", pa.string(), nullable=True),
            column("license", pa.string()),
            column("attempt", pa.int16()),
        ]
    ),
    means={
        **TURN,
        **ORIGIN,
        "source": "name of the source in the configuration: its corpus and split",
        "source_fingerprint": "digest of what else shapes the source's audio, such as the voice that speaks it",
        "where": "where an unreadable item is listed: the manifest and its line, the file, or the dataset and its row",
        "locator": "what the source opens: a path, a row number, or the text to speak",
        "size": "size of the file in bytes; a changed size makes a new entry",
        "timed_text": "the recording's text with times, as a path that the source opens; null without one",
        "timed_text_sha256": "digest of that file; null if it is missing. A changed text makes a new entry",
        "error_class": "reason why the item can't be read, as a short word",
        "error": "explanation why the item can't be read",
        "seconds": "estimated duration of the audio in seconds, for balancing shards",
        "start_seconds": "start of the item in its file; null means the beginning",
        "section_seconds": "duration of the item; null means up to the end of its file",
        "declared_seconds": "declared duration of the file; audio of another duration is rejected",
        **RECORDING,
        "role": "who speaks: user, assistant or narrator",
        "channel": "channel of the source to use; -1 is the mean of all channels",
        "reference_text": "text of the speech, as given by the corpus",
        "system_text": "system text of its dialogue, if this item states it; ingest gives it to the whole dialogue",
        "attempt": "how often the item was retried",
    },
    rules=(
        not_empty_rule(KEY),
        range_rule("seconds", 0, 1e9),
        range_rule("start_seconds", 0, 1e9),
        range_rule("section_seconds", 0, 1e9),
        range_rule("declared_seconds", 0, 1e9),
        not_empty_rule("source"),
        range_rule("attempt", 0, 2**15 - 1),
        range_rule("size", 0, 2**62),
        range_rule("overlap", 0, 1),
        trimmed_rule("system_text"),
        Rule(
            "timed_text_named",
            "timed_text_sha256 is null without timed_text",
            lambda rows: pc.and_(pc.is_null(rows["timed_text"]), pc.is_valid(rows["timed_text_sha256"])),
        ),
        Rule(
            "error_worded",
            "error and error_class are both present or both null",
            lambda rows: pc.xor(pc.is_null(rows["error"]), pc.is_null(rows["error_class"])),
        ),
    ),
)

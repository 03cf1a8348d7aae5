"""entries: the plan of an ingest, one row for each item that a source lists, readable or not."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import KEY, Rule, Table, column
from schemas.rules import not_empty_rule, range_rule

ENTRIES = Table(
    name="entries",
    version="1.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("source", pa.int32()),  # position in the configuration's list of sources
            column("where", pa.string()),  # for a message: the manifest and its line, the file, the data set's row
            column("locator", pa.string()),  # what the source opens: a path, a row number, the text to speak
            column("size", pa.int64(), nullable=True),  # bytes of the file: a changed file is a new plan
            column("error_class", pa.string(), nullable=True),
            column("error", pa.string(), nullable=True),  # why the item can't be read at all
            column("seconds", pa.float32()),  # estimate, for equal shards
            column("dialogue_id", pa.string(), nullable=True),
            column("turn", pa.int16(), nullable=True),
            column("role", pa.string()),
            column("corpus", pa.string()),
            column("split", pa.string()),
            column("language", pa.string()),
            column("channel", pa.int8()),
            column("speaker_id", pa.string(), nullable=True),
            column("reference_text", pa.string(), nullable=True),
            column("license", pa.string()),
        ]
    ),
    rules=(
        not_empty_rule(KEY),
        range_rule("seconds", 0, 1e9),
        Rule(
            "error_worded",
            "error and error_class are both there or both absent",
            lambda rows: pc.xor(pc.is_null(rows["error"]), pc.is_null(rows["error_class"])),
        ),
    ),
)

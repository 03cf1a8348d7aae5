"""What a shard holds: one file a table, and the check every shard must pass. Imports pyarrow alone."""

from schemas.alignments import ALIGNMENTS
from schemas.base import KEY, SAMPLE_RATE, Rule, Table
from schemas.echo_targets import ECHO_TARGETS
from schemas.entries import ENTRIES
from schemas.features import FEATURES
from schemas.measures import MEASURES
from schemas.rejects import REJECTS
from schemas.training import ECHO, S2T, T2C
from schemas.transcripts import TRANSCRIPTS
from schemas.units import UNITS
from schemas.utterances import UTTERANCES

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        ENTRIES,
        UTTERANCES,
        TRANSCRIPTS,
        MEASURES,
        ALIGNMENTS,
        UNITS,
        FEATURES,
        ECHO_TARGETS,
        REJECTS,
        S2T,
        T2C,
        ECHO,
    )
}

__all__ = [
    "ALIGNMENTS",
    "ECHO",
    "ECHO_TARGETS",
    "ENTRIES",
    "FEATURES",
    "KEY",
    "MEASURES",
    "REJECTS",
    "S2T",
    "SAMPLE_RATE",
    "T2C",
    "TABLES",
    "TRANSCRIPTS",
    "UNITS",
    "UTTERANCES",
    "Rule",
    "Table",
]

"""The tables of a dataset with their schemas and rules, and the check that every shard must pass."""

from echo_targets.schemas.tables import (
    alignments,
    cuts,
    echo_targets,
    entries,
    features,
    measures,
    rejects,
    training,
    transcripts,
    unit_counts,
    units,
    utterances,
)
from echo_targets.schemas.tables.alignments import ALIGNMENTS
from echo_targets.schemas.tables.base import KEY, SAMPLE_RATE, Rule, Table
from echo_targets.schemas.tables.cuts import CUTS
from echo_targets.schemas.tables.echo_targets import ECHO_TARGETS
from echo_targets.schemas.tables.entries import ENTRIES
from echo_targets.schemas.tables.features import FEATURES
from echo_targets.schemas.tables.measures import MEASURES
from echo_targets.schemas.tables.rejects import REJECTS
from echo_targets.schemas.tables.training import ECHO, S2T, T2C
from echo_targets.schemas.tables.transcripts import TRANSCRIPTS
from echo_targets.schemas.tables.unit_counts import UNIT_COUNTS
from echo_targets.schemas.tables.units import UNITS
from echo_targets.schemas.tables.utterances import UTTERANCES

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        ENTRIES,
        CUTS,
        UTTERANCES,
        TRANSCRIPTS,
        MEASURES,
        ALIGNMENTS,
        UNITS,
        UNIT_COUNTS,
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
    "CUTS",
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
    "UNIT_COUNTS",
    "UTTERANCES",
    "Rule",
    "Table",
    "alignments",
    "cuts",
    "echo_targets",
    "entries",
    "features",
    "measures",
    "rejects",
    "training",
    "transcripts",
    "unit_counts",
    "units",
    "utterances",
]

"""Compare training sets with the tables that they were joined from, and scores with the texts that they were made of.

The other checks look at a row on its own, so they pass a training set in which the texts of two rows were swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import (
    ALIGNMENTS,
    ECHO,
    ECHO_TARGETS,
    KEY,
    S2T,
    SAMPLE_RATE,
    T2C,
    TABLES,
    TRANSCRIPTS,
    UNITS,
    UTTERANCES,
)
from echo_targets.schemas.dataset.check import SHOWN_PER_RULE, UNREADABLE, Finding, shortened
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.schemas.tables.targets import ORIGINS
from echo_targets.schemas.tables.training import OF_REPLY, OF_TARGET

OF_UTTERANCES = ("corpus", "split", "language", "speaker_id")
COPIES: dict[str, dict[str, dict[str, str]]] = {
    S2T.name: {
        UTTERANCES.name: {name: name for name in (*OF_UTTERANCES, "system_text")},
        TRANSCRIPTS.name: {"wer_vs_reference": "wer_vs_reference"},
        ALIGNMENTS.name: {"alignment_coverage": "coverage"},
    },
    T2C.name: {
        UTTERANCES.name: {name: name for name in OF_UTTERANCES},
        UNITS.name: {name: name for name in UNITS.columns if name in T2C.columns and name != KEY},
    },
    ECHO.name: {
        UTTERANCES.name: {name: name for name in OF_UTTERANCES if name in ECHO.columns},
        ECHO_TARGETS.name: {name: name for name in OF_REPLY if name != KEY},
    },
}
"""Columns of each training set and the columns that they were copied from, by source table."""
TEXTS = ["dialogue_id", "turn", "role", "reference_text"]
TOLERANCE = 1e-4
"""Scores are stored rounded to 4 decimals."""


def check_copies(root: str) -> Iterator[Finding]:
    """Yield findings about training rows that differ from their sources, and about scores that differ from their texts.

    Audio is compared at the level `deep`. A score that a reading model gave (`target_cer`) is not recomputed.

    Raises:
        LayoutError: the index, or the description of a table that it names, is missing or invalid.
    """
    dataset = Dataset(root)
    for name, version in dataset.tables().items():
        if name not in CHECKS:
            continue
        recipe, check = dataset.recipe(name, version.recipe), CHECKS[name]
        for shard in dataset.snapshot(version.snapshot).ids:
            try:
                yield from check(dataset, recipe, shard)
            except (LayoutError, KeyError, TypeError, *UNREADABLE) as error:
                message = f"can't be compared with the tables that it was made from: {error}"
                yield Finding(name, shard, "upstream", message)
            except ImportError as error:
                message = f"its scores were not recomputed: {error.name} is not installed"
                yield Finding(name, "-", "scores_recomputed", message, breaks=False)
                break


def _read(dataset: Dataset, recipe: Recipe, table: str, shard: str, columns: Sequence[str]) -> pa.Table | None:
    """Return columns of the shard in a table that a version was made from, or in itself; None if it is not upstream."""
    fingerprint = recipe.fingerprint if table == recipe.table else recipe.upstream.get(table)
    if fingerprint is None:
        return None
    manifest = dataset.manifest(table, fingerprint, shard)
    if manifest is None:
        raise LayoutError(f"{table}/{fingerprint} has no manifest of {shard}")
    with dataset.open(manifest.output.path) as file:
        return file.read(list(columns)).combine_chunks()


def _target(recipe: Recipe) -> str | None:
    """Return the target that a version of training/echo publishes; None for other tables, or if the recipe has none."""
    return recipe.parameters.get("target") if recipe.table == ECHO.name else None


def _copies(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return COPIES of a version's table, with the fields of the published target."""
    copied, target = COPIES[recipe.table], _target(recipe)
    if target is None:
        return copied
    of_target = {column: f"{target}.{field}" for field, column in OF_TARGET.items()}
    return copied | {ECHO_TARGETS.name: copied[ECHO_TARGETS.name] | of_target}


def _check_training(dataset: Dataset, recipe: Recipe, shard: str) -> Iterator[Finding]:
    from echo_targets.transforms.base import joined
    from echo_targets.transforms.stages.measure import text_of
    from echo_targets.transforms.stages.publish.stage import replies_of

    copied, columns = _copies(recipe), TABLES[recipe.table].columns
    own = [name for names in copied.values() for name in names]
    texts = [name for name in ("text", "response_text") if name in columns and name not in own]
    named = ["target"] if _target(recipe) else []
    rows = _read(dataset, recipe, recipe.table, shard, [KEY, *own, *texts, *named])
    sources = {
        table: _read(
            dataset, recipe, table, shard, [KEY, *names.values(), *(TEXTS if table == UTTERANCES.name else [])]
        )
        for table, names in copied.items()
    }
    utterances = sources[UTTERANCES.name]
    if rows is None or utterances is None:
        return
    for table, names in copied.items():
        if (source := sources[table]) is not None:
            places = _places(rows, source)
            for name, origin in names.items():
                yield from _differing(recipe, shard, f"{table}_agree", rows, name, _column(source, origin).take(places))
    for name in named:
        chosen = pa.repeat(_target(recipe), len(rows))
        yield from _differing(recipe, shard, "target_agrees", rows, name, chosen)
    transcripts = _read(dataset, recipe, TRANSCRIPTS.name, shard, [KEY, "text"])
    spoken = joined(utterances.take(_places(rows, utterances)), TRANSCRIPTS, transcripts)
    yield from _differing(recipe, shard, "text_agrees", rows, "text", text_of(spoken))
    if "response_text" in texts:
        yield from _differing(recipe, shard, "reply_agrees", rows, "response_text", replies_of(spoken, utterances))


def _column(source: pa.Table, path: str) -> pa.ChunkedArray:
    """Return a column, or the field of a struct column as `column.field`."""
    name, _, field = path.partition(".")
    return pc.struct_field(source[name], field) if field else source[name]


def _places(rows: pa.Table, source: pa.Table) -> pa.Array:
    return pc.index_in(rows[KEY].combine_chunks(), value_set=source[KEY].combine_chunks())


def _differing(
    recipe: Recipe, shard: str, rule: str, rows: pa.Table, name: str, expected: pa.Array | pa.ChunkedArray
) -> Iterator[Finding]:
    """Yield a finding for the first rows whose value differs from the expected one."""
    found, wanted = _plain(rows[name]), _plain(expected)
    if found.equals(wanted):
        return
    differ = [number for number in range(len(rows)) if not found.slice(number, 1).equals(wanted.slice(number, 1))]
    for number in differ[:SHOWN_PER_RULE]:
        message = f"{name} differs from the table that it was copied from: expected {shortened(wanted[number].as_py())}"
        value = f"{name} = {shortened(found[number].as_py())}"
        yield Finding(recipe.table, shard, rule, message, rows[KEY][number].as_py(), value)
    if len(differ) > SHOWN_PER_RULE:
        yield Finding(recipe.table, shard, rule, f"{name}: and {len(differ) - SHOWN_PER_RULE} more rows")


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return array.cast(pa.string()) if pa.types.is_dictionary(array.type) else array


def _check_rates(dataset: Dataset, recipe: Recipe, shard: str) -> Iterator[Finding]:
    """Recompute each transcript's normalized text, error rate and speech rate, if this version's stage made them."""
    from echo_targets.transforms.stages.transcribe import Transcribe
    from echo_targets.transforms.text import error_rate, normalize

    if (recipe.stage, recipe.version) != (Transcribe.name, Transcribe.version):
        return
    names = ("text", "text_normalized", "language", "wer_vs_reference", "wer_unit", "chars_per_s")
    rows = _read(dataset, recipe, recipe.table, shard, [KEY, *names])
    utterances = _read(dataset, recipe, UTTERANCES.name, shard, [KEY, "reference_text", "num_samples"])
    if rows is None or utterances is None:
        return
    of = {row[KEY]: row for row in utterances.to_pylist()}
    for row in rows.to_pylist():
        spoken = of[row[KEY]]
        normalized = normalize(row["text"], row["language"])
        rate, unit = error_rate(spoken["reference_text"], normalized, row["language"])
        expected = {"text_normalized": normalized, "wer_vs_reference": rate, "wer_unit": unit}
        expected["chars_per_s"] = len(row["text"]) * SAMPLE_RATE / spoken["num_samples"]
        yield from _wrong_scores(recipe, shard, row, expected)


def _check_edits(dataset: Dataset, recipe: Recipe, shard: str) -> Iterator[Finding]:
    """Recompute the error rate of each reply's targets against its recording, if this version's stage made them."""
    from echo_targets.transforms.stages.echo.stage import Echo
    from echo_targets.transforms.stages.echo.targets import unit_error_rate

    if (recipe.stage, recipe.version) != (Echo.name, Echo.version):
        return
    rows = _read(dataset, recipe, recipe.table, shard, [KEY, *ORIGINS])
    for row in rows.to_pylist() if rows is not None else ():
        for origin in ORIGINS:
            if (target := row[origin]) and origin != "recorded":
                expected = {"unit_error_rate": unit_error_rate(target, row["recorded"])}
                yield from _wrong_scores(recipe, shard, {KEY: row[KEY], **target}, expected)


def _wrong_scores(recipe: Recipe, shard: str, row: dict[str, Any], expected: dict[str, Any]) -> Iterator[Finding]:
    for name, value in expected.items():
        if not _same(row[name], value):
            message = f"{name} does not follow from the texts: expected {shortened(value)}"
            stored = f"{name} = {shortened(row[name])}"
            yield Finding(recipe.table, shard, "scores_recomputed", message, row[KEY], stored)


CHECKS: dict[str, Callable[[Dataset, Recipe, str], Iterator[Finding]]] = {
    **dict.fromkeys(COPIES, _check_training),
    TRANSCRIPTS.name: _check_rates,
    ECHO_TARGETS.name: _check_edits,
}


def _same(stored: object, computed: object) -> bool:
    if isinstance(stored, float) and isinstance(computed, float):
        return abs(stored - computed) <= TOLERANCE * max(1.0, abs(computed))
    return stored == computed

"""`echo-targets fit-duplicates`: list the rows that repeat another row of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.table import Table as RichTable

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.config import ConfigError
from echo_targets.jobs.screen import open_console
from echo_targets.schemas import KEY, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.stages.publish.duplicates import Duplicate, Likeness, held_out, save_duplicates
from echo_targets.transforms.stages.publish.likeness import UNIT_RUNS, WORD_RUNS, near_duplicates, runs_of
from echo_targets.transforms.text import normalize, pieces


def fit_duplicates_command(
    root: Root, out: Annotated[str, typer.Argument(help="File of duplicates to write (.jsonl).")]
) -> int:
    """List rows that repeat another row: the same samples, or nearly the same units or text.

    Reads `utterances`, and `units` and `transcripts` if there are any. Pass the file to a publish stage as
    `duplicates`; `drop_duplicates` says which of them it drops.

    Example: echo-targets fit-duplicates out/calls duplicates.jsonl
    """
    console = open_console()
    found = list(duplicates(Dataset(root)))
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    save_duplicates(found, Path(out))
    counts = Counter(duplicate.by for duplicate in found)
    shown = RichTable("alike", "rows", title="Duplicates")
    for kind in get_args(Likeness):
        shown.add_row(kind, str(counts[kind]))
    console.print(shown)
    console.print(
        f"Wrote {out}. To use it: stages.publish_s2t.duplicates={out}; likewise for publish_t2c and publish_echo",
        markup=False,
        soft_wrap=True,
    )
    return 0


def duplicates(dataset: Dataset) -> Iterator[Duplicate]:
    """Yield every row that repeats an earlier one, at most once: by its audio, else its units, else its text.

    Rows of splits that are held out come first, so that a training row is never kept in place of one of theirs; then
    rows are in the order of their keys. So the order of shards does not matter.

    Raises:
        ConfigError: the dataset has no `utterances` table.
    """
    if UTTERANCES.name not in dataset.tables():
        raise ConfigError(f"{dataset.root}: no table {UTTERANCES.name}. Finish `echo-targets run` first.")
    columns = [KEY, "split", "audio_sha256", "reference_text"]
    rows = _columns(dataset, UTTERANCES.name, columns)
    rows = rows.append_column("in_training", pc.invert(held_out(rows["split"])))
    rows = rows.sort_by([("in_training", "ascending"), (KEY, "ascending")])
    seen = dict[bytes, str]()
    left = list[str]()
    for key, digest in zip(rows[KEY].to_pylist(), rows["audio_sha256"].to_pylist(), strict=True):
        if digest in seen:
            yield Duplicate(key, seen[digest], "audio")
        else:
            seen[digest] = key
            left.append(key)
    units = {key: [str(unit) for unit in first] for key, (first, *_) in _pairs(dataset, UNITS.name, "units")}
    alike = dict(near_duplicates(((key, runs_of(units.get(key, ()))) for key in left), UNIT_RUNS))
    yield from (Duplicate(key, of, "units") for key, of in alike.items())
    texts = dict(_pairs(dataset, TRANSCRIPTS.name, "text"))
    given = zip(rows[KEY].to_pylist(), rows["reference_text"].to_pylist(), strict=True)
    texts |= {key: text for key, text in given if text and text.strip()}
    words = ((key, runs_of(pieces(normalize(texts.get(key) or "", "")))) for key in left if key not in alike)
    yield from (Duplicate(key, of, "text") for key, of in near_duplicates(words, WORD_RUNS))


def _pairs(dataset: Dataset, table: str, column: str) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of a table that was made from the current utterances; nothing if there is none."""
    current = dataset.tables()
    if table in current:
        recipe = dataset.recipe(table, current[table].recipe)
        if recipe.upstream.get(UTTERANCES.name) == current[UTTERANCES.name].recipe:
            rows = _columns(dataset, table, [KEY, column])
            yield from zip(rows[KEY].to_pylist(), rows[column].to_pylist(), strict=True)


def _columns(dataset: Dataset, table: str, columns: list[str]) -> pa.Table:
    parts = []
    for manifest in dataset.manifests(table):
        with dataset.open(manifest.output.path) as file:
            parts.append(file.read(columns))
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()

"""Compare what ingest stored with what the configuration's sources are expected to hold."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from echo_targets.jobs.escapes import one_line
from echo_targets.schemas import SAMPLE_RATE, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.sources.base import Expected, Source


def print_differences(sources: Iterable[Source], dataset: Dataset, console: Console) -> bool:
    """Print what `differences` finds; return True if there is any difference."""
    found = differences(sources, dataset)
    for line in found:
        console.print(one_line(line), style="red", markup=False, soft_wrap=True)
    return bool(found)


def differences(sources: Iterable[Source], dataset: Dataset) -> list[str]:
    """Return a line for each corpus whose items or hours deviate from `expected` by more than the tolerance.

    A corpus is only compared if every one of its sources declares what is expected of it.

    Raises:
        LayoutError: the dataset has no utterances.
    """
    wanted: dict[str, list[Expected | None]] = {}
    for source in sources:
        wanted.setdefault(source.corpus, []).append(source.expected)
    complete = {corpus: [one for one in parts if one] for corpus, parts in wanted.items() if all(parts)}
    stored = _stored(dataset) if complete else {}
    found = ((corpus, _difference(parts, *stored.get(corpus, (0, 0.0)))) for corpus, parts in complete.items())
    return [f"{corpus}: {message}" for corpus, message in found if message]


def _stored(dataset: Dataset) -> dict[str, tuple[int, float]]:
    """Return the items and hours of each corpus in the current utterances."""
    rows = dataset.read(UTTERANCES.name, ["corpus", "num_samples"])
    rows = rows.set_column(0, "corpus", pc.cast(rows["corpus"], pa.string()))
    sums = rows.group_by("corpus").aggregate([("num_samples", "count"), ("num_samples", "sum")]).to_pylist()
    return {row["corpus"]: (row["num_samples_count"], row["num_samples_sum"] / SAMPLE_RATE / 3600) for row in sums}


def _difference(wanted: list[Expected], items: int, hours: float) -> str | None:
    all_items, all_hours = sum(one.items for one in wanted), sum(one.hours for one in wanted)
    tolerance = max(one.tolerance for one in wanted)
    if max(abs(items / all_items - 1), abs(hours / all_hours - 1)) <= tolerance:
        return None
    return (
        f"ingest stored {items:,} items and {hours:,.2f} hours, but {all_items:,} items and {all_hours:,g} hours are "
        f"expected, within {tolerance:.0%}. Check the rejects and the source's splits, subsets and roles, or set the "
        "source's `expected` to what you have."
    )

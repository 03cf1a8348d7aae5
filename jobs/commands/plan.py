"""`echo-targets plan`: estimate a job's hours of speech, GPU hours, disk space and shards by stage and corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import typer
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, ValidationError
from rich.console import Console
from rich.table import Table as RichTable

from echo_targets.jobs.arguments import Overrides, ReportFormat
from echo_targets.jobs.commands.run import Missing, say_remarks, survey
from echo_targets.jobs.config import ConfigError, JobConfig, load, read_values
from echo_targets.jobs.escapes import json_text, markup, one_line
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.stages import STAGES, in_order, transform_of
from echo_targets.pipeline.plan import Plan
from echo_targets.schemas import ENTRIES, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset, Index

THROUGHPUTS = Path(__file__).parents[1] / "throughputs.yaml"
USER_TURN_STAGES = ("echo", "publish_echo")
"""Stages that process only user turns of dialogues."""


class Throughput(BaseModel):
    """Speed of a stage.

    Attributes:
        times_real_time: hours of speech that one device processes per hour.
        device: GPU or CPU core.
        source: where the figure comes from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    times_real_time: PositiveFloat
    device: Literal["GPU", "core"]
    source: str


class Density(BaseModel):
    """Size of a table in bytes per row and bytes per second of speech."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: NonNegativeFloat = 0.0
    second: NonNegativeFloat = 0.0


class Throughputs(BaseModel):
    """Throughputs by stage and densities by table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: dict[str, Throughput] = {}
    tables: dict[str, Density] = {}


@dataclass(frozen=True)
class Cost:
    """Cost of a stage for a corpus; `bytes` and `shards` are the disk space and shard count of the table it writes."""

    stage: str
    table: str
    corpus: str
    rows: int
    hours: float
    gpu_hours: float
    core_hours: float
    bytes: int
    shards: int


@dataclass(frozen=True)
class _Group:
    """Readable items of one kind, with their count, total duration in seconds, and shard numbers."""

    corpus: str
    role: str
    in_dialogue: bool
    rows: int
    seconds: float
    shards: frozenset[int]


def plan_command(
    config: Annotated[
        str, typer.Argument(help="YAML file or the name of a shipped configuration, as for `echo-targets run`.")
    ],
    overrides: Overrides = None,
    throughputs: Annotated[
        str | None,
        typer.Option(help="YAML file of throughputs and densities that replace those of jobs/throughputs.yaml."),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option(help="text: a readable table; json: one JSON object.")
    ] = ReportFormat.TEXT,
) -> int:
    """Estimate a job's hours of speech, GPU hours, disk space and shards by stage and corpus, without running anything.

    A missing source is counted at its `expected` size.

    Example: echo-targets plan folder manifest=calls/manifest.jsonl root=out/calls --throughputs mine.yaml
    """
    settings = load(config, overrides or [])
    speeds = load_throughputs(throughputs)
    seen = survey(settings)
    measured = measured_densities(Dataset(settings.root))
    absent = _absent(seen.missing, settings.shard_hours)
    known = Throughputs(stages=speeds.stages, tables=speeds.tables | measured)
    found = costs([*_groups(seen.plan), *absent], settings, known)
    about = {
        "root": settings.root,
        "items": seen.plan.num_entries + sum(group.rows for group in absent),
        "unreadable": seen.plan.num_bad,
        "hours": round((seen.plan.seconds + sum(group.seconds for group in absent)) / 3600, 4),
        "shards": (seen.plan.num_shards if seen.plan.num_entries else 0) + len(_shards(absent)),
        "gpu_hours": round(sum(cost.gpu_hours for cost in found), 4),
        "core_hours": round(sum(cost.core_hours for cost in found), 4),
        "bytes": sum(cost.bytes for cost in found),
        "missing": [{"corpus": lost.corpus, "why": lost.why} for lost in seen.missing],
    }
    used = {cost.stage: speeds.stages[cost.stage].model_dump() for cost in found if cost.stage in speeds.stages}
    if format == ReportFormat.JSON:
        rows = [asdict(cost) for cost in found]
        print(json_text(about | {"costs": rows, "throughputs": used, "measured_tables": sorted(measured)}, indent=1))
    else:
        console = open_console()
        _show(console, about, found, speeds, measured)
        say_remarks(seen.found, console)
    return 0


def load_throughputs(path: str | None) -> Throughputs:
    """Return the shipped figures, overridden by those of a YAML file if one is given.

    Raises:
        ConfigError: the file is missing or invalid.
    """
    shipped = Throughputs.model_validate(read_values(THROUGHPUTS, []))
    if path is None:
        return shipped
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        given = Throughputs.model_validate(read_values(Path(path), []))
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    if unknown := sorted(given.stages.keys() - STAGES.keys()):
        raise ConfigError(f"{path}: stages.{unknown[0]}: unknown stage. Stages are {', '.join(STAGES)}.")
    return Throughputs(stages=shipped.stages | given.stages, tables=shipped.tables | given.tables)


def measured_densities(dataset: Dataset) -> dict[str, Density]:
    """Return the measured density, in bytes per second of speech, of each table that a root already holds."""
    found = {}
    for table, version in (dataset.index() or Index()).tables.items():
        shards = dataset.committed(table, version.recipe, dataset.snapshot(version.snapshot).ids).values()
        if samples := sum(manifest.samples for manifest in shards):
            found[table] = Density(second=sum(manifest.output.size for manifest in shards) / samples * SAMPLE_RATE)
    return found


def costs(groups: list[_Group], settings: JobConfig, speeds: Throughputs) -> list[Cost]:
    """Return the cost of each stage for each corpus: the plan first, then stages in pipeline order. Loads no model."""
    stages = [("plan", ENTRIES.name, dict[str, Any]())]
    for name in in_order(settings.stages):
        stages.append((name, transform_of(name).writes.name, settings.stages[name]))
    found = []
    for stage, table, parameters in stages:
        by_corpus: defaultdict[str, list[_Group]] = defaultdict(list)
        for group in groups:
            if _takes(stage, parameters, group):
                by_corpus[group.corpus].append(group)
        for corpus, parts in sorted(by_corpus.items()):
            rows, seconds = sum(part.rows for part in parts), sum(part.seconds for part in parts)
            speed, density = speeds.stages.get(stage), speeds.tables.get(table, Density())
            hours = {"GPU": 0.0, "core": 0.0}
            if speed:
                hours[speed.device] = seconds / 3600 / speed.times_real_time
            size = int(rows * density.row + seconds * density.second)
            shards = len(_shards(parts))
            found.append(Cost(stage, table, corpus, rows, seconds / 3600, hours["GPU"], hours["core"], size, shards))
    return found


def _takes(stage: str, parameters: dict[str, Any], group: _Group) -> bool:
    if stage in USER_TURN_STAGES:
        return group.role == "user" and group.in_dialogue
    return group.role in parameters.get("roles", [group.role])


def _groups(planned: Plan) -> list[_Group]:
    """Group the plan's readable items by corpus, role, and whether they belong to a dialogue."""
    rows: defaultdict[tuple[str, str, bool], int] = defaultdict(int)
    seconds: defaultdict[tuple[str, str, bool], float] = defaultdict(float)
    shards: defaultdict[tuple[str, str, bool], set[int]] = defaultdict(set)
    for shard, entries in enumerate(planned.shards()):
        readable = entries.filter(pc.is_null(entries["error"]))
        kinds = readable.select(["corpus", "role"]).append_column("in_dialogue", pc.is_valid(readable["dialogue_id"]))
        kinds = kinds.append_column("seconds", readable["seconds"].cast(pa.float64()))
        sums = kinds.group_by(["corpus", "role", "in_dialogue"]).aggregate([("seconds", "sum"), ("seconds", "count")])
        for row in sums.to_pylist():
            kind = row["corpus"], row["role"], row["in_dialogue"]
            rows[kind] += row["seconds_count"]
            seconds[kind] += row["seconds_sum"]
            shards[kind].add(shard)
    return [_Group(*kind, rows[kind], seconds[kind], frozenset(shards[kind])) for kind in rows]


def _absent(missing: list[Missing], shard_hours: float) -> list[_Group]:
    """Return the expected items of missing sources; their shards are not in the plan, so they get negative numbers."""
    groups, before = list[_Group](), 0
    for lost in missing:
        wanted = lost.expected
        count = max(1, round(wanted.hours / shard_hours))
        numbers = frozenset(range(-before - count, -before))
        before += count
        in_dialogue = wanted.role != "narrator"
        groups.append(_Group(lost.corpus, wanted.role, in_dialogue, wanted.items, wanted.hours * 3600, numbers))
    return groups


def _shards(groups: Iterable[_Group]) -> frozenset[int]:
    return frozenset[int]().union(*(group.shards for group in groups))


def _show(
    console: Console, about: dict[str, Any], found: list[Cost], speeds: Throughputs, measured: dict[str, Density]
) -> None:
    table = RichTable(
        "stage", "table", "corpus", "rows", "hours", "GPU h", "core h", "disk", "shards", title="Estimate"
    )
    before = ""
    for cost in found:
        hours = [_hours(value) if value else "" for value in (cost.gpu_hours, cost.core_hours)]
        size = _size(cost.bytes) + "*" * (cost.table in measured)
        names = (cost.stage, cost.table) if cost.stage != before else ("", "")
        table.add_row(*names, markup(cost.corpus), str(cost.rows), _hours(cost.hours), *hours, size, str(cost.shards))
        before = cost.stage
    totals = [_hours(about[name]) for name in ("hours", "gpu_hours", "core_hours")]
    table.add_section()
    table.add_row("total", "", "", str(about["items"]), *totals, _size(about["bytes"]), str(about["shards"]))
    console.print(table)
    if about["unreadable"]:
        console.print(f"{about['unreadable']} of {about['items']} items are unreadable lines and not counted above")
    for lost in about["missing"]:
        line = f"{lost['corpus']} is missing and counted at its expected size ({lost['why']})"
        console.print(one_line(line), style="red", markup=False, soft_wrap=True)
    if measured:
        console.print("* computed from the bytes per second of speech that the root's tables take now")
    for stage in dict.fromkeys(cost.stage for cost in found):
        if speed := speeds.stages.get(stage):
            line = f"{stage}: {speed.times_real_time:g} times real time on a {speed.device}: {speed.source}"
            console.print(line, markup=False)
    console.print(
        "Estimates with the figures of docs/SCALE.md unless overridden; durations are those the sources give."
    )


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2g}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"

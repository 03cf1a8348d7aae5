"""The stages of the pipeline, in order, and the import paths of their transforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import ENTRIES, KEY, TABLES
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import Transform

STAGES: dict[str, str] = {
    "segment": "echo_targets.transforms.stages.segment.stage:Segment",
    "ingest": "echo_targets.transforms.stages.ingest:Ingest",
    "transcribe": "echo_targets.transforms.stages.transcribe:Transcribe",
    "measure": "echo_targets.transforms.stages.measure:Measure",
    "align": "echo_targets.transforms.stages.align:Align",
    "tokenize": "echo_targets.transforms.stages.tokenize:Tokenize",
    "echo": "echo_targets.transforms.stages.echo.stage:Echo",
    "publish_s2t": "echo_targets.transforms.stages.publish.stage:PublishS2T",
    "publish_t2c": "echo_targets.transforms.stages.publish.stage:PublishT2C",
    "publish_echo": "echo_targets.transforms.stages.publish.stage:PublishEcho",
}

SEGMENT = "segment"
"""The stage that cuts recordings, in a job of its own before the others."""


def is_import_path(name: str) -> bool:
    """Return True if a configuration's stage is named by import path, as in `my_package.loudness:Loudness`."""
    return ":" in name


def transform_of(name: str) -> type[Transform]:
    """Return the transform of a stage.

    Args:
        name: one of `STAGES`, or the import path of a `Transform`.

    Raises:
        UserError: the path leads to no transform, or to one that is not complete or not new.
    """
    if not is_import_path(name):
        return StageSpec(STAGES[name], {}).transform_class()
    module, _, attribute = name.partition(":")
    try:
        found: object = StageSpec(name, {}).transform_class()
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; install the package, or add its folder to PYTHONPATH") from error
    except AttributeError as error:
        raise UserError(f"{module} has no {attribute}; name the transform's class as module:Class") from error
    except (ImportError, SyntaxError, ValueError) as error:
        raise UserError(f"{type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Transform)):
        raise UserError("is not a Transform; make it a subclass of echo_targets.transforms.base.Transform")
    missing = [each for each in ("name", "version", "reads", "writes") if not hasattr(found, each)]
    if missing or not found.reads:
        raise UserError(f"{attribute} must set {', '.join(missing or ['reads'])}")
    if found.name in STAGES:
        raise UserError(f"its name is {found.name!r}, which is a stage of echo_targets; choose another")
    if found.writes.name in TABLES:
        raise UserError(f"writes {found.writes.name}, a table of echo_targets; give it a Table of its own as `writes`")
    if not found.writes.columns or found.writes.columns[0] != KEY:
        raise UserError(f"the first column of its table {found.writes.name} must be {KEY}")
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Return the stages of a job in the order in which they run.

    Stages of this package run in their own order. A stage named by import path runs after the stages that write the
    tables it reads, and needs all of them; tables that a stage of this package reads may be absent.

    Raises:
        UserError: two stages have the same name or table, or wait for each other; or a stage named by import path reads
            a table that no stage of the job makes.
    """
    names = list(names)
    kinds = {name: transform_of(name) for name in [*(name for name in STAGES if name in names), *names]}
    writers: dict[str, str] = {}
    for name, kind in kinds.items():
        for what, value in (("name", kind.name), ("table", kind.writes.name)):
            if (other := writers.setdefault(f"{what} {value}", name)) != name:
                raise UserError(f"stages.{name}: has the same {what}, {value}, as stages.{other}; choose another")
    made = {kind.writes.name for kind in kinds.values()} | {ENTRIES.name}
    ordered: list[str] = []
    waiting = list(kinds)
    while waiting:
        ready = next((name for name in waiting if not _missing(kinds[name], made, kinds, ordered)), None)
        if ready is None:
            raise UserError(f"stages {', '.join(waiting)} wait for each other's tables")
        absent = [table.name for table in kinds[ready].reads if table.name not in made]
        if is_import_path(ready) and absent:
            raise UserError(
                f"stages.{ready}: reads {', '.join(absent)}, which no stage of this job makes; add the stage, or "
                "remove the table from `reads`"
            )
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def check_together(stages: Mapping[str, Mapping[str, Any]], root: str) -> None:
    """Check stages' parameters against each other, and against the job's root.

    Raises:
        UserError: a stage needs what another does not make.
    """
    if SEGMENT in stages:
        roots = {source["root"].rstrip("/") for source in stages["ingest"]["sources"] if source["kind"] == "cuts"}
        if len(roots) != 1 or root.rstrip("/") in roots:
            found = "none" if not roots else "the job's own root" if len(roots) == 1 else f"{len(roots)} roots"
            raise UserError(
                "stages.segment writes its cuts to a root of its own, which the sources of kind cuts name in "
                f"stages.ingest.sources, but they name {found}: give each root: ${{root}}-recordings"
            )
        names = [f"{source['corpus']}/{source['split']}" for source in stages[SEGMENT]["sources"]]
        if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
            raise UserError(
                f"stages.segment.sources: two sources are named {repeated[0]}, so their cuts can't be told apart: give "
                "each another corpus or split"
            )
    if "echo" in stages and "publish_echo" in stages:
        target, made = stages["publish_echo"]["target"], stages["echo"]["targets"]
        if target not in made:
            raise UserError(
                f"stages.publish_echo.target is {target}, but stages.echo.targets has only {', '.join(made)}: publish "
                f"one of these, or add {target}"
            )


def _missing(kind: type[Transform], made: set[str], kinds: dict[str, type[Transform]], ordered: list[str]) -> set[str]:
    """Return the tables that a stage reads and a later stage of the job makes."""
    done = {kinds[name].writes.name for name in ordered} | {ENTRIES.name}
    return {table.name for table in kind.reads} & made - done

"""The stages of the pipeline, in order, and the import paths of their transforms."""

from __future__ import annotations

from collections.abc import Iterable

from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import TABLES
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import Transform

STAGES: dict[str, str] = {
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


def is_import_path(name: str) -> bool:
    """Return True if a configuration's stage is named by import path, as in `my_package.loudness:Loudness`."""
    return ":" in name


def transform_of(name: str) -> type[Transform]:
    """Return the transform of a stage.

    Args:
        name: one of `STAGES`, or the import path of a `Transform`.

    Raises:
        UserError: the path leads to no transform, or to one that writes a table of this package.
    """
    if not is_import_path(name):
        return StageSpec(STAGES[name], {}).transform_class()
    try:
        found: object = StageSpec(name, {}).transform_class()
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{error}; install the package, or add its folder to PYTHONPATH") from error
    if not (isinstance(found, type) and issubclass(found, Transform)):
        raise UserError("is not a Transform (echo_targets.transforms.base)")
    table = getattr(found, "writes", None)
    if table is None or table.name in TABLES:
        what = "no table" if table is None else f"{table.name}, a table of echo_targets"
        raise UserError(f"writes {what}; give it a Table of its own as `writes`")
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Return the stages of a job in the order in which they run.

    Stages of this package run in their own order. A stage named by import path runs after the last stage before it that
    writes a table it reads.
    """
    names = list(names)
    ordered = [name for name in STAGES if name in names]
    for name in filter(is_import_path, names):
        reads = {table.name for table in transform_of(name).reads}
        makers = [place for place, other in enumerate(ordered) if transform_of(other).writes.name in reads]
        ordered.insert(max(makers, default=-1) + 1, name)
    return ordered

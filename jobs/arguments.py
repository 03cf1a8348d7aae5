"""Arguments that several commands take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

Root = Annotated[str, typer.Argument(help="Dataset root: the folder or URL that `echo-targets run` wrote to.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs; dots reach nested keys.")]

ExecutionOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Where to run, as key=value: workers=2, device=cuda, runner=ray, ray.address=auto, "
        "beam.runner=FlinkRunner, …"
    ),
]

ModelOut = Annotated[
    str, typer.Argument(help="Directory to write the model to; running the command again resumes a stopped training.")
]


class ReportFormat(StrEnum):
    """Output format of a comparison or an estimate."""

    TEXT = "text"
    JSON = "json"

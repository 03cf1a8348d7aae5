"""Apache Beam's options in a configuration."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from echo_targets.schemas.errors import UserError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineRunner

NAMESPACE = "echo_targets"
DIRECT = ("direct", "fnapi", "bundlebaseddirect", "switchingdirect")
"""Beam's names of runners on this machine, in lower case and without the suffix `runner`."""


class BeamOptions(BaseModel):
    """Any of Beam's pipeline options by name, for example `beam: {runner: FlinkRunner, flink_master: "host:8081"}`.

    Attributes:
        runner: Beam's name of the runner.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    runner: str = "DirectRunner"

    @property
    def values(self) -> dict[str, Any]:
        """The options by name."""
        values = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        if values.get("job_endpoint") == "embed":  # workers run in the driver's process, like that job server
            values.setdefault("environment_type", "LOOPBACK")
        return {"runner": self.runner, **values}

    @property
    def is_direct(self) -> bool:
        """True for Beam's Python runner on this machine."""
        return self.runner.lower().removesuffix("runner") in DIRECT

    @property
    def is_remote(self) -> bool:
        """True if the job is submitted to another process, which continues independently."""
        return not self.is_direct and self.values.get("job_endpoint") != "embed"

    def pipeline_options(self) -> PipelineOptions:
        """Return the options as Beam's PipelineOptions.

        Raises:
            UserError: Beam does not know an option, or a value is invalid.
        """
        from apache_beam.options.pipeline_options import PipelineOptions

        def check(parser: Any) -> None:
            known = {flag.lstrip("-") for flag in parser._option_string_actions}
            for name in self.values.keys() - known:
                close = difflib.get_close_matches(name, sorted(known), 1)
                _fail(f"there is no pipeline option {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
            parser.error = _fail

        options = PipelineOptions.from_dictionary(self.values)
        options.get_all_options(add_extra_args_fn=check)
        return options

    def pipeline_runner(self) -> PipelineRunner:
        """Return Beam's runner.

        Raises:
            UserError: Beam has no such runner, or its dependencies are not installed.
        """
        from apache_beam.runners.runner import create_runner

        if self.is_direct:
            from echo_targets.pipeline.runners.beam.direct_runner import direct_runner

            return direct_runner(self.pipeline_options())
        try:
            return create_runner(self.runner)
        except (ValueError, ImportError, AttributeError) as error:
            raise UserError(f"beam.runner: {error}") from None


def _fail(message: str) -> None:
    raise UserError(f"beam: {message}")

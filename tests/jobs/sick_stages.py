"""transcribe and echo on a machine that is sick: every batch raises an error. Workers import these by name."""

from __future__ import annotations

import builtins
from typing import Any

import pyarrow as pa

from echo_targets.transforms.base import Output, Transform
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.stage import Echo
from echo_targets.transforms.stages.transcribe import Transcribe, TranscribeParameters


class _Sick(Transform):
    """Raises `line`, such as `RuntimeError: CUDA error`, for every batch; its recipe is that of the healthy stage."""

    parameters: Any

    def fingerprint_parameters(self) -> dict[str, Any]:
        return {name: value for name, value in super().fingerprint_parameters().items() if name != "line"}

    def setup(self) -> None:
        """No model: nothing gets as far."""

    def __call__(self, batch: pa.Table) -> Output:
        name, _, message = self.parameters.line.partition(": ")
        raise getattr(builtins, name)(message)


class SickTranscribeParameters(TranscribeParameters):
    line: str


class SickTranscribe(_Sick, Transcribe):
    Parameters = SickTranscribeParameters


class SickEchoParameters(EchoParameters):
    line: str


class SickEcho(_Sick, Echo):
    Parameters = SickEchoParameters

"""Responders by kind of checkpoint."""

from __future__ import annotations

from echo_targets.transforms.assets import asset
from echo_targets.transforms.stages.echo.parameters import EchoParameters
from echo_targets.transforms.stages.echo.responders.base import Responder
from echo_targets.transforms.stages.echo.responders.echox import EchoXResponder
from echo_targets.transforms.stages.echo.responders.t2c import T2CResponder

RESPONDERS: tuple[type[Responder], ...] = (T2CResponder, EchoXResponder)


def open_responder(parameters: EchoParameters, device: str) -> Responder:
    """Return the responder of `parameters.model`, not loaded.

    Raises:
        ModelError: the model has no readable config, or does not do what the parameters ask.
    """
    path = asset(parameters.model)
    kind = next(kind for kind in RESPONDERS if kind.can_load(path))
    return kind(parameters, device)

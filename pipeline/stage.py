"""Describe a stage as a plain value that is sent to workers, and compute its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.transforms.base import Transform


@dataclass(frozen=True)
class StageSpec:
    """Everything that a worker needs to build a transform.

    Attributes:
        transform: import path of its class, as `module:Class`.
        parameters: dump of its `Parameters`; part of the fingerprint.
        device: torch device; not part of the fingerprint.
        batch_seconds: budget of a batch in padded seconds of audio; not part of the fingerprint.
        hang_factor, hang_seconds: a batch of a worker process hangs if it takes longer than `hang_seconds` plus
            `hang_factor` times its padded audio; not part of the fingerprint.
    """

    transform: str
    parameters: dict[str, Any]
    device: str = "cpu"
    batch_seconds: float = 240.0
    hang_factor: float = 30.0
    hang_seconds: float = 600.0

    def transform_class(self) -> type[Transform]:
        """Import and return the transform's class."""
        module, name = self.transform.split(":")
        kind: type[Transform] = getattr(import_module(module), name)
        return kind

    def build(self) -> Transform:
        """Return the transform; its model is not loaded yet."""
        kind = self.transform_class()
        return kind(kind.Parameters.model_validate(self.parameters), self.device)


def recipe_of(transform: Transform, upstream: dict[str, str]) -> Recipe:
    """Return a stage's recipe, with its fingerprint.

    The fingerprint covers the transform's name and version, the schema version, the fingerprint parameters, the weight
    digests and the recipes upstream, but not the data, the device, workers or batch size.
    """
    return Recipe(
        stage=transform.name,
        version=transform.version,
        table=transform.writes.name,
        schema_version=transform.writes.version,
        parameters=transform.fingerprint_parameters(),
        weights=transform.weight_digests(),
        upstream=upstream,
    )


def changes(before: Recipe, after: Recipe) -> list[str]:
    """Return the differences between two recipes of a table, like `parameters.max_wer: 0.5, now 0.3`."""
    old, new = (dict(_flat("", asdict(recipe))) for recipe in (before, after))
    names = (name for name in old | new if name not in ("fingerprint", "table"))
    pairs = ((name, old.get(name), new.get(name)) for name in names)
    return [f"{name}: {_short(one)}, now {_short(other)}" for name, one, other in pairs if one != other]


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) or (isinstance(value, list) and value):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"

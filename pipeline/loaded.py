"""The transform of a process. Its model is loaded once and stays loaded from shard to shard."""

from __future__ import annotations

from threading import Lock

import pyarrow as pa

from echo_targets.pipeline.halving import try_batch
from echo_targets.pipeline.stage import StageSpec
from echo_targets.transforms.base import Output, Transform


class Loaded:
    """A transform with a loaded model. Threads of a process share it and take turns batch by batch."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.transform = spec.build()
        self.transform.setup()
        self._turn = Lock()

    def try_batch(self, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
        """Implement `halving.Worker.try_batch`."""
        with self._turn:
            return try_batch(self.transform, batch, prepared)


_loaded: Loaded | None = None
"""The transform of this process. Its model is loaded once, and released when another stage starts."""
_loading = Lock()


def load_transform(spec: StageSpec) -> Loaded:
    """Load a stage's transform in this process, or return it if it is already loaded."""
    global _loaded
    with _loading:
        if _loaded is None or _loaded.spec != spec:
            _loaded = None  # release it first, so that memory never holds two models
            _loaded = Loaded(spec)
        return _loaded


def loaded_transform() -> Transform | None:
    """Return the transform that this process has loaded, or None."""
    return _loaded.transform if _loaded else None


def unload_transform() -> None:
    """Release the process's transform and its model."""
    global _loaded
    with _loading:
        _loaded = None

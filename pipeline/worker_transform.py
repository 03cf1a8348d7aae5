"""The transform of a process. Its model is loaded once and stays loaded from shard to shard."""

from __future__ import annotations

from threading import Lock

import pyarrow as pa

from echo_targets.pipeline.devices import check_device
from echo_targets.pipeline.halving import try_batch
from echo_targets.pipeline.hang import limit, limit_of
from echo_targets.pipeline.memory import free_memory
from echo_targets.pipeline.stage import StageSpec
from echo_targets.transforms.base import Output, Transform


class Loaded:
    """A transform with a loaded model. Threads of a process share it and take turns batch by batch.

    Raises:
        DeviceMissing: the stage's model needs a device that does not exist here.
    """

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.transform = spec.build()
        if self.transform.on_device:
            check_device(spec.device)
        self.transform.setup()
        self._turn = Lock()

    def try_batch(self, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
        """Implement `halving.Worker.try_batch`."""
        with self._turn, limit(limit_of(self.spec, self.transform, batch)):
            return try_batch(self.transform, batch, prepared)


_loaded: Loaded | None = None
"""The transform of this process. Its model is loaded once, and released when another stage starts."""
_loading = Lock()


def load_transform(spec: StageSpec) -> Loaded:
    """Load a stage's transform in this process, or return it if it is already loaded."""
    global _loaded
    with _loading:
        if _loaded is None or _loaded.spec != spec:
            _release()  # first, so that memory never holds two models
            _loaded = Loaded(spec)
        return _loaded


def loaded_transform() -> Transform | None:
    """Return the transform that this process has loaded, or None."""
    return _loaded.transform if _loaded else None


def unload_transform() -> None:
    """Release the process's transform and its model."""
    with _loading:
        _release()


def _release() -> None:
    global _loaded
    if _loaded is not None:
        _loaded = None
        free_memory()

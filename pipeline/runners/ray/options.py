"""Options of Ray: where it runs, and what a worker takes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class RayOptions(BaseModel):
    """Where Ray runs, and what a worker takes.

    Attributes:
        address: `host:port` of a cluster's head, from a machine that is a node of it; `auto` for the cluster that this
            machine is a node of, as in a job that `ray job submit` started. By default a cluster is started on this
            machine, and ended with the job.
        min_workers: workers that each stage has from the beginning.
        max_workers: most workers of a stage; by default as many as the cluster holds.
        cpus_per_worker: CPUs that a worker reserves, and threads that its libraries take. A worker reserves less where
            a node could otherwise not hold one of each stage.
        gpus_per_worker: GPUs, or the share of one, that a worker reserves if its stage has a model that runs on a
            device.
        runtime_env: Ray's runtime environment of the workers, such as `{pip: [...]}`; the project and the limits of
            threads are added to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = Field(None, min_length=1)
    min_workers: PositiveInt = 1
    max_workers: PositiveInt | None = None
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    runtime_env: dict[str, Any] = {}

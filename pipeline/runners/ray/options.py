"""Ray's options in a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class RayOptions(BaseModel):
    """Where Ray runs, and the resources of a worker.

    Attributes:
        address: `host:port` of the cluster's head, if this machine is a node of the cluster; `auto` for the cluster of
            this machine, as in a job started with `ray job submit`. By default, a cluster is started on this machine
            and stopped after the job.
        min_workers: number of workers with which each stage starts.
        max_workers: maximum number of workers of a stage; by default, as many as fit into the cluster.
        cpus_per_worker: CPUs that a worker reserves and threads that its libraries use. A worker reserves less if a
            node could not hold one worker of each stage otherwise.
        gpus_per_worker: GPUs, possibly a fraction, that a worker reserves if its stage runs a model on a device.
        runtime_env: Ray's runtime environment for the workers, such as `{pip: [...]}`; the project and thread limits
            are added to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = Field(None, min_length=1)
    min_workers: PositiveInt = 1
    max_workers: PositiveInt | None = None
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    runtime_env: dict[str, Any] = {}

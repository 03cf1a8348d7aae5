"""What a runner is: it maps shard descriptions over workers. It knows nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from types import TracebackType

from echo_targets.pipeline.shard import Progress, ShardTask
from echo_targets.schemas.dataset.layout import Manifest

RunShard = Callable[[ShardTask, Progress], Manifest]

Chain = Sequence[ShardTask]
"""The work on one shard: a task a stage, in order, each reading what those before it have committed."""

ATTEMPTS = 3


class WorkerDied(Exception):
    """A worker, or the engine with all of its workers, came to its end; the message says how."""


@dataclass(frozen=True)
class Worked:
    """A worker got through this many 16 kHz samples of a shard."""

    stage: str
    shard: int
    samples: int


@dataclass(frozen=True)
class Done:
    """A shard of a stage is committed."""

    stage: str
    shard: int
    manifest: Manifest


@dataclass(frozen=True)
class Failed:
    """A shard of a stage failed, on this attempt; `final` when it is not tried again."""

    stage: str
    shard: int
    reason: str
    final: bool


Event = Worked | Done | Failed
Events = Generator[Event, None, None]


class Runner(ABC):
    """Workers that live from entering to leaving the context, over all stages of a job."""

    @abstractmethod
    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        """Runs every task of every chain, chains in any order.

        A task starts when the one before it in its chain is done; other chains need not have come as far. Each task
        ends in exactly one `Done` or final `Failed`; what follows a final `Failed` in its chain is not run, and has
        no event. A caller that closes the iterator early leaves the rest undone.
        """

    def __enter__(self) -> Runner:
        return self

    def __exit__(  # noqa: B027 (a runner without workers of its own has nothing to end)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the workers; in the midst of work they leave nothing half-written."""

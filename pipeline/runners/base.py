"""The runner interface: map shard descriptions over workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from types import TracebackType

from echo_targets.pipeline.shard import Progress, ShardTask
from echo_targets.schemas.dataset.layout import Manifest

RunShard = Callable[[ShardTask, Progress], Manifest]

Chain = Sequence[ShardTask]
"""The work on one shard: one task per stage, in order; each reads what earlier ones committed."""

ATTEMPTS = 3


class WorkerDied(Exception):
    """A worker, or the engine with all of its workers, crashed or hung; the message completes "its worker …"."""


@dataclass(frozen=True)
class Worked:
    """A worker processed this many 16 kHz samples of a shard."""

    stage: str
    shard: str
    samples: int


@dataclass(frozen=True)
class Done:
    """A shard of a stage is committed."""

    stage: str
    shard: str
    manifest: Manifest


@dataclass(frozen=True)
class Failed:
    """An attempt at a shard of a stage failed; `final` is True if it is not retried."""

    stage: str
    shard: str
    reason: str
    final: bool


Event = Worked | Done | Failed
Events = Generator[Event, None, None]


class Runner(ABC):
    """Context manager for workers that run all stages of a job."""

    @abstractmethod
    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        """Run every task of every chain, with chains in any order, and yield events.

        A task starts when the previous one in its chain is done, independently of other chains. Each task ends with
        exactly one `Done` or final `Failed`. Tasks after a final `Failed` in a chain are not run and have no events.
        Closing the iterator early leaves the remaining tasks undone.
        """

    def __enter__(self) -> Runner:
        return self

    def __exit__(  # noqa: B027 (a runner may have nothing to stop)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers; interrupted workers delete their unfinished files."""

"""What a runner is: it maps shard descriptions over workers. It knows nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from pipeline.shard import Progress, ShardTask
from schemas.layout import Manifest

RunShard = Callable[[ShardTask, Progress], Manifest]


@dataclass(frozen=True)
class Worked:
    """A worker got through this many 16 kHz samples of a shard."""

    shard: int
    samples: int


@dataclass(frozen=True)
class Done:
    """A shard is committed."""

    shard: int
    manifest: Manifest


@dataclass(frozen=True)
class Failed:
    """A shard failed, on this attempt; `final` when it is not tried again."""

    shard: int
    reason: str
    final: bool


Event = Worked | Done | Failed


class Runner(ABC):
    """Workers that live from entering to leaving the context, over all stages of a job."""

    @abstractmethod
    def map(self, tasks: Sequence[ShardTask], run_shard: RunShard) -> Iterator[Event]:
        """Runs every task, in any order; each ends in exactly one `Done` or final `Failed`."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(  # noqa: B027 (a runner without workers of its own has nothing to end)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the workers; in the midst of work they leave nothing half-written."""

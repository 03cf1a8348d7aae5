"""A lease that allows one driver at a time on a root. The driver renews it; it expires if the driver dies.

The lease is the file with the highest number in `<root>/lease/`. A driver takes the lease by creating the next number
exclusively, so if two drivers find an expired lease, only one gets it. A driver that finds a number higher than its own
has lost the lease. A lease has expired if it does not change for `EXPIRES` seconds on the observer's clock, so no two
clocks are compared. If the driver ran on this machine, its process is looked up instead.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Literal

from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError

FOLDER = "lease"
BEAT = 5.0
"""Seconds between renewals."""
EXPIRES = 30.0
"""Seconds without a renewal after which a lease has expired."""

WhenBusy = Literal["refuse", "wait"]


class Busy(UserError):
    """Another driver is running on the root."""


class LeaseLost(UserError):
    """The lease could not be renewed in time, or another driver has taken it."""


@dataclass(frozen=True)
class Driver:
    """The holder of a lease.

    Attributes:
        token: unique id of the driver.
        host, pid: shown to the user.
        machine: boot id and process namespace, if known; processes with equal values can see each other.
        birth: start time of the process, in the machine's ticks.
        since: when the lease was taken, UTC; shown to the user.
        beat: number of renewals.
    """

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    machine: str | None = field(default_factory=lambda: _machine())
    birth: str | None = field(default_factory=lambda: _birth(os.getpid()))
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def lives(self) -> bool | None:
        """True if the process exists; None if this process can't tell."""
        if self.machine is None or self.machine != _machine():
            return None
        return self.birth is not None and _birth(self.pid) == self.birth


NOBODY = Driver(token="", host="", pid=0, machine=None, birth=None, since="")


class Lease:
    """The exclusive right to drive a root, held from `take` until the context is left."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._storage = dataset.storage
        self._mine: str | None = None
        self._driver = Driver()
        self._renewed = 0.0
        self._lost = False
        self._over = Event()
        self._beating = Thread(target=self._beat, daemon=True)

    def take(self, when_busy: WhenBusy) -> Iterator[Driver]:
        """Take the lease; with `wait`, yield each live driver that it waits for once.

        Raises:
            Busy: with `refuse`, if another live driver holds the lease.
            UserError: the storage neither lists a live driver nor lets this one take the lease.
        """
        watched, since = NOBODY, time.monotonic()
        told: set[str] = set()
        while True:
            number, driver = self._newest()
            beats = watched.token == driver.token and watched.beat != driver.beat
            if driver != watched:
                watched, since = driver, time.monotonic()
            waited = time.monotonic() - since
            lives = True if beats else driver.lives if number else False
            if (lives is False or waited > EXPIRES) and self._try_number(number + 1, number):
                break
            if not lives and waited > 2 * EXPIRES:
                raise UserError(
                    f"{self._dataset.root}: no driver holds the lease, but it could not be taken for {waited:.0f} s: "
                    f"{self._dataset.where(FOLDER)} does not list the files that exist in it. A root needs a storage "
                    "that lists a file once it is written; see docs/STORAGE.md."
                )
            if lives and when_busy == "refuse":
                raise Busy(
                    f"{self._dataset.root}: another driver is running here ({driver}). Wait until it ends; `run` "
                    "does so with when_busy=wait."
                )
            if lives and driver.token not in told:
                told.add(driver.token)
                yield driver
            time.sleep(BEAT / 5)
        self._storage.sweep(FOLDER)
        self._beating.start()

    def check(self) -> None:
        """Check that the lease is still held.

        Raises:
            LeaseLost: it is not.
        """
        if self._lost or time.monotonic() - self._renewed > EXPIRES:
            raise LeaseLost(
                f"{self._dataset.root}: the lease could not be renewed for {EXPIRES:g} s, or another driver has taken "
                "it. Committed shards are kept. Run the same command again when the other driver has ended."
            )

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._mine is not None:
            if self._beating.is_alive():
                self._beating.join()
            with suppress(OSError, UserError):  # if this fails, the lease expires
                self._storage.delete(self._mine)

    def _newest(self) -> tuple[int, Driver]:
        """Return the highest number and its driver; 0 and NOBODY if there is none."""
        names = self._numbered()
        if not names:
            return 0, NOBODY
        try:
            return _number(names[-1]), Driver(**json.loads(self._storage.read(f"{FOLDER}/{names[-1]}")))
        except FileNotFoundError:  # it was released in the meantime
            return 0, NOBODY
        except (TypeError, ValueError):  # not a valid lease; treat it as one that is never renewed
            return _number(names[-1]), Driver(
                token="", host="an unknown host", pid=0, machine=None, birth=None, since=""
            )

    def _numbered(self) -> list[str]:
        return [name for name in self._storage.list(FOLDER) if re.fullmatch(r"\d+\.json", name)]

    def _try_number(self, number: int, dead: int) -> bool:
        """Create the lease of a number, and keep it if no other but the dead one's is there; return True if it is kept.

        Raises:
            OSError, UserError: the storage does not allow it, or there is no such bucket.
        """
        path, began = f"{FOLDER}/{number:06d}.json", time.monotonic()
        try:
            created = self._storage.create(path, _json(self._driver))
        except FileNotFoundError:  # another driver took the lease and swept this temporary file
            created = False
        if not created:
            return False
        others = [_number(name) for name in self._numbered() if _number(name) != number]
        if any(other != dead for other in others):  # the listing was outdated
            self._storage.delete(path)
            return False
        self._mine, self._renewed = path, began
        for other in others:
            with suppress(OSError):  # harmless if it fails: only the highest number counts
                self._storage.delete(f"{FOLDER}/{other:06d}.json")
        return True

    def _beat(self) -> None:
        assert self._mine is not None
        while not self._over.wait(BEAT):
            with suppress(OSError, UserError):  # `check` tells when it has failed for too long
                began = time.monotonic()
                newest = self._numbered()[-1:]
                if newest != [os.path.basename(self._mine)]:
                    self._lost = True
                    return
                self._driver = Driver(**asdict(self._driver) | {"beat": self._driver.beat + 1})
                self._storage.write(self._mine, _json(self._driver))
                self._renewed = began


@contextmanager
def held(dataset: Dataset) -> Iterator[Lease]:
    """Hold the lease of a root that has an index.

    Raises:
        LayoutError: there is no index.
        Busy: a live driver holds the lease.
        UserError: the storage does not let this one take the lease.
    """
    dataset.tables()  # fails if there is no index, before the lease writes anything to the folder
    with Lease(dataset) as lease:
        for _ in lease.take("refuse"):
            pass
        yield lease


def _json(driver: Driver) -> bytes:
    return json.dumps(asdict(driver)).encode()


def _number(name: str) -> int:
    return int(name.removesuffix(".json"))


def _machine() -> str | None:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return None


def _birth(pid: int) -> str | None:
    """Return the start time of a process in ticks; None if it does not exist or is a zombie."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None

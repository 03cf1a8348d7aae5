"""One driver at a time on a root: a lease that its driver renews, and that expires when the driver is dead.

The lease is the file of the highest number in `<root>/lease/`. A driver takes the next number by exclusive creation,
so of two that find a dead lease one gets it; who finds a higher number than its own has lost it. Whether a lease is
alive is seen by watching it: one that stays the same for `EXPIRES` of the watcher's own seconds is dead, so no two
clocks are compared. Where the driver ran on this very machine, its process is looked for instead.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
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
"""Seconds without a renewal after which a lease is dead."""

WhenBusy = Literal["refuse", "wait"]


class Busy(UserError):
    """Another driver is at work on the root."""


class LeaseLost(UserError):
    """Another driver has taken the root, since this one could not renew its lease in time."""


@dataclass(frozen=True)
class Driver:
    """Who holds a lease.

    Attributes:
        token: unique to the driver.
        host, pid: for a person.
        machine: this boot and process namespace, where that can be told; processes of equal machines see each other.
        birth: when the process started, in the machine's ticks.
        since: when it took the lease, UTC; for a person.
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
        """Whether its process is there; None where that can't be told from here."""
        if self.machine is None or self.machine != _machine():
            return None
        return self.birth is not None and _birth(self.pid) == self.birth


class Lease:
    """The right to be the one driver of a root, from `take` to leaving the context."""

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
        """Takes the lease; with `wait`, gives each living driver that it waits for, once.

        Raises:
            Busy: another driver holds it, and lives; with `refuse`.
        """
        watched, since = Driver(token=""), time.monotonic()
        told: set[str] = set()
        while self._mine is None:
            held = self._newest()
            if held is None:
                self._try_number(1, None)
                continue
            number, driver = held
            beats = watched.token == driver.token and watched.beat != driver.beat
            if driver != watched:
                watched, since = driver, time.monotonic()
            lives = True if beats else driver.lives
            if (lives is False or time.monotonic() - since > EXPIRES) and self._try_number(number + 1, number):
                continue
            if lives and when_busy == "refuse":
                raise Busy(
                    f"{self._dataset.root}: another driver is at work here ({driver}). Wait for it to end, or run "
                    "with when_busy=wait."
                )
            if lives and driver.token not in told:
                told.add(driver.token)
                yield driver
            time.sleep(BEAT / 5)
        self._storage.sweep(FOLDER)
        self._beating.start()

    def check(self) -> None:
        """Makes sure that the lease is still held.

        Raises:
            LeaseLost: it is not.
        """
        if self._lost or time.monotonic() - self._renewed > EXPIRES:
            raise LeaseLost(
                f"{self._dataset.root}: the lease could not be renewed for {EXPIRES:g} s, or another driver has taken "
                "it. What is committed stays; run the same command again when the other has ended."
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
            with suppress(OSError):  # what can't be given back now expires
                self._storage.delete(self._mine)

    def _newest(self) -> tuple[int, Driver] | None:
        names = self._numbered()
        if not names:
            return None
        try:
            return _number(names[-1]), Driver(**json.loads(self._storage.read(f"{FOLDER}/{names[-1]}")))
        except FileNotFoundError:
            return self._newest()  # it was given back just now
        except (TypeError, ValueError):  # no driver's file: one that is never renewed
            return _number(names[-1]), Driver(
                token="", host="an unknown host", pid=0, machine=None, birth=None, since=""
            )

    def _numbered(self) -> list[str]:
        return [name for name in self._storage.list(FOLDER) if re.fullmatch(r"\d+\.json", name)]

    def _try_number(self, number: int, dead: int | None) -> bool:
        """Whether there was no lease of that number; takes it if it is the highest."""
        path, began = f"{FOLDER}/{number:06d}.json", time.monotonic()
        try:
            created = self._storage.create(path, _json(self._driver))
        except FileNotFoundError:  # who has just taken the lease has swept what this was written to
            created = False
        if not created:
            return False
        others = [_number(name) for name in self._numbered() if _number(name) != number]
        if any(other != dead for other in others):  # the view that this was decided on was an old one
            self._storage.delete(path)
            return True
        self._mine, self._renewed = path, began
        for other in others:
            with suppress(OSError):  # the highest number counts anyway
                self._storage.delete(f"{FOLDER}/{other:06d}.json")
        return True

    def _beat(self) -> None:
        assert self._mine is not None
        while not self._over.wait(BEAT):
            with suppress(OSError):
                began = time.monotonic()
                newest = self._numbered()[-1:]
                if newest != [os.path.basename(self._mine)]:
                    self._lost = True
                    return
                self._driver = Driver(**asdict(self._driver) | {"beat": self._driver.beat + 1})
                self._storage.write(self._mine, _json(self._driver))
                self._renewed = began


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
    """When a process started; None where it is not there, or is but an exit code that nobody has asked for."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None

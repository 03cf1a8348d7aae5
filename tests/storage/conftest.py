"""An S3 server, the network to it, and a bucket for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import fsspec.config
import s3fs

from echo_targets.schemas.dataset import object_store as objects
from tests.storage.object_store import Network, Store, credentials, s3_server

QUICK = {"read_timeout": 1, "retries": {"mode": "standard", "total_max_attempts": 1}}
"""botocore gives up at once, so that what tries again is the code under test."""


@pytest.fixture(scope="session")
def server() -> Iterator[Store]:
    with s3_server() as store:
        yield store


@pytest.fixture
def network(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """The way to the server, without faults until one is chosen; short pauses, and a file system of the test's own."""
    network = Network(server.port)
    credentials(monkeypatch, network.port)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": QUICK})
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.02)
    s3fs.S3FileSystem.clear_instance_cache()
    yield network
    s3fs.S3FileSystem.clear_instance_cache()
    network.close()


@pytest.fixture
def bucket(server: Store, request: pytest.FixtureRequest) -> str:
    name = f"bucket-{abs(hash(request.node.nodeid)):x}"
    server.client.create_bucket(Bucket=name)
    return name


def every(count: int, method: str, fault: Any) -> Any:
    """Chooses the fault for each `count`th request of a method, beginning with the second."""
    seen = 0

    def choose(number: int, this: str, path: str) -> Any:
        nonlocal seen
        if this != method:
            return None
        seen += 1
        return fault if seen % count == 1 % count else None

    return choose

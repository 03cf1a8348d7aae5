"""Exports to a bucket and from one, over a network that fails: the bytes of a local export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.export.registry import FORMATS
from echo_targets.jobs.export.resume import export
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from tests.jobs.export.roots import Turns, files, root_of_turns
from tests.schemas.samples import Root
from tests.storage.conftest import every
from tests.storage.object_store import Network, Store


@pytest.fixture(scope="module")
def root(speech: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Root:
    turns = Turns(speech, ["one", "a/b", "three"])
    return root_of_turns(tmp_path_factory.mktemp("export") / "root", turns)


def run(root: str, format: str, out: str, *filters: str) -> int:
    return export(FORMATS[format](Dataset(root), None, filters), filters, out).total


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_to_a_bucket_outlasts_faults_and_has_the_same_bytes(
    format: str, root: Root, network: Network, server: Store, bucket: str, tmp_path: Path
) -> None:
    run(str(root.folder), format, str(tmp_path))
    network.choose = every(4, "PUT", "500")
    assert run(str(root.folder), format, f"s3://{bucket}/out")
    assert network.faults()
    assert server.files(bucket, "out") == files(tmp_path)


def test_an_export_reads_a_bucket(root: Root, network: Network, server: Store, bucket: str, tmp_path: Path) -> None:
    for path, data in files(root.folder).items():
        server.put(bucket, f"root/{path}", data)
    run(str(root.folder), "slam-omni", str(tmp_path / "a"))
    run(f"s3://{bucket}/root", "slam-omni", str(tmp_path / "b"))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_export_to_a_bucket_goes_on_where_it_stopped(
    root: Root, network: Network, server: Store, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(str(root.folder), "webdataset", str(tmp_path))
    with monkeypatch.context() as stopped, pytest.raises(ZeroDivisionError):
        stopped.setattr(FORMATS["webdataset"], "finish", lambda *arguments: 1 / 0)
        run(str(root.folder), "webdataset", f"s3://{bucket}/out")
    before = len(network.seen)
    run(str(root.folder), "webdataset", f"s3://{bucket}/out")
    assert not [path for method, path, _ in network.seen[before:] if method == "PUT" and path.endswith(".tar")]
    assert server.files(bucket, "out") == files(tmp_path)


def test_a_bucket_that_holds_something_else_is_refused(
    root: Root, network: Network, server: Store, bucket: str
) -> None:
    server.put(bucket, "out/notes/a.txt", b"mine")
    with pytest.raises(UserError, match="holds other files"):
        run(str(root.folder), "hub", f"s3://{bucket}/out")
    assert server.files(bucket, "out") == {"notes/a.txt": b"mine"}

"""Files in a folder and in a bucket: the same promises, whatever the network does."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec.config
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from pyarrow.fs import FileSelector

from echo_targets.schemas.dataset import object_store as objects
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.storage import Storage, is_url, open_storage, split
from echo_targets.schemas.errors import UserError
from tests.storage.conftest import every
from tests.storage.object_store import Fault, Network, Store

DATA = bytes(range(256)) * 400


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "root"))
    request.getfixturevalue("network")
    return open_storage(f"s3://{request.getfixturevalue('bucket')}/data/")


@pytest.fixture
def remote(network: Network, bucket: str) -> Storage:
    found = open_storage(f"s3://{bucket}/data")
    found.write("here", DATA)
    network.seen.clear()
    return found


# -- both -------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(place: Storage) -> None:
    place.write("a/b.json", DATA)
    assert place.read("a/b.json") == DATA and place.size("a/b.json") == len(DATA)
    place.write("a/b.json", b"")
    assert place.read("a/b.json") == b"" and place.size("a/b.json") == 0
    with place.open("a/b.json") as file:
        assert file.size() == 0 and file.read() == b""


def test_what_is_not_there(place: Storage) -> None:
    place.write("a/b", b"1")
    for path in ("c", "a/c", "d/e/f"):
        with pytest.raises(FileNotFoundError, match="No such file or directory"):
            place.read(path)
        with pytest.raises(FileNotFoundError):
            place.open(path)
        assert place.size(path) is None
    assert place.size("a") is None
    assert place.list("nowhere") == place.find("nowhere") == []
    place.delete("nowhere/file")


def test_listings_are_fresh(place: Storage) -> None:
    assert place.list("a") == []
    for name in ("b", "c/d", "a"):
        place.write(f"a/{name}", b"1")
        assert name in place.find("a") or f"a/{name}" in place.find("a")
    assert place.list("a") == ["a", "b"]
    assert place.find("a") == ["a/a", "a/b", "a/c/d"]
    assert place.list("") == [] and place.find("") == ["a/a", "a/b", "a/c/d"]
    place.delete("a/b")
    place.delete("a/b")
    assert place.list("a") == ["a"] and place.size("a/b") is None


def test_of_many_who_create_one_does(place: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: place.create("lease", f"driver {number}".encode()), range(8)))
    assert sum(made) == 1
    assert place.read("lease") == f"driver {made.index(True)}".encode()
    place.delete("lease")
    assert place.create("lease", b"another")
    assert place.find("") == ["lease"]


def test_a_file_is_there_when_it_is_put_and_not_before(place: Storage, tmp_path: Path) -> None:
    for path, ends in (("x/put", "put"), ("x/discarded", "discard")):
        writing = place.writing(path)
        with writing.sink() as sink:
            sink.write(DATA)
        with writing.source() as source:
            assert source.read() == DATA
        assert place.size(path) is None
        getattr(writing, ends)()
        writing.discard()
    assert place.find("") == ["x/put"] and place.read("x/put") == DATA


def test_parquet_is_read_in_any_order(place: Storage) -> None:
    table = pa.table({"n": range(50_000), "s": [f"row {n}" for n in range(50_000)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=10_000)
    place.write("t.parquet", sink.getvalue())
    dataset = Dataset(place.where())
    with dataset.open("t.parquet") as file:
        assert file.read_row_group(3, ["s"])["s"][0].as_py() == "row 30000"
        assert file.read_row_group(0, ["n"]).equals(table[:10_000].select(["n"]))
        assert file.read().equals(table)


def test_pyarrow_sees_what_is_there(place: Storage) -> None:
    place.write("a/b", DATA)
    (found,) = place.filesystem.get_file_info(FileSelector(place.path("a")))
    assert (found.base_name, found.size) == ("b", len(DATA)) and found.mtime_ns
    with pytest.raises(FileNotFoundError):
        place.filesystem.get_file_info(FileSelector(place.path("nowhere")))


# -- a folder ---------------------------------------------------------------------------------------------------------


def test_creating_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    place = open_storage(str(tmp_path))
    assert [place.create("lease", b"1"), place.create("lease", b"2")] == [True, False]
    assert place.read("lease") == b"1" and place.list("") == ["lease"]


def test_places() -> None:
    assert [is_url(place) for place in ("s3://a/b", "gs://a", "/a/b", "a")] == [True, True, False, False]
    assert [split(place) for place in ("s3://a/b/c", "/a/b", "a")] == [("s3://a/b", "c"), ("/a", "b"), (".", "a")]


# -- a bucket and its network -----------------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[str, Callable[[Storage], object], object]] = {
    "read": ("GET", lambda place: place.read("here"), DATA),
    "range": ("GET", lambda place: place.open("here").read_at(1000, 50), DATA[50:1050]),
    "list": ("GET", lambda place: place.list(""), ["here"]),
    "find": ("GET", lambda place: place.find(""), ["here"]),
    "size": ("HEAD", lambda place: place.size("here"), len(DATA)),
    "write": ("PUT", lambda place: place.write("new", DATA), None),
    "create": ("PUT", lambda place: place.create("new", DATA), True),
    "delete": ("DELETE", lambda place: place.delete("here"), None),
}
FAULTS: dict[Fault, str] = {
    "409": "create",
    "500": "read range list size write create delete",
    "503": "read write",
    "slow": "range",
    "stalled": "read list",
    "get cut": "read range find",
    "put cut": "write create",
    "answer lost": "read write create delete",
}


@pytest.mark.parametrize(
    ("fault", "name"), [(fault, name) for fault, names in FAULTS.items() for name in names.split()]
)
def test_an_operation_outlasts_a_fault(
    remote: Storage, network: Network, fault: Fault, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, operation, expected = OPERATIONS[name]
    left = 1 if fault == "stalled" else 3

    def choose(number: int, this: str, path: str) -> Fault | None:
        nonlocal left
        left -= this == method
        return fault if this == method and left >= 0 else None

    network.choose = choose
    with caplog.at_level(logging.WARNING, "echo_targets.schemas.dataset.storage"):
        assert operation(remote) == expected
    assert fault in network.faults()
    if fault != "slow":
        assert "attempt 2 of 6 starts" in caplog.text and remote.where() in caplog.text
    network.choose = lambda *_: None
    there = [] if name == "delete" else ["here"]
    assert remote.list("") == (["here", "new"] if method == "PUT" else there)
    if method == "PUT":
        assert remote.read("new") == DATA


def test_connections_refused_for_a_while(remote: Storage, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    port, again = network.port, list[Network]()
    network.close()
    threading.Timer(0.4, lambda: again.append(Network(network.upstream, port))).start()
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.2)
    assert remote.read("here") == DATA
    again[0].close()


def test_connections_refused_for_good_are_an_oserror_that_names_the_file(remote: Storage, network: Network) -> None:
    network.close()
    for operation in (lambda: remote.read("here"), lambda: remote.write("new", DATA), lambda: remote.list("x")):
        with pytest.raises(OSError, match=r"s3://bucket-.*/data/") as raised:
            operation()
        assert type(raised.value) is OSError


def test_a_server_that_stays_broken_is_an_oserror(remote: Storage, network: Network) -> None:
    network.choose = lambda number, method, path: "503"
    with pytest.raises(OSError, match=r"Service Unavailable.*s3://"):
        remote.read("here")
    assert len(network.seen) == objects.ATTEMPTS


def test_an_error_reaches_through_pyarrow(remote: Storage, network: Network) -> None:
    table = pa.table({"n": range(1000)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    remote.write("t.parquet", sink.getvalue())
    file = Dataset(remote.where()).open("t.parquet")
    network.choose = every(1, "GET", "500")
    with pytest.raises(OSError, match=r"Internal Server Error.*t\.parquet"):
        file.read()


def test_a_trickle_ends(remote: Storage, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes keep coming, so that no read times out, and the operation is bounded all the same."""
    monkeypatch.setattr(objects, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(objects, "LEAST_BYTES_PER_SECOND", 1e12)
    network.choose = lambda number, method, path: "slow"
    with pytest.raises(TimeoutError, match="s3://"):
        remote.read("here")


def test_a_put_that_arrives_short_is_no_put(remote: Storage, network: Network, server: Store) -> None:
    """A server that says yes to less than it was sent."""
    bucket = remote.base.split("/")[0]
    spoil = iter([True, False])

    def after(method: str, path: str) -> None:
        if method == "PUT" and next(spoil):
            server.put(bucket, "data/big", DATA[:100])

    network.after = after
    writing = remote.writing("big")
    with writing.sink() as sink:
        sink.write(DATA)
    writing.put()
    assert server.get(bucket, "data/big") == DATA


def test_a_large_file_goes_in_parts_and_appears_whole(
    remote: Storage, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = s3fs.S3FileSystem._put_file

    async def in_parts(self: s3fs.S3FileSystem, local: str, path: str, **options: object) -> None:
        await original(self, local, path, **options | {"chunksize": 5 << 20})

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", in_parts)
    data = os.urandom(12 << 20)
    network.choose = lambda number, method, path: "put cut" if "partNumber=2" in path and not network.faults() else None
    visible = set[int | None]()
    network.after = lambda method, path: None
    writing = remote.writing("big")
    with writing.sink() as sink:
        sink.write(data)
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            visible.add(remote.size("big"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    writing.put()
    done.set()
    watcher.join()
    assert network.faults() == ["put cut"]
    assert visible <= {None, len(data)} and remote.read("big") == data


def test_the_spool_is_gone_however_it_ends(remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    writing = remote.writing("big")
    with writing.sink() as sink:
        sink.write(DATA)
    assert list(tmp_path.iterdir()) == [], "it has no name, so a killed process leaves nothing"
    writing.put()
    assert remote.read("big") == DATA


def test_no_credentials(network: Network, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"s3://bucket-.*: no credentials .*in the environment"):
        open_storage(f"s3://{bucket}").read("x")
    assert network.seen == []


def test_no_bucket(network: Network) -> None:
    storage = open_storage("s3://no-such-bucket/root")
    writing = storage.writing("x")
    with writing.sink() as sink:
        sink.write(b"1")
    operations: list[Callable[[], object]] = [
        lambda: storage.write("x", b"1"),
        lambda: storage.create("x", b"1"),
        writing.put,
        lambda: storage.read("x"),
        lambda: storage.open("x"),
        lambda: storage.size("x"),
        lambda: storage.list("x"),
        lambda: storage.find("x"),
        lambda: storage.delete("x"),
    ]
    for operation in operations:
        network.seen.clear()
        with pytest.raises(UserError, match=r"^s3://no-such-bucket: there is no such bucket; create it, or"):
            operation()
        assert len(network.seen) <= 3, network.seen
    with pytest.raises(UserError, match="Invalid bucket name"):
        open_storage("s3://not a bucket").write("x", b"1")


def test_what_is_not_installed_or_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(UserError, match=r"s4://x: .*s4"):
        open_storage("s4://x")
    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"'echo-targets\[s3\]'"):
        open_storage("s3://x")
    with pytest.raises(UserError, match=r"'echo-targets\[gcs\]'"):
        open_storage("gs://x")


def test_what_the_user_configures_wins(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_storage("s3://x").filesystem.handler.fs.config_kwargs
    assert (found["read_timeout"], found["connect_timeout"]) == (1, objects.S3_CONFIG["connect_timeout"])
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 77}})
    assert open_storage("s3://x").filesystem.handler.fs.config_kwargs["read_timeout"] == 77


def _read_in_child(place: Storage, answers: multiprocessing.SimpleQueue[bool]) -> None:
    answers.put(place.read("here") == DATA)


def test_a_forked_process_reads(remote: Storage) -> None:
    """With the storage that its parent has used: file systems hold threads, which a fork does not take along."""
    assert remote.read("here") == DATA
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(remote, answers))
    child.start()
    child.join(30)
    assert child.exitcode == 0 and answers.get()


def test_many_threads_share_a_file_system(remote: Storage) -> None:
    with ThreadPoolExecutor(16) as pool:
        places = list(pool.map(lambda _: open_storage(remote.where()), range(64)))
        assert set(pool.map(lambda place: place.read("here"), places)) == {DATA}
    assert len({id(place.filesystem.handler.fs) for place in places}) == 1

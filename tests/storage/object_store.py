"""A real S3 server on loopback (moto's), and between it and the pipeline a proxy that does what networks do."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import boto3
import pytest
from moto.server import ThreadedMotoServer

Fault = Literal["403", "409", "500", "503", "slow", "stalled", "get cut", "put cut", "answer lost"]
"""What becomes of a request: an error, a body in trickles, half a body and then silence, half an answer's body or half
a request's body and then a closed connection, or a request that is worked through and never answered."""

Request = tuple[str, str]
"""Method and path."""


class Network(ThreadingHTTPServer):
    """Forwards requests to a server, save those that a fault is chosen for.

    Attributes:
        choose: the fault of a request, by its number (from 0), method and path.
        seen: requests so far, with their faults.
        after: called with method and path when the server has worked through a request.
    """

    daemon_threads = True

    def __init__(self, server_port: int, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Forward)
        self.upstream = server_port
        self.choose: Callable[[int, str, str], Fault | None] = lambda number, method, path: None
        self.after: Callable[[str, str], None] = lambda method, path: None
        self.seen: list[tuple[str, str, Fault | None]] = []
        self.over = threading.Event()
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        self.conditional = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def faults(self) -> list[Fault]:
        return [fault for _, _, fault in self.seen if fault]

    def close(self) -> None:
        """From now on, connections are refused."""
        self.over.set()
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news here."""


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Network

    def _work(self) -> None:
        network = self.server
        with network.lock:
            fault = network.choose(len(network.seen), self.command, self.path)
            network.seen.append((self.command, self.path, fault))
        size = int(self.headers.get("Content-Length") or 0)
        if fault == "put cut":
            self._forward(self.rfile.read(size // 2))
            network.after(self.command, self.path)
            return self._hang_up()
        body = self.rfile.read(size)
        if fault == "409":  # S3's word for a race with a deletion (apache/opendal#6741): try again
            return self._answer(409, [], b"<Error><Code>ConditionalRequestConflict</Code></Error>")
        if fault in ("403", "500", "503"):
            return self._answer(int(fault), [], b"")
        # moto looks whether an object is there and then puts it, in two steps; S3 does both in one
        with network.conditional if self.headers.get("If-None-Match") else nullcontext():
            answer = self._forward(body)
        assert answer is not None
        network.after(self.command, self.path)
        if fault == "answer lost":
            return self._hang_up()
        self._answer(*answer, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _work

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=20)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        if len(body) < int(self.headers.get("Content-Length") or 0):
            with suppress(OSError):
                assert connection.sock is not None
                connection.sock.shutdown(socket.SHUT_WR)
                connection.sock.recv(1)  # the server has made of it what it will
            connection.close()
            return None
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.getheaders(), data

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: Fault | None = None) -> None:
        self.send_response_only(status)
        sized = False
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding"):
                sized = sized or name.lower() == "content-length"
                self.send_header(name, value)
        if not sized:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "slow":
            for start in range(0, len(data), max(1, len(data) // 8)):
                self.wfile.write(data[start : start + max(1, len(data) // 8)])
                time.sleep(0.03)
        elif fault in ("stalled", "get cut"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "stalled":
                self.server.over.wait(60)
            self._hang_up()
        else:
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Store:
    """The S3 server itself, past the network."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="k",
            aws_secret_access_key="s",
            region_name="us-east-1",
        )

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def get(self, bucket: str, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def files(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix, by its path there."""
        keys = [key for key in self.keys(bucket) if key.startswith(f"{prefix}/")]
        return {key.removeprefix(f"{prefix}/"): self.get(bucket, key) for key in sorted(keys)}


@contextmanager
def s3_server() -> Iterator[Store]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield Store(server.get_host_and_port()[1])
    finally:
        server.stop()


def credentials(patch: pytest.MonkeyPatch, port: int) -> None:
    """The environment of somebody who may use the server."""
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.delenv("AWS_PROFILE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        patch.delenv(name, raising=False)

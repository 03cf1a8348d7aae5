"""Audio of web addresses: only where a source allows it, never from this machine or a cloud's metadata service."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas.dataset import object_store, web
from echo_targets.schemas.dataset.storage import open_storage
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.base import SourceError, file_name
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.stages.ingest import IngestParameters
from tests.pipeline.stand_ins import files
from tests.transforms.rows import rejects, run_stages

pytest.importorskip("aiohttp")
FORBIDDEN = web.forbidden


class _Server(BaseHTTPRequestHandler):
    """Serves one file. `/to?URL` redirects there, `/loop` to itself; `/get/…` denies HEAD, as a signed address does."""

    data = b""
    seen: list[str] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.startswith(("/to?", "/loop")):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2] or "/loop")
        elif self.path.startswith("/get/") and self.command == "HEAD":
            self.send_response(403)
        else:
            self.send_response(200 if self.path.partition("?")[0].endswith(".flac") else 404)
        body = self.data if self.path.partition("?")[0].endswith(".flac") else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a web server on every loopback address; 127.0.0.1 stands for a public one."""
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    monkeypatch.setattr(object_store, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(web, "forbidden", lambda address: None if address == "127.0.0.1" else FORBIDDEN(address))
    monkeypatch.setattr(_Server, "data", (tmp_path / "a.flac").read_bytes())
    monkeypatch.setattr(_Server, "seen", [])
    server = ThreadingHTTPServer(("0.0.0.0", 0), _Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def source(folder: Path, places: list[str], **settings: Any) -> dict[str, Any]:
    lines = [json.dumps({"id": str(number), "audio": place}) for number, place in enumerate(places)]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return {"kind": "manifest", "corpus": "c", "manifest": str(folder / "m.jsonl")} | settings


@pytest.mark.parametrize("place", ["http://host.invalid/a.wav", "HTTPS://user:password@host.invalid/a.wav?sig=secret"])
def test_a_web_address_needs_the_sources_consent(place: str, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"c: \S+://\S*host.invalid/a.wav\S* is a web address.*allow_http: true"
    ) as said:
        list(entries([ManifestSource(**source(tmp_path, ["a.wav", place]))]))
    assert "password" not in str(said.value) and "secret" not in str(said.value)
    manifest = ManifestSource(kind="manifest", corpus="c", manifest="https://host.invalid/m.jsonl")
    with pytest.raises(SourceError, match="allow_http: true"):
        list(manifest.items())


def _lhotse(folder: Path, place: str) -> dict[str, Any]:
    recording = {"id": "r", "sources": [{"type": "url", "channels": [0], "source": place}], "duration": 1.0}
    (folder / "cuts.jsonl").write_text(
        json.dumps({"type": "MonoCut", "id": "c", "start": 0, "duration": 1.0, "channel": 0, "recording": recording})
    )
    return {"kind": "lhotse", "tree": str(folder), "cuts": "cuts.jsonl"}


def _nemo(folder: Path, place: str) -> dict[str, Any]:
    (folder / "m.json").write_text(json.dumps({"audio_filepath": place}))
    return {"kind": "nemo", "tree": str(folder), "manifests": "m.json"}


def _kaldi(folder: Path, place: str) -> dict[str, Any]:
    (folder / "wav.scp").write_text(f"u {place}\n")
    return {"kind": "kaldi", "tree": str(folder)}


def _in_folder(folder: Path, place: str) -> dict[str, Any]:
    return {"kind": "folder", "folder": place}


def _in_archives(folder: Path, place: str) -> dict[str, Any]:
    return {"kind": "webdataset", "tree": place}


@pytest.mark.parametrize("made", [_lhotse, _nemo, _kaldi, _in_folder, _in_archives])
def test_every_kind_needs_the_sources_consent(made: Callable[[Path, str], dict[str, Any]], tmp_path: Path) -> None:
    given = made(tmp_path, "https://host.invalid/a.wav") | {"corpus": "c"}
    (parsed,) = IngestParameters.model_validate({"sources": [given]}).sources
    with pytest.raises(SourceError, match=r"c: https://host\.invalid/a\.wav is a web address.*allow_http: true"):
        list(parsed.items())


@pytest.mark.parametrize("made", [_lhotse, _nemo, _kaldi])
def test_every_kind_loads_audio_of_a_web_server(
    made: Callable[[Path, str], dict[str, Any]], server: int, tmp_path: Path
) -> None:
    given = made(tmp_path, f"http://127.0.0.1:{server}/a.flac") | {"corpus": "c", "allow_http": True}
    dataset, reports = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    assert (reports["ingest"].rows, reports["ingest"].rejects) == (1, 0)
    assert dataset.read("utterances")["num_samples"].to_pylist() == [16_000]


def test_audio_of_a_web_server(server: int, tmp_path: Path) -> None:
    at = f"http://127.0.0.1:{server}"
    places = [
        f"{at}/a.flac",
        f"{at}/get/a.flac",
        f"http://user:password@127.0.0.1:{server}/a.flac?X-Amz-Signature=secret",
        f"{at}/to?{at}/a.flac",
        f"{at}/gone?X-Amz-Signature=secret",
        f"{at}/loop",
        "http://[bad/a.flac",
        "http://host:port/a.flac",
        "http:///a.flac",
    ]
    given = source(tmp_path, places, allow_http=True)
    dataset, reports = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    assert reports["ingest"].rows == 4
    paths = [row["audio"]["path"] for row in dataset.read("utterances").to_pylist()]
    assert paths[:3] == ["a.flac"] * 3
    found = {key: (row["error_class"], row["message"]) for key, row in rejects(dataset, "utterances").items()}
    assert {kind for kind, _ in found.values()} <= {"missing_file", "bad_line"} and len(found) == 5
    assert "TooManyRedirects" in found["5"][1]
    published = [data for name, data in files(tmp_path / "root").items() if not name.startswith("entries/")]
    assert not any(word in data for word in (b"password", b"secret") for data in published)


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.2:{port}/a.flac",
        "http://0.0.0.0:{port}/a.flac",
        "http://2130706434:{port}/a.flac",
        "http://127.0.0.1:{port}/to?http://127.0.0.2:{port}/a.flac",
        "http://127.0.0.1:{port}/to?http://loop.test:{port}/a.flac",
        "http://loop.test:{port}/a.flac",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_what_leads_to_this_machine_is_a_reject(
    place: str, server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.2" if host == "loop.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    places = ["a.flac", place.format(port=server)]
    dataset, reports = run_stages(
        tmp_path / "root", {"ingest": {"sources": [source(tmp_path, places, allow_http=True)]}}
    )
    assert reports["ingest"].rows == 1
    (reject,) = rejects(dataset, "utterances").values()
    assert reject["error_class"] == "missing_file" and any(
        why in reject["message"] for why in ("from which no audio is loaded", "is not a canonical IPv4 address")
    )
    assert not any(path.endswith("a.flac") and not path.startswith("/to") for path in _Server.seen)


@pytest.mark.parametrize(
    "place",
    ["ftp://host/a.wav", "simplecache::http://host/a.wav", "s3://b/x::http://host/a.wav", "local:///etc/passwd"],
)
def test_other_ways_to_a_host_are_bad_lines(place: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    _, item = ManifestSource(**source(tmp_path, ["a.wav", place], allow_http=True)).items()
    assert item.error_class == "bad_line" and ("is not one of s3" in str(item.error) or "`::`" in str(item.error))


def test_a_path_below_a_bucket_is_no_other_url() -> None:
    with pytest.raises(UserError, match="`::` in a URL is not supported"):
        open_storage("s3://bucket/x::http://169.254.169.254")


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "this machine"),
        ("127.9.9.9", "this machine"),
        ("0.0.0.0", "this machine"),
        ("0.1.2.3", "this machine"),
        ("::1", "this machine"),
        ("::", "this machine"),
        ("::ffff:127.0.0.1", "this machine"),
        ("::7f00:1", "this machine"),
        ("64:ff9b::7f00:1", "this machine"),
        ("2002:7f00:1::", "this machine"),
        ("169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("224.0.0.1", "no address"),
        ("255.255.255.255", "no address"),
        ("10.1.2.3", None),
        ("192.168.0.7", None),
        ("fd12::1", None),
        ("93.184.216.34", None),
        ("2606:4700::1111", None),
    ],
)
def test_addresses(address: str, what: str | None) -> None:
    found = web.forbidden(address)
    assert (what in str(found)) if what else found is None


def test_names_of_files() -> None:
    assert (
        file_name("https://host/b/a.wav?sig=a/b") == file_name("s3://bucket/a.wav") == file_name("/b/a.wav") == "a.wav"
    )
    assert file_name("b/what?.wav") == "what?.wav"

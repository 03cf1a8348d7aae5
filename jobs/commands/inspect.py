"""`echo-targets inspect`: write the inspector page of a dataset, and optionally serve it on this machine."""

from __future__ import annotations

import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import typer

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.escapes import one_line
from echo_targets.jobs.inspector.site import Site, write_site
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.models.vocoders.registry import open_vocoder

LOOPBACK = "127.0.0.1"
PORT = 8010


def inspect_command(
    root: Root,
    out: Annotated[
        str, typer.Option(help="Folder to write the page to; an earlier page in it is replaced.")
    ] = "out/inspect",
    sounds: Annotated[
        int, typer.Option(help="Approximate number of rows with sound, sampled by whole dialogues.", min=0)
    ] = 500,
    vocoder: Annotated[
        str | None,
        typer.Option(help="Directory that synthesizes the targets of those rows: a unit HiFi-GAN, or their codec."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine only; then every row has sound.")
    ] = False,
) -> int:
    """Write a web page for browsing and listening to a dataset: overview, search, and each utterance on a time axis.

    The page is a folder of static files and needs no server: open its index.html, or copy the folder elsewhere.

    Example: echo-targets inspect out/calls --serve
    """
    try:
        voice = open_vocoder(Path(vocoder)) if vocoder else None
        site, sounding = write_site(root, Path(out), sounds, voice)
    except ImportError as error:
        raise UserError(f"{error.name} is not installed. Install it: pip install 'echo-targets[inspect]'") from error
    print(f"{out}/index.html: {site.source.total:,} rows, {sounding:,} with sound. Open it in a browser.")
    if serve:
        with server(site) as running:
            print(
                f"http://{LOOPBACK}:{running.server_port}/ serves it with sound for every row. Press Ctrl-C to stop.",
                flush=True,
            )
            try:
                running.serve_forever()
            except KeyboardInterrupt:
                return 130
    return 0


def server(site: Site) -> ThreadingHTTPServer:
    """Return a server of the site's files that listens on the loopback address and makes rows' sounds on request."""
    handler = partial(_Handler, site, Lock(), directory=str(site.folder))
    try:
        return ThreadingHTTPServer((LOOPBACK, PORT), handler)
    except OSError:  # the port is taken; let the system choose another
        return ThreadingHTTPServer((LOOPBACK, 0), handler)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site: Site, lock: Lock, *arguments: Any, **named: Any) -> None:
        self.site, self.lock = site, lock
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in (LOOPBACK, "localhost"):
            self.send_error(403, "unexpected host name")  # DNS rebinding: another site's name resolves to this machine
            return
        if self.path == "/served.js":
            self._send_script(b"site.served = true\n")
            return
        found = re.fullmatch(r"/data/((sounds|voices)/(\d{6,9}))\.js", self.path)
        if found and int(found[3]) < self.site.source.total:
            with self.lock:
                if not (self.site.folder / "data" / f"{found[1]}.js").is_file():
                    put = self.site.put_any_sound if found[2] == "sounds" else self.site.put_any_voice
                    put(int(found[3]))
        super().do_GET()

    def _send_script(self, script: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Content-Length", str(len(script)))
        self.end_headers()
        self.wfile.write(script)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # another dataset may be served at this address later
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Ignore requests; only errors are logged."""

    def log_error(self, format: str, *arguments: Any) -> None:
        print(one_line(format % arguments), file=sys.stderr)

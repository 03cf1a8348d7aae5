"""The rules of the architecture, read from the imports: they go one way between the packages, without circles."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMESPACE = "echo_targets"
PACKAGES = ("schemas", "transforms", "pipeline", "jobs")
MAY_IMPORT = {
    "schemas": ("schemas",),
    "transforms": ("schemas", "transforms"),
    "pipeline": ("schemas", "transforms.base", "transforms.errors", "pipeline"),
    "jobs": PACKAGES,
}
LEVELS = ({"units"}, {"segments"}, {"models"}, {"sources", "training", "loading"}, {"stages"})
"""Packages of `transforms/`, lowest first; whatever is in none of them (base, errors, text, audio …) is below all. A
package imports those below it, and itself."""
HEAVY = {
    "torch",
    "torchaudio",
    "transformers",
    "whisper",
    "faster_whisper",
    "ctranslate2",
    "fairseq2",
    "speechbrain",
    "s3tokenizer",
    "datasets",
    "ray",
    "apache_beam",
    "hama",
    "hibari",
    "soundfile",
    "av",
    "soxr",
    "sklearn",
    "numba",
    "num2words",
    "datasketch",
    "onnxruntime",
}
"""Libraries that are imported where they are used: inside a function, or for type checking alone."""
DERIVES = {
    "transforms/models/t2c/network.py": {"torch", "transformers"},
    "transforms/models/t2c/llama_decoding.py": {"torch", "transformers"},
    "transforms/models/echox/network.py": {"torch", "transformers"},
    "transforms/models/readers/ctc_network.py": {"torch"},
    "transforms/loading/dataset.py": {"torch"},
    "transforms/units/viterbi.py": {"numba"},
    "pipeline/runners/beam/steps.py": {"apache_beam"},
    "pipeline/runners/beam/direct_runner.py": {"apache_beam"},
}
"""Modules whose classes or functions need a heavy library; they are themselves imported where they are used."""
READS = {"transforms/models/tokenizers/kmeans_pickle.py": {"pickle"}}
"""Reads k-means files by a class that makes inert records of whatever a pickle names."""
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(tree: ast.AST, everywhere: bool) -> Iterator[str]:
    """Full names of what a module imports: everywhere, or only as it is itself imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif everywhere or not (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or for_type_checking(node)
        ):
            yield from imports(node, everywhere)


def for_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_there_is_something_to_read() -> None:
    assert {path.parts[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_arrows_point_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[path.parts[0]]
    names = list(imports(parsed(path), everywhere=True))
    assert [name for name in names if name.partition(".")[0] in PACKAGES] == [], "our own are in the namespace"
    own = [name.removeprefix(f"{NAMESPACE}.") for name in names if name.startswith(f"{NAMESPACE}.")]
    assert [name for name in own if not any(below(name, package) for package in allowed)] == []


def level(module: str) -> tuple[int, str]:
    """Return a module's level inside `transforms/`, and its package; level -1 is below all packages."""
    package = module.split(".")[2] if module.count(".") > 1 else ""
    return next((number for number, packages in enumerate(LEVELS) if package in packages), -1), package


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "transforms"], ids=str)
def test_packages_of_transforms_import_what_is_below_them(path: Path) -> None:
    mine, own = level(module_of(path))
    for imported in runtime_imports(path):
        if below(imported, f"{NAMESPACE}.transforms"):
            theirs, other = level(imported)
            assert theirs < mine or other == own or theirs == mine == -1, imported


def test_no_import_circles() -> None:
    """Function-level imports count: a circle that is hidden in a function is a circle."""
    modules = {module_of(path): path for path in FILES}
    graph = {module: {name for name in runtime_imports(path) if name in modules} for module, path in modules.items()}
    TopologicalSorter(graph).prepare()


def module_of(path: Path) -> str:
    return ".".join([NAMESPACE, *path.with_suffix("").parts]).removesuffix(".__init__")


def runtime_imports(path: Path) -> set[str]:
    """Return our own modules that a module imports, in functions too, but not for type checking."""
    known = {module_of(each) for each in FILES}
    tree = parsed(path)
    typing = {id(inner) for node in ast.walk(tree) if for_type_checking(node) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
    return (found & known) - {module_of(path)}


def test_names_do_not_differ_by_an_ending() -> None:
    """`encoder.py` and `encoders.py` in one folder would be told apart by a letter."""
    for folder in {path.parent for path in FILES}:
        names = {path.stem for path in FILES if path.parent == folder}
        pairs = {(name, f"{name}{ending}") for name in names for ending in ("s", "ing", "er", "ed")}
        assert not {pair for pair in pairs if pair[1] in names}, folder


@pytest.mark.parametrize("path", FILES, ids=str)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    found = {name.partition(".")[0] for name in imports(parsed(path), everywhere=False)} & HEAVY
    assert found - DERIVES.get(path.as_posix(), set()) == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "schemas"], ids=str)
def test_schemas_need_pyarrow_and_fsspec_alone(path: Path) -> None:
    found = {name.partition(".")[0] for name in imports(parsed(path), everywhere=True)}
    web = {"aiohttp"} if path.name == "web.py" else set()  # what fsspec loads web addresses with
    assert found <= sys.stdlib_module_names | {"pyarrow", "fsspec", NAMESPACE} | web


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_unpickles(path: Path) -> None:
    names = {name.partition(".")[0] for name in imports(parsed(path), everywhere=True)} - READS.get(
        path.as_posix(), set()
    )
    assert names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} == set()
    for call in (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("allow_pickle", "False") == "False", ast.unparse(call)
        assert ast.unparse(call.func) != "torch.load" or given.get("weights_only") == "True", ast.unparse(call)


def test_what_this_test_reads() -> None:
    """That it sees through try, if and class, and not into functions."""
    tree = ast.parse(
        "try:\n import torch.nn\nexcept ImportError: pass\n"
        "if TYPE_CHECKING:\n import ray\n"
        "class A:\n import av\n def b(self):\n  from whisper import load\n"
    )
    assert list(imports(tree, everywhere=False)) == ["torch.nn", "av"]
    assert list(imports(tree, everywhere=True)) == ["torch.nn", "ray", "av", "whisper.load"]

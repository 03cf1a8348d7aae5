"""The documents agree with the code: commands, configurations, links, paths, names and examples exist."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.exceptions import TyperException

from echo_targets.jobs import cli
from echo_targets.jobs.config import ConfigError, ExecutionConfig, execution, find, load, read_values
from echo_targets.schemas.errors import UserError
from tests.schemas.samples import Root, samples

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "benchmarks" / "README.md"]
PLACES = ("schemas", "transforms", "pipeline", "jobs", "tests", "benchmarks", "docs")
OWN_EXAMPLES = ("STAGES.md", "TRAINING.md")
"""Their Python examples are run by `tests/jobs/test_own_stage.py` and `tests/transforms/loading/test_docs.py`."""
README_WORDS, DOCS_WORDS = 900, 14_000
GIVEN = ["manifest=calls.jsonl", "root=out"]
"""What `folder` needs. It stands in for configurations of the reader's own, such as `job.yaml`."""

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
ECHO_TARGETS = re.compile(r"^(?:python -m echo_targets\.jobs\.cli|echo-targets)\b *(.*)")
PLACEHOLDER = "…"


# -- commands ---------------------------------------------------------------------------------------------------------


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks in one of the languages, without their indentation."""
    found = [(match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)) for match in FENCE.finditer(text)]
    return [code for language, code in found if language in languages]


def shell_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in the shell blocks."""
    lines = [line for code in blocks(text, "sh", "bash") for line in re.sub(r"\\\n\s*", " ", code).splitlines()]
    workflows = "\n".join(blocks(text, "yaml"))
    for line in [*lines, *re.findall(r"(?<=[ :])echo-targets [a-z][^\n|;&>]*", workflows)]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not re.fullmatch(r"[|;&]+|--", word):
                words.append(word)
            elif words:
                yield words
                words = []


def command_faults(words: list[str]) -> Iterator[str]:
    """Yield what is wrong with a command of the shell."""
    match words:
        case ["echo-targets", *rest]:
            yield from cli_faults(rest)
        case ["python", "-m", "echo_targets.jobs.cli", *rest]:
            yield from cli_faults(rest)
        case ["python", "-m", module, *rest]:
            yield from module_faults(module, rest)
        case ["make", *targets]:
            made = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            yield from (f"make {target}: no such target" for target in targets if target not in made)
        case ["pip", "install", *rest]:
            wanted = {
                name.strip() for word in rest for extras in re.findall(r"\[(.+)\]", word) for name in extras.split(",")
            }
            is_own = any(re.match(r"\.?(/\S+)?\[", word) for word in rest)
            yield from (f"pip install: no extra {name}" for name in sorted(wanted - extras()) if is_own)


def commands() -> Any:
    """Return the command of `echo-targets`, a group."""
    return typer.main.get_command(cli.app)


def cli_faults(arguments: list[str]) -> Iterator[str]:
    """Yield what is wrong with the arguments of `echo-targets`: command, options, configuration, overrides."""
    shown, names, command = shlex.join(arguments), list[str](), commands()
    while hasattr(command, "commands"):
        names.append(next(iter(arguments), "--help"))
        if names[-1] == "--help":
            return
        command, arguments = command.commands.get(names[-1]), arguments[1:]
    if command is None:
        yield f"echo-targets {shown}: no command {' '.join(names)}"
        return
    try:
        given = cli.load(" ".join(names)).make_context(names[-1], list(arguments)).params
    except TyperException as error:
        yield f"echo-targets {shown}: {error}"
        return
    overrides = [one for one in given.get("overrides") or [] if PLACEHOLDER not in one]
    try:
        if names[0] == "train":
            check_recipe(given["config"], overrides)
        elif given.get("config"):
            check_job(given["config"], [f"root={given['root']}", *overrides] if names == ["status"] else overrides)
        else:
            execution(overrides)
    except UserError as error:
        yield f"echo-targets {shown}: {error}"


def check_job(config: str, overrides: list[str]) -> None:
    """Load a shipped configuration with the overrides, or `folder` in the place of the reader's own.

    Raises:
        ConfigError: no such configuration ships, or it does not take the overrides.
    """
    if config == "CONFIG":
        return
    if re.search(r"\.ya?ml$", config):
        config, overrides = "folder", [*GIVEN, *overrides]
    load(config, overrides)


def check_recipe(config: str | None, overrides: list[str]) -> None:
    """Check that a recipe ships and has the keys that are overridden."""
    for name in [config] if config else ["train-t2c", "train-unit-translator"]:
        path = find(name)
        known = read_values(path, [])
        for override in overrides:
            section = known
            *outer, _ = override.partition("=")[0].split(".")
            for key in outer:
                if key not in section:
                    raise ConfigError(f"{override}: {path} has no {key}")
                section = section[key]


def module_faults(module: str, arguments: list[str]) -> Iterator[str]:
    """Yield what is wrong with `python -m module`: no such module, or an option that its source does not name."""
    path = module_file(module)
    if path is None:
        if module.split(".")[0] in ("benchmarks", "echo_targets", "tests"):
            yield f"python -m {module}: no such module"
        return
    source = path.read_text() + (ROOT / "benchmarks" / "common.py").read_text()
    for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        if f'"{option}"' not in source and f'("{option[2:]}", ' not in source:
            yield f"python -m {module} {option}: no such option"


@functools.cache
def extras() -> set[str]:
    """Return the names of the extras in setup.cfg."""
    section = (ROOT / "setup.cfg").read_text().partition("[options.extras_require]")[2].partition("\n[")[0]
    return set(re.findall(r"^(\w+) =", section, re.MULTILINE))


def inline_faults(text: str) -> Iterator[str]:
    """Yield the commands named in running text that don't exist; their arguments may be missing."""
    for code in INLINE.findall(FENCE.sub("", text)):
        match = ECHO_TARGETS.match(" ".join(code.split()))
        if not match:
            continue
        command, names, words = commands(), list[str](), match[1].split()
        while hasattr(command, "commands") and words and re.match(r"[a-z]", words[0]):
            names.append(words.pop(0))
            command = command.commands.get(names[-1])
        if command is None:
            yield f"`{' '.join(code.split())}`: no such command"
            continue
        if not hasattr(command, "commands"):
            command = cli.load(" ".join(names))
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        yield from (f"`{code}`: no option {word}" for word in words if word.startswith("--") and word not in known)


# -- configurations ---------------------------------------------------------------------------------------------------


def yaml_faults(code: str, folder: Path) -> Iterator[str]:
    """Yield what is wrong with a YAML block that is part of a job's configuration; others must be YAML."""
    try:
        values = yaml.safe_load(code)
    except yaml.YAMLError as error:
        yield f"{code}\nis not YAML: {error}"
        return
    fields = {"root", "stages", *ExecutionConfig.model_fields}
    if not isinstance(values, dict) or not fields & values.keys():
        return
    if "jobs" in values:  # a workflow of GitHub
        return
    ingest = {"sources": [{"kind": "manifest", "corpus": "calls", "manifest": "calls.jsonl"}]}
    job = {"root": "out", **values, "stages": {"ingest": ingest, **values.get("stages", {})}}
    stages = job.get("stages", {})
    job = job | {"stages": {name: stages[name] for name in stages if ":" not in name}}  # stages of a user's own package
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    try:
        load(str(path), [])
    except ConfigError as error:
        yield f"{code}\n{error}"


# -- links, paths and names -------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    bare = [re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in bare}


def link_faults(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links that lead nowhere, and the anchors that no heading makes."""
    own = anchors(text)
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if path and not target.exists():
            yield f"{page.name}: {link}: no such file"
        elif anchor and anchor not in (anchors(target.read_text(encoding="utf-8")) if path else own):
            yield f"{page.name}: {link}: no such heading"


def path_faults(text: str) -> Iterator[str]:
    """Yield the paths of this repository's files, and the names of tests, that don't exist."""
    for path in re.findall(rf"(?<![\w./-])((?:{'|'.join(PLACES)})/[\w./-]*[\w/])(?![\w*{{<{PLACEHOLDER}])", text):
        if not (ROOT / path).exists():
            yield f"{path}: no such file"
    for name in re.findall(r"(?<![\w/.])(test_\w+\.py)\b", text):
        if not any((ROOT / "tests").rglob(name)):
            yield f"{name}: no such test file"
    for name in re.findall(r"`(test_\w+)`", text):
        if f"def {name}(" not in source_of_tests():
            yield f"{name}: no such test"


@functools.cache
def source_of_tests() -> str:
    """Return the source of all tests."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))


def name_faults(text: str) -> Iterator[str]:
    """Yield the dotted names of this project, and the imports of Python blocks, that don't exist."""
    for name in re.findall(r"(?<![\w./-])((?:echo_targets|benchmarks)(?:\.\w+)+)", text):
        if not is_name(name):
            yield f"{name}: no such module or name"
    for code in blocks(text, "python", "py"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "echo_targets":
                for name in (f"{node.module}.{one.name}" for one in node.names):
                    if not is_name(name):
                        yield f"{name}: no such module or name"


def module_file(module: str) -> Path | None:
    """Return the file of a module of this project, which is not imported."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def is_name(name: str) -> bool:
    """Return True if a dotted name is a module of this project, or what one defines or imports."""
    if module_file(name):
        return True
    module, _, attribute = name.rpartition(".")
    file = module_file(module) if module else None
    if file is None:
        return False
    defined = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined.update(one.asname or one.name for one in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name))
    return attribute in defined


# -- words ------------------------------------------------------------------------------------------------------------


def prose_words(text: str) -> int:
    """Count the words that a reader reads: not those of code blocks, inline code, link targets, or figures."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|<https?:[^>]*>", " ", FENCE.sub("", text))
    return sum(bool(re.search(r"[^\W\d_]", word)) for word in prose.split())


# -- the documents ----------------------------------------------------------------------------------------------------


def faults(page: Path, text: str, folder: Path) -> list[str]:
    """Return everything that is wrong with a page."""
    checks: list[Callable[[str], Iterator[str]]] = [inline_faults, path_faults, name_faults]
    found = [fault for check in checks for fault in check(text)]
    found += [fault for words in shell_commands(text) for fault in command_faults(words)]
    found += [fault for code in blocks(text, "yaml") for fault in yaml_faults(code, folder)]
    for line in (line for code in blocks(text, "json") for line in re.split(r"\n(?={)", code.strip())):
        try:
            json.loads(line)
        except ValueError as error:
            found.append(f"{line}: not JSON: {error}")
    return [*found, *link_faults(page, text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_agrees_with_the_code(page: Path, tmp_path: Path) -> None:
    assert faults(page, page.read_text(encoding="utf-8"), tmp_path) == []


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(link_faults(page, page.read_text(encoding="utf-8"))) == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index] == []


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Root(tmp_path / "out").put("measures", samples("measures", 9))
    monkeypatch.chdir(tmp_path)
    for page in PAGES[1:]:
        if page.name not in OWN_EXAMPLES:
            for code in blocks(page.read_text(encoding="utf-8"), "python"):
                exec(compile(code, str(page), "exec"), {})


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= README_WORDS


def test_the_documents_are_short() -> None:
    """Only a warning: a new page need not wait until the others are shorter."""
    words = {page.name: prose_words(page.read_text(encoding="utf-8")) for page in PAGES[1:]}
    if sum(words.values()) > DOCS_WORDS:
        warnings.warn(f"docs/ has {sum(words.values())} words, more than {DOCS_WORDS}: {words}", stacklevel=1)


BAD = """
# A page

See [nothing](NOWHERE.md), [no heading](#nothing), [itself](#a-page). `echo-targets rerun`, `echo-targets check --deep`.
`transforms/models/unit_tokenizers.py` has `echo_targets.transforms.trainer`; `test_echox_sizes.py` tests it.

```sh
echo-targets rerun --only rejects
echo-targets diff out/calls@1 --table
echo-targets check out --level everything
echo-targets run foldr manifest=m root=r
echo-targets run folder manifest=m root=r stages.publish_s2t.max_werr=0.2
echo-targets run job.yaml runner=spark \\
    && echo-targets fit-codebook out c.safetensors --sise 5
echo-targets train t2c out model recipes.steps=5
python -m benchmarks.nothing
python -m benchmarks.quality ROOT --models DIR
make everything
pip install -c constraints.txt '.[rey]'
ray job submit --address=http://HEAD:8265 -- python -m echo_targets.jobs.cli retry echox-6k rot=out
```

```yaml
steps:
  - run: echo-targets check "$ROOT" --fromat junit > check.xml
```

```yaml
stages:
  transcribe: {beam: 5}
```

```json
{"id": 1
```

```python
from echo_targets.schemas.dataset.layout import Dataset, Datasets
```
"""
BAD_FAULTS = [
    "`echo-targets rerun`: no such command",
    "`echo-targets check --deep`: no option --deep",
    "transforms/models/unit_tokenizers.py: no such file",
    "test_echox_sizes.py: no such test file",
    "echo_targets.transforms.trainer: no such module or name",
    "echo_targets.schemas.dataset.layout.Datasets: no such module or name",
    "echo-targets rerun --only rejects: no command rerun",
    "diff out/calls@1 --table: ",
    "check out --level everything: ",
    "foldr: neither a file nor a shipped configuration",
    "max_werr: unknown key",
    "runner=spark: ",
    "No such option: --sise",
    "recipes.steps=5: ",
    "benchmarks.nothing: no such module or name",
    "python -m benchmarks.nothing: no such module",
    "python -m benchmarks.quality --models: no such option",
    "make everything: no such target",
    "pip install: no extra rey",
    "rot: unknown key",
    "No such option: --fromat",
    "stages.transcribe.beam: unknown key",
    "not JSON",
    "NOWHERE.md: no such file",
    "#nothing: no such heading",
]


def test_mistakes_are_found(tmp_path: Path) -> None:
    found = faults(ROOT / "docs" / "BAD.md", BAD, tmp_path)
    assert len(found) == len(BAD_FAULTS), "\n".join(found)
    assert [want for want in BAD_FAULTS if not any(want in fault for fault in found)] == []


def test_words_are_those_of_the_prose() -> None:
    text = "# Two words\n\nOne `code span` [link](x.md) 5 %.\n\n```sh\nnot counted\n```\n"
    assert prose_words(text) == 4

"""Shipped configurations are valid, and every error names its key and its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from echo_targets.jobs.config import CONFIGS, ConfigError, execution, load

GIVEN = {
    "folder": ["manifest=m.jsonl", "root=out"],
    "audio": ["folder=calls", "root=out"],
    "recordings": ["folder=audio", "root=out"],
    "demo": ["corpus=corpus"],
    "nano-t2c": ["root=out"],
    "nano-corpus": ["texts=t.jsonl", "root=out"],
    "nano-reader": ["texts=t.jsonl", "root=out"],
    "nano-targets": ["texts=t.jsonl", "root=out", "model=two"],
    "echox-6k": [],
    "english": ["texts=t.jsonl", "root=out"],
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_ships_is_valid(name: str) -> None:
    settings = load(name, [*GIVEN[name], "workers=3", "stages.tokenize.model=x.pt"])
    assert settings.workers == 3
    assert settings.specs()[0].transform.split(":")[1] == "Ingest"
    assert settings.stages["tokenize"]["model"] == "x.pt"


def test_every_job_configuration_is_tested() -> None:
    assert GIVEN.keys() == {path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("train-")}


def fails(config: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(config, list(overrides))
    return str(caught.value)


def test_a_missing_value_says_what_to_add() -> None:
    said = fails("folder", "root=out")
    assert re.search(r"folder\.yaml, line \d+: manifest: needs a value\. Add manifest=… to the command\.$", said)


def test_missing_values_are_named_once_each(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    source = "corpus: ${corpus}\n      manifest: ???"
    path.write_text(f"root: ???\ncorpus: ???\nstages:\n  ingest:\n    sources:\n    - {source}\n")
    said = "line 1: root: needs a value. Add root=… corpus=… stages.ingest.sources.0.manifest=… to the command."
    assert fails(str(path)) == f"{path}, {said}"


def test_no_such_configuration() -> None:
    said = fails("mls")
    assert re.search(
        r"Shipped jobs are audio, corpora/audioqa-1m, .*corpora/mls, .*demo, echox-6k, english, folder, ", said
    )
    assert "; trainings are train-echo, " in said


def test_an_unknown_key_on_the_command_line() -> None:
    said = fails("folder", *GIVEN["folder"], "worker=2")
    assert "'worker=2' on the command line" in said and "did you mean workers?" in said


def test_not_key_value() -> None:
    assert "'workers' is not of the form key=value" in fails("folder", "workers")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("wrokers: 2", "line 3: wrokers: unknown key; did you mean workers?"),
        ("workers: none", "line 3: workers: Input should be a valid integer"),
        ("shard_hours: -1", "line 3: shard_hours: Input should be greater than 0"),
        ("runner: slurm", "line 3: runner: Input should be 'local'"),
        ("  transcribe: {beam: 5}", "line 3: stages.transcribe.beam: unknown key"),
        ("  transcripe: {}", "line 3: stages.transcripe: unknown key; did you mean transcribe?"),
        ("  echo: {segments: {min_tokens: few}}", "line 3: stages.echo.segments.min_tokens"),
        ("  tokenize: [1]", "line 3: stages.tokenize"),
        ("\tworkers: 2", "line 3: invalid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "job.yaml"
    ingest = "  ingest: {sources: [{kind: manifest, corpus: c, manifest: m.jsonl}]}"
    nested = line.startswith("  ")
    lines = ["root: out", "stages:", line, ingest] if nested else ["root: out", "", line, "stages:", ingest]
    path.write_text("\n".join(lines))
    assert says in fails(str(path))


def test_an_unknown_source(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("root: out\nstages:\n  ingest:\n    sources:\n      - kind: ftp\n        corpus: c\n")
    said = fails(str(path))
    assert "job.yaml, line 5: stages.ingest.sources.0" in said and "'ftp'" in said


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ray.adress=auto", "'ray.adress=auto' on the command line: ray.adress: unknown key; did you mean address?"),
        ("runner=spark", "runner: Input should be 'local', 'ray' or 'beam', not 'spark'"),
        ("when_busy=maybe", "when_busy: Input should be 'refuse' or 'wait'"),
        ("ray.min_workers=0", "ray.min_workers: "),
    ],
)
def test_where_to_work_is_checked_too(override: str, says: str) -> None:
    assert says in fails("folder", "manifest=m.jsonl", "root=out", override)
    with pytest.raises(ConfigError) as caught:
        execution([override])
    assert says in str(caught.value)


def test_options_of_the_runners_are_taken_from_the_command_line() -> None:
    chosen = execution(["runner=beam", "beam.runner=FlinkRunner", "beam.parallelism=4", "ray.runtime_env.pip=[a]"])
    assert chosen.beam.values == {"runner": "FlinkRunner", "parallelism": 4}
    assert chosen.ray.runtime_env == {"pip": ["a"]}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("sources.0.shar=1", ": stages.ingest.sources.0.shar: unknown key; did you mean share?"),
        ("sources.0.expected.item=1", ": stages.ingest.sources.0.expected.item: unknown key; did you mean items?"),
        ("sources.0.expected.items=0", ": stages.ingest.sources.0.expected.items: Input should be greater than 0"),
        ("sources.1.share=1", "'stages.ingest.sources.1.share=1' on the command line: list index out of range"),
        ("sources.first.share=1", "'stages.ingest.sources.first.share=1' on the command line: "),
    ],
)
def test_a_source_can_be_changed_on_the_command_line(override: str, says: str) -> None:
    given = ["data=d", "root=out"]
    (source,) = load("corpora/mls", [*given, "stages.ingest.sources.0.share=0.5"]).stages["ingest"]["sources"]
    assert source["share"] == 0.5 and source["expected"]["items"] == 723_636
    assert says in fails("corpora/mls", *given, f"stages.ingest.{override}")


def test_a_key_that_is_called_as_its_source_is() -> None:
    said = fails("folder", "manifest=m.jsonl", "root=out", "stages.ingest.sources.0.manifest=[1]")
    assert "command line: stages.ingest.sources.0.manifest: Input should be a valid string" in said


COMMAND = re.compile(r"^#   echo-targets run (?P<name>\S+) (?P<overrides>[^\[#\n]*)", re.MULTILINE)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_commands_in_its_comments_are_valid(path: Path) -> None:
    for found in COMMAND.finditer(path.read_text(encoding="utf-8")):
        load(found["name"], [one for one in found["overrides"].split() if not one.startswith("--")])


def test_a_target_that_nobody_says_is_not_published() -> None:
    echo = ["manifest=x", "root=y", "stages.echo.targets=[recorded]"]
    with pytest.raises(ConfigError, match=r"publish_echo.target is t2c, but stages.echo.targets has only recorded"):
        load("folder", echo)
    assert load("folder", [*echo, "stages.publish_echo.target=recorded"]).stages["echo"]["targets"] == ["recorded"]

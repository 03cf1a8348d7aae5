"""`echo-targets`: the command line. Each command is a file of its own, imported when it is called."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from echo_targets.schemas.tables.base import LARGEST_CODEBOOK

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Makes the training data of echo-trained speech-to-speech models: speech in, checked Parquet shards of "
    "semantic-aligned unit targets out.\n\nExit codes: 0 done, 1 a check failed or too many rows were rejected, "
    "2 bad usage or configuration, or another driver "
    "at work on the root, 3 some shards failed, or storage.",
)
train = typer.Typer(no_args_is_help=True, help="Train a model from published training sets.")
app.add_typer(train, name="train")

Root = Annotated[str, typer.Argument(help="Root of a dataset: the folder that `run` wrote to.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, dotted for what is nested.")]

Where = Annotated[
    list[str] | None,
    typer.Argument(help="key=value: workers=2, device=cuda, runner=ray, ray.address=auto, beam.runner=FlinkRunner, …"),
]


class Mode(StrEnum):
    """How a unit language is fitted."""

    NGRAM = "ngram"
    BPE = "bpe"


class ReportFormat(StrEnum):
    """How a comparison or an estimate is printed."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """How much a check reads."""

    METADATA = "metadata"
    ROWS = "rows"
    DEEP = "deep"


class Format(StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    GITHUB = "github"


USAGE = 2
FAILED = 3


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"echo-targets {version('echo-targets')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A YAML file, or one that ships: folder, corpora/mls, echox-6k.")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and why, and what is missing; do nothing.")
    ] = False,
) -> None:
    """Run a job: ingest, transcribe, measure, align, tokenize, echo, publish.

    What is committed already is not done again, so the same command resumes a job that was stopped. Where a source says
    what is `expected` of it and ingest stored something else, that is said at the end, with exit code 1.

    Example: echo-targets run folder manifest=calls/manifest.jsonl root=out/calls workers=2
    """
    from echo_targets.jobs.commands.run import run_command

    raise typer.Exit(run_command(config, overrides or [], dry_run))


@app.command()
def demo(
    root: Annotated[str, typer.Option(help="Where to write.")] = "out/demo",
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
) -> None:
    """Voice twenty dialogues, break a few files on purpose, and take them through every stage."""
    from echo_targets.jobs.commands.demo import demo_command

    raise typer.Exit(demo_command(root, workers))


@app.command()
def check(
    path: Annotated[
        str | None, typer.Argument(help="Root of a dataset, or one Parquet shard; without it, the contract itself.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Say what changed since REF: contracts (schemas/contract), a dataset, or a Parquet shard."),
    ] = None,
    level: Annotated[
        Level,
        typer.Option(help="metadata: manifests and footers; rows: every rule on every row; deep: audio, units."),
    ] = Level.ROWS,
    format: Annotated[Format, typer.Option(help="How findings are written.")] = Format.TEXT,
) -> None:
    """Check shards against the contract: schema, every rule on every row, digests, keys across tables.

    One finding a line; exit code 1 where there is any that breaks. deep also decodes and hashes all audio, and computes
    the units of a sample again.

    Examples: echo-targets check s3://bucket/calls --level metadata --format github

    echo-targets check --against old/schemas/contract
    """
    from echo_targets.jobs.commands.check import check_command

    raise typer.Exit(check_command(path, against, level.value, format.value))


@app.command()
def status(
    root: Root,
    config: Annotated[
        str | None, typer.Argument(help="As `run` takes it: also say what a run of it here would do, and why.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Show the versions of a dataset's tables, which are current, their hours and sizes, and what was rejected and why.

    Example: echo-targets status out/calls folder manifest=calls/manifest.jsonl stages.publish_s2t.max_wer=0.3
    """
    from echo_targets.jobs.commands.status import status_command

    raise typer.Exit(status_command(root, config, overrides or []))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="ROOT (its current version) or ROOT@FINGERPRINT (four digits are enough).")],
    b: Annotated[str, typer.Argument(help="As A; @FINGERPRINT alone is a version in A's root.")],
    table: Annotated[str, typer.Option(help="Table to compare.")] = "echo_targets",
    format: Annotated[ReportFormat, typer.Option(help="Tables for a person, or one JSON object.")] = ReportFormat.TEXT,
) -> None:
    """Compare two versions of a table: rows added, gone and changed, unit error rates, scores, the worst rows.

    `status` lists the versions of a root.

    Examples: echo-targets diff out/calls@89568b5b out/calls

    echo-targets diff out/before out/after --table units
    """
    from echo_targets.jobs.commands.diff import diff_command

    raise typer.Exit(diff_command(a, b, table, format is ReportFormat.JSON))


@app.command()
def plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of one that ships, as `run` takes it.")],
    overrides: Overrides = None,
    throughputs: Annotated[
        str | None, typer.Option(help="YAML file of throughputs and bytes that differ from jobs/throughputs.yaml.")
    ] = None,
    format: Annotated[ReportFormat, typer.Option(help="A table for a person, or one JSON object.")] = ReportFormat.TEXT,
) -> None:
    """Estimate a job: hours of speech, GPU hours, disk and shards, by stage and corpus. Loads no model, runs nothing.

    A source that is not there is counted as it is `expected`.

    Example: echo-targets plan folder manifest=calls/manifest.jsonl root=out/calls --throughputs mine.yaml
    """
    from echo_targets.jobs.commands.plan import plan_command

    raise typer.Exit(plan_command(config, overrides or [], throughputs, format is ReportFormat.JSON))


@app.command()
def retry(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of one that ships, as `run` takes it.")],
    overrides: Overrides = None,
) -> None:
    """Retry rejected rows: their files are mended, or a limit of ingest or publish is another.

    Shards come out as a full run would write them, but a model works only on rows that are new, changed or were
    rejected, and on their dialogues. A mended file of another size, or another limit, makes new versions beside the
    old.

    Example: echo-targets retry folder manifest=calls/manifest.jsonl root=out/calls
    """
    from echo_targets.jobs.commands.retry import retry_command

    raise typer.Exit(retry_command(config, overrides or []))


@app.command()
def gc(
    root: Root,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; else it is only said what would be deleted.")] = False,
) -> None:
    """Delete versions that are neither current nor read by a current one, and what killed processes left behind."""
    from echo_targets.jobs.commands.gc import gc_command

    raise typer.Exit(gc_command(root, yes))


@app.command()
def inspect(
    root: Root,
    out: Annotated[str, typer.Option(help="Folder of the page; an earlier page in it is replaced.")] = "out/inspect",
    sounds: Annotated[
        int, typer.Option(help="About how many rows get their sound, a sample of dialogues.", min=0)
    ] = 500,
    vocoder: Annotated[
        str | None, typer.Option(help="Directory of speechbrain's unit HiFi-GAN, which says the targets of those rows.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it to this machine; then every row has sound.")] = False,
) -> None:
    """Write a page to look at a dataset and listen to it: overview, search, and each utterance on a time axis.

    A folder of files without any server: open its index.html, or copy it where others can.

    Example: echo-targets inspect out/calls --serve
    """
    from echo_targets.jobs.commands.inspect import inspect_command

    raise typer.Exit(inspect_command(root, out, sounds, serve, vocoder))


@app.command()
def fit_codebook(
    root: Root,
    out: Annotated[str, typer.Argument(help="The codebook's file, .safetensors.")],
    size: Annotated[int, typer.Option(help="Number of units.", min=2, max=LARGEST_CODEBOOK)] = 100,
    layer: Annotated[int, typer.Option(help="Encoder layer that features are taken after.", min=0)] = 3,
    model: Annotated[
        str, typer.Option(help="Whisper, HuBERT, WavLM or wav2vec2 whose encoder gives the features.")
    ] = "embedded:tiny.en",
    seed: Annotated[int, typer.Option(help="Seed of the sample and of k-means.")] = 0,
    max_frames: Annotated[int, typer.Option(help="Most frames to fit on.", min=100)] = 200_000,
    overrides: Where = None,
) -> None:
    """Fit a codebook by k-means on the features of a sample of a dataset's frames.

    Example: echo-targets fit-codebook out/calls calls-k500.safetensors --size 500 workers=2
    """
    from echo_targets.jobs.commands.fit_codebook import fit_codebook_command
    from echo_targets.jobs.config import execution

    chosen = execution(overrides or [])
    raise typer.Exit(fit_codebook_command(root, out, size, layer, model, seed, max_frames, chosen))


@app.command()
def fit_unit_language(
    root: Root,
    out: Annotated[str, typer.Argument(help="The unit language's file, .json.")],
    vocab_size: Annotated[int, typer.Option(help="Number of words.", min=2)] = 1000,
    max_word_units: Annotated[int, typer.Option(help="Longest word, in units.", min=1, max=16)] = 4,
    mode: Annotated[Mode, typer.Option(help="How words are found; bpe is learnt on this machine alone.")] = Mode.NGRAM,
    overrides: Where = None,
) -> None:
    """Fit words of units on a dataset's table `units`.

    Example: echo-targets fit-unit-language out/calls words.json --vocab-size 4000 runner=ray ray.address=auto
    """
    from echo_targets.jobs.commands.fit_unit_language import fit_unit_language_command
    from echo_targets.jobs.config import execution

    chosen = execution(overrides or [])
    raise typer.Exit(fit_unit_language_command(root, out, vocab_size, max_word_units, mode.value, chosen))


@app.command()
def fit_fences(root: Root, out: Annotated[str, typer.Argument(help="The fences' file, .json.")]) -> None:
    """Fit fences of the speech rate: 1.5 times the interquartile range beyond the quartiles of each corpus.

    They are of the table `measures`; `rate_fences` of a stage that publishes is their file.

    Example: echo-targets fit-fences out/calls fences.json
    """
    from echo_targets.jobs.commands.fit_fences import fit_fences_command

    raise typer.Exit(fit_fences_command(root, out))


@train.command()
def s2t(
    root: Root,
    out: Annotated[str, typer.Argument(help="Directory of the model; a run that was stopped goes on in it.")],
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="Sizes and recipe: a YAML file or a name that ships.")] = "train-s2t",
) -> None:
    """Train stage I of an EchoX, a speech-to-text model, on `training/s2t`; rows of split `test` are held out.

    Each row is a dialogue of one turn: a question's audio and text, and the reply. The model comes with a tokenizer of
    its own and an untrained unit decoder: `train t2c --language-model` and `train echo` follow.

    Example: echo-targets train s2t out/nano-corpus out/nano-s2t recipe.steps=11000
    """
    from echo_targets.jobs.commands.train_echox import train_s2t_command

    raise typer.Exit(train_s2t_command(root, out, config, overrides or []))


@train.command()
def t2c(
    root: Root,
    out: Annotated[str, typer.Argument(help="Directory of the model; a run that was stopped goes on in it.")],
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(help="Sizes and recipe: a YAML file or a name that ships; train-t2c, or train-unit-translator."),
    ] = None,
    language_model: Annotated[
        str | None, typer.Option(help="EchoX directory of stage I (`train s2t`): its tokenizer, embeddings and sizes.")
    ] = None,
) -> None:
    """Train a text-to-codec decoder on `training/t2c`; rows of split `test` are held out and measured.

    With --language-model it is stage II of an EchoX: OUT gets the language model with the trained decoder.

    Examples: echo-targets train t2c out/nano out/nano-t2c recipe.steps=9000

    echo-targets train t2c out/nano-corpus out/nano-stage2 --language-model out/nano-s2t
    """
    if language_model:
        from echo_targets.jobs.commands.train_echox import train_unit_translator_command

        chosen = config or "train-unit-translator"
        raise typer.Exit(train_unit_translator_command(root, out, chosen, overrides or [], language_model))
    from echo_targets.jobs.commands.train import train_t2c_command

    raise typer.Exit(train_t2c_command(root, out, config or "train-t2c", overrides or []))


@train.command()
def echo(
    root: Root,
    model: Annotated[str, typer.Argument(help="EchoX directory of stages I and II, the one `echo` ran with.")],
    out: Annotated[str, typer.Argument(help="Directory of the model; a run that was stopped goes on in it.")],
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="The recipe: a YAML file or a name that ships.")] = "train-echo",
) -> None:
    """Train stage III of an EchoX on `training/echo`: hidden states learn to say the unit targets.

    Rows of split `test` are held out; units and states are measured on them before and after.

    Example: echo-targets train echo out/nano-corpus out/nano-stage2 out/nano-echox recipe.steps=3000
    """
    from echo_targets.jobs.commands.train_echox import train_echo_command

    raise typer.Exit(train_echo_command(root, model, out, config, overrides or []))


@train.command()
def reader(
    root: Root,
    out: Annotated[str, typer.Argument(help="Directory of the model; a run that was stopped goes on in it.")],
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="Sizes and recipe: a YAML file or a name that ships.")] = "train-reader",
) -> None:
    """Train a reader of units on `training/t2c`; rows of split `test` are held out and measured.

    Example: echo-targets train reader out/nano out/nano-reader recipe.steps=5000
    """
    from echo_targets.jobs.commands.train import train_reader_command

    raise typer.Exit(train_reader_command(root, out, config, overrides or []))


@app.command()
def backends(
    name: Annotated[
        str | None, typer.Argument(help="A stage (`align`), a package (`fairseq2`) or an extra (`demo`); all without.")
    ] = None,
) -> None:
    """Show which libraries are installed and load here, and the line that installs or mends each of the others.

    Each is loaded in a process of its own, which takes some seconds. A version other than the tested one is named, as
    is a GPU that torch does not see; the digests of embedded weights are compared.

    Example: echo-targets backends fairseq2
    """
    from echo_targets.jobs.commands.backends import backends_command

    raise typer.Exit(backends_command(name))


def main() -> None:
    """Entry point: known errors end in one message and their exit code, never in a trace."""
    import sys

    from echo_targets.schemas.errors import UserError

    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(USAGE)
    except ModuleNotFoundError as error:
        from echo_targets.jobs.libraries import install_remedy

        print(f"{error.name} is not installed: {install_remedy(error)}", file=sys.stderr)
        sys.exit(USAGE)
    except OSError as error:
        print(f"{error}; storage is out of reach or full, try again", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()

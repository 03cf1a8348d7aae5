"""The `echo-targets` command line. Each command lives in its own module, which is imported when the command runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from echo_targets.schemas.tables.base import LARGEST_CODEBOOK

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # the default mode keeps the line breaks of the docstrings below
    pretty_exceptions_enable=False,
    help="Make training data for echo-trained speech-to-speech models: speech in, checked Parquet shards of "
    "semantically aligned unit targets out.\n\nExit codes: 0 success; 1 a check failed or too many rows were "
    "rejected; 2 invalid usage or configuration, or another driver is running on the same root; 3 some shards failed "
    "or storage was unavailable.",
)
train = typer.Typer(no_args_is_help=True, help="Train a model on published training sets.")
app.add_typer(train, name="train")

Root = Annotated[str, typer.Argument(help="Dataset root: the folder or URL that `echo-targets run` wrote to.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs; dots reach nested keys.")]

ExecutionOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Where to run, as key=value: workers=2, device=cuda, runner=ray, ray.address=auto, "
        "beam.runner=FlinkRunner, …"
    ),
]

ModelOut = Annotated[
    str, typer.Argument(help="Directory to write the model to; running the command again resumes a stopped training.")
]


class Mode(StrEnum):
    """Algorithm that fits a unit language."""

    NGRAM = "ngram"
    BPE = "bpe"


class ReportFormat(StrEnum):
    """Output format of a comparison or an estimate."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """How much data a check reads."""

    METADATA = "metadata"
    ROWS = "rows"
    DEEP = "deep"


class Format(StrEnum):
    """Output format of findings."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    GITHUB = "github"


class ExportFormat(StrEnum):
    """Format to export to."""

    HUB = "hub"
    SLAM_OMNI = "slam-omni"
    VOCALNET = "vocalnet"
    MOSHI_FINETUNE = "moshi-finetune"
    LHOTSE = "lhotse"
    WEBDATASET = "webdataset"


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
    config: Annotated[
        str, typer.Argument(help="YAML file or the name of a shipped configuration: folder, corpora/mls, echox-6k.")
    ],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and why, and what is missing; change nothing.")
    ] = False,
) -> None:
    """Run a job: ingest, transcribe, measure, align, tokenize, echo, publish.

    Committed shards are skipped, so running the same command again resumes a stopped job. If a source has an `expected`
    section and ingest stored something else, the difference is printed at the end and the exit code is 1.

    Example: echo-targets run folder manifest=calls/manifest.jsonl root=out/calls workers=2
    """
    from echo_targets.jobs.commands.run import run_command

    raise typer.Exit(run_command(config, overrides or [], dry_run))


@app.command()
def demo(
    root: Annotated[str, typer.Option(help="Folder to write to.")] = "out/demo",
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
) -> None:
    """Synthesize twenty dialogues, add a few broken files, and run every stage on them.

    Example: echo-targets demo --root out/demo --workers 4
    """
    from echo_targets.jobs.commands.demo import demo_command

    raise typer.Exit(demo_command(root, workers))


@app.command()
def check(
    path: Annotated[
        str | None,
        typer.Argument(help="Dataset root or one Parquet shard. Without it, --against compares the contract itself."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Report what changed since this reference: a folder of contracts (schemas/contract), a dataset root, "
            "or a Parquet shard."
        ),
    ] = None,
    level: Annotated[
        Level,
        typer.Option(
            help="metadata: manifests and footers; rows: also every rule on every row; deep: also audio and units."
        ),
    ] = Level.ROWS,
    format: Annotated[Format, typer.Option(help="Output format of findings.")] = Format.TEXT,
) -> None:
    """Check shards against the contract: schema, rules, digests, and keys across tables.

    Prints one finding per line; the exit code is 1 if any finding breaks the contract. --level deep also decodes and
    hashes all audio and recomputes the units of a sample.

    Example: echo-targets check s3://bucket/calls --level metadata --format github

    Example: echo-targets check --against old/schemas/contract
    """
    from echo_targets.jobs.commands.check import check_command

    raise typer.Exit(check_command(path, against, level.value, format.value))


@app.command()
def status(
    root: Root,
    config: Annotated[
        str | None,
        typer.Argument(help="A configuration of `echo-targets run`: also show what running it on ROOT would do."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Show each table's versions with their hours and sizes, which ones are current, and what was rejected and why.

    Example: echo-targets status out/calls folder manifest=calls/manifest.jsonl stages.publish_s2t.max_wer=0.3
    """
    from echo_targets.jobs.commands.status import status_command

    raise typer.Exit(status_command(root, config, overrides or []))


@app.command()
def diff(
    a: Annotated[
        str,
        typer.Argument(help="ROOT for its current version, or ROOT@VERSION: a label, a recipe or RECIPE@SNAPSHOT."),
    ],
    b: Annotated[str, typer.Argument(help="Like A; @VERSION without a root is a version in A's root.")],
    table: Annotated[str, typer.Option(help="Table to compare.")] = "echo_targets",
    format: Annotated[
        ReportFormat, typer.Option(help="text: readable tables; json: one JSON object.")
    ] = ReportFormat.TEXT,
) -> None:
    """Compare two versions of a table: added, removed and changed rows, unit error rates, scores, and the worst rows.

    `echo-targets status ROOT` lists the versions.

    Example: echo-targets diff out/calls@89568b5b out/calls

    Example: echo-targets diff out/before out/after --table units
    """
    from echo_targets.jobs.commands.diff import diff_command

    raise typer.Exit(diff_command(a, b, table, format is ReportFormat.JSON))


@app.command()
def plan(
    config: Annotated[
        str, typer.Argument(help="YAML file or the name of a shipped configuration, as for `echo-targets run`.")
    ],
    overrides: Overrides = None,
    throughputs: Annotated[
        str | None,
        typer.Option(help="YAML file of throughputs and densities that replace those of jobs/throughputs.yaml."),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option(help="text: a readable table; json: one JSON object.")
    ] = ReportFormat.TEXT,
) -> None:
    """Estimate a job's hours of speech, GPU hours, disk space and shards by stage and corpus, without running anything.

    A missing source is counted at its `expected` size.

    Example: echo-targets plan folder manifest=calls/manifest.jsonl root=out/calls --throughputs mine.yaml
    """
    from echo_targets.jobs.commands.plan import plan_command

    raise typer.Exit(plan_command(config, overrides or [], throughputs, format is ReportFormat.JSON))


@app.command()
def retry(
    config: Annotated[str, typer.Argument(help="YAML file or the name of a shipped configuration, as for `run`.")],
    overrides: Overrides = None,
    id: Annotated[
        list[str] | None,
        typer.Option(help="Compute this row again, rejected or not; repeat for more. Others are left."),
    ] = None,
) -> None:
    """Compute rejected rows again, or the rows that are named.

    A changed file of the same size and duration looks the same to `run`. If its row was rejected, retry takes it up; if
    not, name its id. Only the shards that hold such rows are computed, and in them only these rows and their dialogues.
    Rows that a filter dropped are not retried: change the filter and use `run`.

    Example: echo-targets retry folder manifest=calls/manifest.jsonl root=out/calls
    """
    from echo_targets.jobs.commands.retry import retry_command

    raise typer.Exit(retry_command(config, overrides or [], id or ()))


@app.command()
def gc(
    root: Root,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only list what would be deleted.")] = False,
    grace_hours: Annotated[
        float, typer.Option(help="Keep versions that were current until less than this many hours ago.", min=0)
    ] = 24.0,
) -> None:
    """Delete shards of versions that are neither current nor labeled, and the leftovers of killed processes.

    Versions that others were made from are kept with them, and what a stopped job has committed of the current corpus,
    unless --grace-hours is 0. A training may read a version that was replaced a while ago: label it.

    Example: echo-targets gc out/calls --yes
    """
    from echo_targets.jobs.commands.gc import gc_command

    raise typer.Exit(gc_command(root, yes, grace_hours))


@app.command()
def promote(
    root: Root,
    version: Annotated[str, typer.Argument(help="A label, RECIPE@SNAPSHOT or a recipe, as `status` shows them.")],
) -> None:
    """Make an earlier version current again: all tables of a label, or one table and those that it was made from.

    Tables that were made from these are left as they are; run the job again to make them current, too.

    Example: echo-targets promote out/calls before-cleaning
    """
    from echo_targets.jobs.commands.promote import promote_command

    raise typer.Exit(promote_command(root, version))


@app.command()
def label(
    root: Root,
    name: Annotated[str, typer.Argument(help="Label: letters, digits, `-`, `_` and `.`.")],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label instead.")] = False,
) -> None:
    """Name the current versions of all tables, so that `gc` keeps them and trainers and `diff` can ask for them.

    Example: echo-targets label out/calls 2026-12
    """
    from echo_targets.jobs.commands.promote import label_command

    raise typer.Exit(label_command(root, name, remove))


@app.command()
def inspect(
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
) -> None:
    """Write a web page for browsing and listening to a dataset: overview, search, and each utterance on a time axis.

    The page is a folder of static files and needs no server: open its index.html, or copy the folder elsewhere.

    Example: echo-targets inspect out/calls --serve
    """
    from echo_targets.jobs.commands.inspect import inspect_command

    raise typer.Exit(inspect_command(root, out, sounds, serve, vocoder))


@app.command()
def export(
    root: Root,
    format: Annotated[
        ExportFormat,
        typer.Argument(
            help="hub: training sets for `datasets`; slam-omni, vocalnet: training/echo as frames; moshi-finetune: "
            "stereo dialogues; lhotse, webdataset: utterances with all tables."
        ),
    ],
    out: Annotated[str, typer.Argument(help="New or empty folder or URL; running the command again resumes.")],
    version: Annotated[
        str | None,
        typer.Option(
            help="A label, RECIPE@SNAPSHOT or a recipe, as `status` shows them. Default: the current version."
        ),
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="Condition `COLUMN OPERATOR VALUE`, with ==, !=, <, <=, >, >=, in or not in; repeat for more. A "
            "column of a joined table is TABLE.COLUMN. A null passes none."
        ),
    ] = None,
) -> None:
    """Write a version of a dataset in the format of another trainer or library.

    What a format can't express is an error before anything is written, or is counted by reason at the end.

    Example: echo-targets export out/calls hub out/hub

    Example: echo-targets export out/calls slam-omni s3://bucket/slam --version 2026-12 --filter 'target_cer <= 0.1'
    """
    from echo_targets.jobs.commands.export import export_command

    raise typer.Exit(export_command(root, format.value, out, version, filter or []))


@app.command()
def fit_codebook(
    root: Root,
    out: Annotated[str, typer.Argument(help="Codebook file to write (.safetensors).")],
    size: Annotated[int, typer.Option(help="Number of units.", min=2, max=LARGEST_CODEBOOK)] = 100,
    layer: Annotated[int, typer.Option(help="Encoder layer whose output is clustered.", min=0)] = 3,
    model: Annotated[
        str, typer.Option(help="Whisper, HuBERT, WavLM or wav2vec2 model whose encoder computes the features.")
    ] = "embedded:tiny.en",
    seed: Annotated[int, typer.Option(help="Seed of sampling and of k-means.")] = 0,
    max_frames: Annotated[int, typer.Option(help="Maximum number of frames to fit on.", min=100)] = 200_000,
    overrides: ExecutionOverrides = None,
) -> None:
    """Fit a k-means codebook on the encoder features of a sample of a dataset's frames.

    Example: echo-targets fit-codebook out/calls calls-k500.safetensors --size 500 workers=2
    """
    from echo_targets.jobs.commands.fit_codebook import fit_codebook_command
    from echo_targets.jobs.config import execution

    chosen = execution(overrides or [])
    raise typer.Exit(fit_codebook_command(root, out, size, layer, model, seed, max_frames, chosen))


@app.command()
def fit_unit_language(
    root: Root,
    out: Annotated[str, typer.Argument(help="Unit language file to write (.json).")],
    vocab_size: Annotated[int, typer.Option(help="Number of words.", min=2)] = 1000,
    max_word_units: Annotated[int, typer.Option(help="Maximum length of a word, in units.", min=1, max=16)] = 4,
    mode: Annotated[
        Mode, typer.Option(help="Algorithm that finds words; bpe always runs on this machine.")
    ] = Mode.NGRAM,
    overrides: ExecutionOverrides = None,
) -> None:
    """Fit a unit language, a vocabulary of words of units, on a dataset's `units` table.

    Example: echo-targets fit-unit-language out/calls words.json --vocab-size 4000 runner=ray ray.address=auto
    """
    from echo_targets.jobs.commands.fit_unit_language import fit_unit_language_command
    from echo_targets.jobs.config import execution

    chosen = execution(overrides or [])
    raise typer.Exit(fit_unit_language_command(root, out, vocab_size, max_word_units, mode.value, chosen))


@app.command()
def fit_fences(root: Root, out: Annotated[str, typer.Argument(help="Fences file to write (.json).")]) -> None:
    """Fit speech-rate fences for each corpus: 1.5 times the interquartile range beyond its quartiles.

    Reads the `measures` table. Pass the file to a publish stage as `rate_fences`.

    Example: echo-targets fit-fences out/calls fences.json
    """
    from echo_targets.jobs.commands.fit_fences import fit_fences_command

    raise typer.Exit(fit_fences_command(root, out))


@app.command()
def fit_duplicates(
    root: Root, out: Annotated[str, typer.Argument(help="File of duplicates to write (.jsonl).")]
) -> None:
    """List rows that repeat another row: the same samples, or nearly the same units or text.

    Reads `utterances`, and `units` and `transcripts` if there are any. Pass the file to a publish stage as
    `duplicates`; `drop_duplicates` says which of them it drops.

    Example: echo-targets fit-duplicates out/calls duplicates.jsonl
    """
    from echo_targets.jobs.commands.fit_duplicates import fit_duplicates_command

    raise typer.Exit(fit_duplicates_command(root, out))


@app.command()
def fit_speakers(root: Root, out: Annotated[str, typer.Argument(help="File of similarities to write (.csv).")]) -> None:
    """Compare each utterance's voice with the other utterances of its speaker.

    Reads `measures` of a job with `stages.measure.speaker_model`. Pass the file to a publish stage as
    `speaker_similarities`, with `min_speaker_similarity`.

    Example: echo-targets fit-speakers out/calls speakers.csv
    """
    from echo_targets.jobs.commands.fit_speakers import fit_speakers_command

    raise typer.Exit(fit_speakers_command(root, out))


@train.command()
def s2t(
    root: Root,
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(help="Model sizes and recipe: a YAML file or the name of a shipped configuration.")
    ] = "train-s2t",
) -> None:
    """Train stage I of an EchoX model, speech-to-text, on `training/s2t`; rows of the `test` split are held out.

    Each row is a one-turn dialogue: the audio and text of the user turn, and the reply. The model gets its own
    tokenizer and an untrained unit decoder; continue with `train t2c --language-model` and `train echo`.

    Example: echo-targets train s2t out/nano-corpus out/nano-s2t recipe.steps=11000
    """
    from echo_targets.jobs.commands.train_echox import train_s2t_command

    raise typer.Exit(train_s2t_command(root, out, config, overrides or []))


@train.command()
def t2c(
    root: Root,
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Model sizes and recipe: a YAML file or the name of a shipped configuration. Default: train-t2c, or "
            "train-unit-translator with --language-model."
        ),
    ] = None,
    language_model: Annotated[
        str | None,
        typer.Option(help="EchoX directory of stage I (`train s2t`): provides tokenizer, embeddings and sizes."),
    ] = None,
) -> None:
    """Train a text-to-codec decoder on `training/t2c`; rows of the `test` split are held out and evaluated.

    With --language-model, train stage II of an EchoX model: OUT gets the language model with the trained decoder.

    Example: echo-targets train t2c out/nano out/nano-t2c recipe.steps=9000

    Example: echo-targets train t2c out/nano-corpus out/nano-stage2 --language-model out/nano-s2t
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
    model: Annotated[
        str, typer.Argument(help="EchoX directory after stages I and II; the model that the echo stage ran with.")
    ],
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(help="Recipe: a YAML file or the name of a shipped configuration.")
    ] = "train-echo",
) -> None:
    """Train stage III of an EchoX model on `training/echo`: predict the unit targets from hidden states.

    Rows of the `test` split are held out; units and hidden states are evaluated on them before and after training.

    Example: echo-targets train echo out/nano-corpus out/nano-stage2 out/nano-echox recipe.steps=3000
    """
    from echo_targets.jobs.commands.train_echox import train_echo_command

    raise typer.Exit(train_echo_command(root, model, out, config, overrides or []))


@train.command()
def reader(
    root: Root,
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(help="Model sizes and recipe: a YAML file or the name of a shipped configuration.")
    ] = "train-reader",
) -> None:
    """Train a unit reader (units to text) on `training/t2c`; rows of the `test` split are held out and evaluated.

    Example: echo-targets train reader out/nano out/nano-reader recipe.steps=5000
    """
    from echo_targets.jobs.commands.train import train_reader_command

    raise typer.Exit(train_reader_command(root, out, config, overrides or []))


@app.command()
def backends(
    name: Annotated[
        str | None,
        typer.Argument(help="Stage (`align`), package (`fairseq2`) or extra (`demo`) to show. Default: all of them."),
    ] = None,
) -> None:
    """Show which libraries are installed and load here, and the command that installs or repairs each of the others.

    Each library is imported in its own process, which takes a few seconds. Also reports versions other than the tested
    ones, a GPU that torch does not see, and embedded weights whose digests differ from the release.

    Example: echo-targets backends fairseq2
    """
    from echo_targets.jobs.commands.backends import backends_command

    raise typer.Exit(backends_command(name))


def main() -> None:
    """Run the command line; known errors print one message instead of a traceback and set the exit code."""
    import sys

    from echo_targets.jobs.escapes import lines, one_line
    from echo_targets.schemas.errors import UserError

    try:
        app()
    except UserError as error:
        print(lines(error), file=sys.stderr)
        sys.exit(USAGE)
    except ModuleNotFoundError as error:
        from echo_targets.jobs.libraries import install_remedy

        print(f"{error.name} is not installed: {install_remedy(error)}", file=sys.stderr)
        sys.exit(USAGE)
    except OSError as error:
        print(f"{one_line(error)}. Storage may be unreachable or full; run the same command again.", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()

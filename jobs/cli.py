"""The `echo-targets` command line: its commands, their exit codes, and the messages of errors.

`commands/` has a file per command, with its arguments and help. It is imported when the command is named: help lists
the summaries below, so it starts fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from echo_targets.jobs.escapes import lines, one_line
from echo_targets.schemas.errors import UserError

COMMANDS = {
    "run": "Run a job: ingest, transcribe, measure, align, tokenize, echo, publish.",
    "demo": "Synthesize twenty dialogues, add a few broken files, and run every stage on them.",
    "check": "Check shards against the contract: schema, rules, digests, and keys across tables.",
    "status": "Show each table's versions with their hours and sizes, which ones are current, "
    "and what was rejected and why.",
    "diff": "Compare two versions of a table: added, removed and changed rows, "
    "unit error rates, scores, and the worst rows.",
    "plan": "Estimate a job's hours of speech, GPU hours, disk space and shards "
    "by stage and corpus, without running anything.",
    "retry": "Compute rejected rows again, or the rows that are named.",
    "gc": "Delete shards of versions that are neither current nor labeled, and the leftovers of killed processes.",
    "promote": "Make an earlier version current again: all tables of a label, "
    "or one table and those that it was made from.",
    "label": "Name the current versions of all tables, so that `gc` keeps them "
    "and trainers and `diff` can ask for them.",
    "inspect": "Write a web page for browsing and listening to a dataset: "
    "overview, search, and each utterance on a time axis.",
    "export": "Write a version of a dataset in the format of another trainer or library.",
    "fit-codebook": "Fit a k-means codebook on the encoder features of a sample of a dataset's frames.",
    "fit-unit-language": "Fit a unit language, a vocabulary of words of units, on a dataset's `units` table.",
    "fit-fences": "Fit speech-rate fences for each corpus: 1.5 times the interquartile range beyond its quartiles.",
    "fit-duplicates": "List rows that repeat another row: the same samples, or nearly the same units or text.",
    "fit-speakers": "Compare each utterance's voice with the other utterances of its speaker.",
    "train s2t": "Train stage I of an EchoX model, speech-to-text, on `training/s2t`; "
    "rows of the `test` split are held out.",
    "train t2c": "Train a text-to-codec decoder on `training/t2c`; "
    "rows of the `test` split are held out and evaluated.",
    "train echo": "Train stage III of an EchoX model on `training/echo`: predict the unit targets from hidden states.",
    "train reader": "Train a unit reader (units to text) on `training/t2c`; "
    "rows of the `test` split are held out and evaluated.",
    "backends": "Show which libraries are installed and load here, "
    "and the command that installs or repairs each of the others.",
}
"""Each command's summary, which is also the first paragraph of its docstring."""

USAGE = 2
FAILED = 3


def load(name: str) -> Any:
    """Import a command, such as `gc` or `train s2t`."""
    function = name.replace(" ", "_").replace("-", "_")
    module = import_module(f"echo_targets.jobs.commands.{function}")
    loaded = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    loaded.command()(getattr(module, f"{function}_command"))
    return typer.main.get_command(loaded)


class Commands(TyperGroup):
    """A group of commands that are imported when they are named."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name and not isinstance(command, Commands):
            command = load(name if ctx.parent is None else f"{ctx.info_name} {name}")
        return name, command, rest


def exit_with(code: int, version: bool) -> None:
    """End the process with the exit code that a command returned. Typer also passes the options of `app`."""
    raise typer.Exit(code)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # the default mode keeps the line breaks of docstrings
    pretty_exceptions_enable=False,
    result_callback=exit_with,
    help="Make training data for echo-trained speech-to-speech models: speech in, checked Parquet shards of "
    "semantically aligned unit targets out.\n\nExit codes: 0 success; 1 a check failed or too many rows were "
    "rejected; 2 invalid usage or configuration, or another driver is running on the same root; 3 some shards failed "
    "or storage was unavailable.",
)
train = typer.Typer(cls=Commands, no_args_is_help=True, help="Train a model on published training sets.")
app.add_typer(train, name="train")
for name, summary in COMMANDS.items():
    group = train if name.startswith("train ") else app
    group.command(name.split()[-1], help=summary)(lambda: None)  # stands for the command until it is imported


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


def main() -> None:
    """Run the command line; known errors print one message instead of a traceback and set the exit code."""
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

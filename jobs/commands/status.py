"""`echo-targets status`: show what a dataset holds, what was rejected, and what a run would do."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from echo_targets.jobs.escapes import markup, one_line
from echo_targets.jobs.screen import open_console
from echo_targets.schemas import KEY, SAMPLE_RATE, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset

SHOWN = 20


def status_command(root: str, config: str | None = None, overrides: Sequence[str] = ()) -> int:
    """Print the versions of the tables and the rejects; given a configuration, also what running it here would do."""
    console = open_console()
    dataset = Dataset(root)
    current, used = dataset.tables(), dataset.in_use()
    table = RichTable(
        "table", "version", "state", "stage", "shards", "rows", "hours", "rejected", "MiB", title=markup(root)
    )
    versions = dataset.versions()
    for name in sorted(versions, key=[*current, *versions].index):
        for fingerprint in sorted(versions[name], key=lambda version: version != current.get(name)):
            about = _about(dataset, name, fingerprint, current.get(name), used)
            table.add_row(*map(markup, (name, fingerprint, *about)))
    console.print(table)
    show_rejects(dataset, console)
    if config is not None:
        from echo_targets.jobs.commands.run import dry_run_command, sources_of
        from echo_targets.jobs.config import load
        from echo_targets.jobs.expected import print_differences

        console.print(f"\n[bold]Running {markup(config)} here would do this[/]")
        settings = load(config, [*overrides, f"root={root}"])
        dry_run_command(settings, console)
        if UTTERANCES.name in current:
            print_differences(sources_of(settings), dataset, console)
    return 0


def _about(dataset: Dataset, name: str, fingerprint: str, current: str | None, used: set[str]) -> tuple[str, ...]:
    info = dataset.stage(name, fingerprint)
    manifests = list(dataset.committed(name, fingerprint, info.shards).values())
    files = [file for manifest in manifests for file in (manifest.output, manifest.rejects) if file]
    if len(manifests) < info.shards:
        state = "current, unfinished" if fingerprint == current else "unfinished"
    else:
        state = "current" if fingerprint == current else "read by current" if fingerprint in used else "old"
    return (
        state,
        f"{info.stage} v{info.version}",
        f"{len(manifests)}/{info.shards}",
        str(sum(manifest.output.rows for manifest in manifests)),
        f"{sum(manifest.samples for manifest in manifests) / SAMPLE_RATE / 3600:.2f}",
        str(sum(sum(manifest.reasons.values()) for manifest in manifests)),
        f"{sum(file.size for file in files) / 2**20:.1f}",
    )


def show_rejects(dataset: Dataset, console: Console) -> None:
    """Print the first rejects of each stage, and where to find the others."""
    for name in dataset.tables():
        files = [manifest.rejects for manifest in dataset.manifests(name) if manifest.rejects]
        total, left = sum(file.rows for file in files), SHOWN
        for file in files:
            for row in dataset.open(file.path).read().slice(0, left).to_pylist():
                stage, *words = (markup(row[name]) for name in ("stage", KEY, "error_class", "message"))
                console.print(f"[bold]{stage}[/] {': '.join(words)}", soft_wrap=True)
                left -= 1
        if total > SHOWN:
            folder = files[0].path.rsplit("/", 1)[0]
            console.print(
                f"and {total - SHOWN} more rejects of {name} in {one_line(dataset.where(folder))}", markup=False
            )

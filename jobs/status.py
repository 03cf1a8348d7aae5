"""`echo-targets status`: what a dataset holds, and what was refused."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from jobs.screen import open_console
from schemas import KEY, SAMPLE_RATE, TABLES
from schemas.layout import Dataset

SHOWN = 20


def status_command(root: str) -> int:
    """Prints the tables and the rejects."""
    console = open_console()
    dataset = Dataset(root)
    table = RichTable("table", "fingerprint", "stage", "shards", "rows", "hours", "refused", "MiB", title=root)
    for name, fingerprint in dataset.tables().items():
        info, manifests = dataset.stage(name, fingerprint), list(dataset.manifests(name))
        table.add_row(
            name,
            fingerprint,
            f"{info.stage} v{info.version}",
            f"{len(manifests)}/{info.shards}",
            str(sum(manifest.output.rows for manifest in manifests)),
            f"{sum(manifest.samples for manifest in manifests) / SAMPLE_RATE / 3600:.2f}",
            str(sum(sum(manifest.reasons.values()) for manifest in manifests)),
            f"{sum(manifest.output.size for manifest in manifests) / 2**20:.1f}",
        )
    console.print(table)
    show_rejects(dataset, console)
    return 0


def show_rejects(dataset: Dataset, console: Console) -> None:
    """Prints the first rejects of each stage, and where the rest are."""
    for name in dataset.tables():
        if name not in TABLES:
            continue
        files = [manifest.rejects for manifest in dataset.manifests(name) if manifest.rejects]
        total, left = sum(file.rows for file in files), SHOWN
        for file in files:
            for row in dataset.open(file.path).read().slice(0, left).to_pylist():
                line = f"[bold]{row['stage']}[/] {escape(row[KEY])}: {row['error_class']}: {escape(row['message'])}"
                console.print(line, soft_wrap=True)
                left -= 1
        if total > SHOWN:
            folder = files[0].path.rsplit("/", 1)[0]
            console.print(f"and {total - SHOWN} more of {name} in {dataset.where(folder)}", markup=False)

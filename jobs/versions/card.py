"""Write the dataset card: what a root holds, where it came from, and what was rejected, all from the manifests."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa

from echo_targets.jobs.escapes import code, markdown
from echo_targets.pipeline.commit import write_whole
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Version

CARD = "README.md"
TRAINING = "training/"


def write_card(root: str) -> str:
    """Write `<root>/README.md` and return its path."""
    dataset = Dataset(root)
    write_whole(dataset, CARD, card(dataset).encode())
    return dataset.where(CARD)


def card(dataset: Dataset) -> str:
    """Return the card's Markdown, with the front matter that Hugging Face `datasets` reads."""
    tables = dataset.tables()
    parts = [_front_matter(dataset, tables), "# Echo targets\n"]
    parts.append("Training data for echo-trained speech-to-speech models (EchoX, arXiv 2509.09174).\n")
    parts.append("## Corpora\n\n" + _corpora(dataset))
    parts.append("## Tables\n\n" + _tables(dataset, tables))
    parts.append("## Filter funnel\n\n" + _funnel(dataset, tables))
    parts.append("## Lineage\n\n" + _lineage(dataset, tables))
    return "\n".join(parts)


def _front_matter(dataset: Dataset, tables: dict[str, Version]) -> str:
    """Return the configurations of the training sets: their files by name, since a folder may hold other snapshots."""
    lines = ["---", "configs:"]
    for name, version in tables.items():
        if name.startswith(TRAINING):
            lines += [f"- config_name: {name.removeprefix(TRAINING)}", "  data_files:"]
            lines += [f"  - {manifest.output.path}" for manifest in dataset.manifests(name, version)]
    return "\n".join([*lines, "---\n"]) if len(lines) > 2 else ""


def _corpora(dataset: Dataset) -> str:
    names = ["corpus", "split", "language", "license"]
    parts = []
    for manifest in dataset.manifests("utterances"):
        with dataset.open(manifest.output.path) as file:
            table = file.read([*names, "num_samples"]).unify_dictionaries()
        parts.append(pa.table({name: table[name].cast(pa.string()) for name in names} | {"n": table["num_samples"]}))
    sums = pa.concat_tables(parts).group_by(names).aggregate([("n", "count"), ("n", "sum")])
    rows = sums.sort_by([(name, "ascending") for name in names]).to_pylist()
    return _markdown(
        [*names, "utterances", "hours"],
        [
            [*(markdown(row[name]) for name in names), str(row["n_count"]), f"{row['n_sum'] / SAMPLE_RATE / 3600:.2f}"]
            for row in rows
        ],
    )


def _tables(dataset: Dataset, tables: dict[str, Version]) -> str:
    body = []
    for name, version in tables.items():
        manifests = dataset.manifests(name, version)
        rows = sum(manifest.output.rows for manifest in manifests)
        size = sum(manifest.output.size for manifest in manifests) / 2**20
        body.append([f"`{name}`", str(rows), str(len(manifests)), f"{size:.1f}", f"`{version}`"])
    return _markdown(["table", "rows", "shards", "MiB", "version"], body)


def _funnel(dataset: Dataset, tables: dict[str, Version]) -> str:
    body = []
    for name, version in tables.items():
        manifests = dataset.manifests(name, version)
        reasons: Counter[str] = Counter()
        for manifest in manifests:
            reasons.update(manifest.reasons)
        rows_in = sum(manifest.rows_in for manifest in manifests)
        rows_out = sum(manifest.output.rows for manifest in manifests)
        why = ", ".join(f"{count} {markdown(reason)}" for reason, count in reasons.most_common())
        body.append([dataset.recipe(name, version.recipe).stage, str(rows_in), str(rows_out), why])
    return _markdown(["stage", "rows in", "rows out", "rejected or dropped"], body)


def _lineage(dataset: Dataset, tables: dict[str, Version]) -> str:
    body = []
    for name, version in tables.items():
        recipe = dataset.recipe(name, version.recipe)
        body.append(
            [
                f"`{name}`",
                f"{recipe.stage} v{recipe.version}",
                code(json.dumps(recipe.parameters, sort_keys=True)),
                ", ".join(f"{weight} `{digest[:12]}`" for weight, digest in recipe.weights.items()),
                ", ".join(f"`{table}/{upstream}`" for table, upstream in recipe.upstream.items()),
            ]
        )
    return _markdown(["table", "stage", "parameters", "weights", "inputs"], body)


def _markdown(header: list[str], body: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)

"""The card of an export to the Hub: YAML that `datasets` reads, and Markdown that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from echo_targets.jobs.escapes import code, markdown
from echo_targets.pipeline.compare import plain_strings
from echo_targets.schemas import SAMPLE_RATE, TABLES, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Version
from echo_targets.schemas.tables.base import AUDIO
from echo_targets.transforms.languages import code_of

CARD = "README.md"
UNFINISHED = """---
configs:
- config_name: unfinished
  data_files: unfinished/*.parquet
---
This export is not finished. Run `echo-targets export` again.
"""
"""A card that loads nothing: without one, `datasets` would load the files that are there."""

LICENSES = {
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsl-1.0",
    "cc",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "cdla-sharing-1.0",
    "gfdl",
    "gpl",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl-2.1",
    "lgpl-3.0",
    "mit",
    "mpl-2.0",
    "odbl",
    "odc-by",
    "openrail",
    "pddl",
    "unlicense",
}
"""Licenses that the Hub knows by these names."""
SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
LARGER = "10M<n<100M"


@dataclass
class Split:
    """A split of a config: its name, the pattern of its files, its rows, and their bytes in memory."""

    name: str
    files: str
    rows: int = 0
    size: int = 0


@dataclass(frozen=True)
class Config:
    """A training set of the card."""

    name: str
    table: str
    version: Version
    schema: pa.Schema
    splits: list[Split]
    corpora: set[str]


def card(dataset: Dataset, configs: Sequence[Config]) -> str:
    """Return the card of some training sets. Text from data is escaped."""
    corpora = _corpora(dataset, configs)
    languages = filter(None, (code_of(row["language"]) for row in corpora))
    about: dict[str, Any] = {
        "license": _licenses({row["license"] for row in corpora}),
        "language": sorted(set(languages)),
        "task_categories": ["audio-to-audio", "automatic-speech-recognition", "text-to-speech"],
        "size_categories": [_size(sum(split.rows for config in configs for split in config.splits))],
        "configs": [_files(config, number == 0) for number, config in enumerate(configs)],
        "dataset_info": [_info(config) for config in configs],
    }
    front = yaml.safe_dump({name: value for name, value in about.items() if value}, sort_keys=False)
    parts = [f"---\n{front}---\n", "# Echo targets\n"]
    parts.append("Training data for echo-trained speech-to-speech models (EchoX, arXiv 2509.09174).\n")
    parts.append(
        "## Corpora\n\n"
        + _markdown(
            ["corpus", "split", "language", "license", "utterances", "hours"],
            [
                [
                    *(markdown(row[name]) for name in GROUPS),
                    str(row["rows"]),
                    f"{row['samples'] / SAMPLE_RATE / 3600:.2f}",
                ]
                for row in corpora
            ],
        )
    )
    for config in configs:
        parts.append(f"## {config.name}\n\n" + _splits(config) + "\n" + _columns(config))
    return "\n".join(parts)


GROUPS = ("corpus", "split", "language", "license")


def _corpora(dataset: Dataset, configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Return rows and samples of the utterances of the exported corpora, by GROUPS."""
    lineage = dataset.lineage((config.table, config.version) for config in configs)
    wanted = pa.array(sorted({corpus for config in configs for corpus in config.corpora}), pa.string())
    sums: dict[tuple[str, ...], list[int]] = {}
    for recipe, snapshot in sorted(made for table, made in lineage if table == UTTERANCES.name)[:1]:
        shards = dataset.snapshot(snapshot).ids
        for manifest in dataset.committed(UTTERANCES.name, recipe, shards).values():  # a copy may lack this table
            with dataset.open(manifest.output.path) as file:
                rows = plain_strings(file.read([*GROUPS, "num_samples"]))
            rows = rows.filter(pc.is_in(rows["corpus"], value_set=wanted))
            counted = rows.group_by(list(GROUPS)).aggregate([("num_samples", "count"), ("num_samples", "sum")])
            for row in counted.to_pylist():
                found = sums.setdefault(tuple(row[name] for name in GROUPS), [0, 0])
                found[0] += row["num_samples_count"]
                found[1] += row["num_samples_sum"]
    return [
        dict(zip((*GROUPS, "rows", "samples"), (*group, *found), strict=True)) for group, found in sorted(sums.items())
    ]


def _licenses(licenses: set[str]) -> str | list[str]:
    """Return licenses as the Hub names them: `other` if it does not know one, `unknown` if none is given."""
    names = sorted({license.strip().lower() for license in licenses} - {""})
    if not names or names == ["unknown"]:
        return "unknown"
    if not LICENSES.issuperset(names):
        return "other"
    return names[0] if len(names) == 1 else names


def _size(rows: int) -> str:
    return next((name for name, limit in SIZES if rows < limit), LARGER)


def _files(config: Config, is_default: bool) -> dict[str, Any]:
    files = [{"split": split.name, "path": split.files} for split in config.splits]
    return {"config_name": config.name, "data_files": files} | ({"default": True} if is_default else {})


def _info(config: Config) -> dict[str, Any]:
    splits = [{"name": split.name, "num_bytes": split.size, "num_examples": split.rows} for split in config.splits]
    return {
        "config_name": config.name,
        "features": [{"name": field.name, **feature(field.type)} for field in config.schema],
        "splits": splits,
        "dataset_size": sum(split.size for split in config.splits),
    }


def feature(kind: pa.DataType) -> dict[str, Any]:
    """Return a column's type as `datasets` writes its feature in YAML."""
    if kind == AUDIO:
        return {"dtype": {"audio": {"sampling_rate": SAMPLE_RATE}}}
    if pa.types.is_list(kind):
        inner = feature(kind.value_type)
        return {"list": inner.get("struct") or (inner["dtype"] if list(inner) == ["dtype"] else inner)}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **feature(field.type)} for field in kind]}
    return {"dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind))}


def _splits(config: Config) -> str:
    body = [[code(split.name), f"{split.rows:,}"] for split in config.splits]
    return f"From {code(config.table)}, version {code(config.version)}.\n\n" + _markdown(["split", "rows"], body)


def _columns(config: Config) -> str:
    means = TABLES[config.table].means
    return _markdown(
        ["column", "meaning"], [[code(name), markdown(means.get(name, ""))] for name in config.schema.names]
    )


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)

"""A codebook of 65,536 entries, whose units no int16 holds, from speech to a trainer's batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from echo_targets.jobs.commands.fit_unit_language import fit_unit_language_command
from echo_targets.jobs.commands.train_t2c import train_t2c_command
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.tables.base import LARGEST_CODEBOOK
from echo_targets.transforms.assets import asset
from echo_targets.transforms.loading.dataset import EchoTargetDataset, TargetLoader
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.units.codebook import Codebook
from echo_targets.transforms.units.language import UnitLanguage
from tests.transforms.rows import run_stages

LINES = [
    ("a", 0, "Where is the nearest library?", "train"),
    ("a", 1, "The library is on the corner, next to the old bakery.", "train"),
    ("b", 0, "When does it open?", "test"),
    ("b", 1, "It opens at seven.", "test"),
]
INT16 = 32_767


def wide_codebook(path: Path) -> str:
    """Saves a codebook of the embedded encoder whose centroids are random; returns its path."""
    shipped = Codebook.load(asset("embedded:codebook-tiny.en-l3-k100.safetensors"))
    random = np.random.default_rng(5)
    centroids = random.normal(size=(LARGEST_CODEBOOK, len(shipped.mean))).astype(np.float32)
    replace(shipped, centroids=centroids).save(path, {})
    return str(path)


@pytest.mark.slow
def test_every_stage_takes_the_largest_codebook(tmp_path: Path) -> None:
    lines = [
        {"id": f"{name}{turn}", "dialogue_id": name, "turn": turn, "text": text, "split": split}
        for name, turn, text, split in LINES
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    codebook, root, words = wide_codebook(tmp_path / "wide.safetensors"), tmp_path / "root", str(tmp_path / "words")
    stages: dict[str, dict] = {
        "ingest": {"sources": [{"kind": "spoken", "corpus": "s", "texts": str(tmp_path / "t.jsonl")}]},
        "align": {},
        "tokenize": {"codebook": codebook},
    }
    dataset, _ = run_stages(root, stages | {"publish_t2c": {}})
    assert max(unit for row in dataset.read("units").to_pylist() for unit in row["units"][0]) > INT16

    assert fit_unit_language_command(str(root), words, LARGEST_CODEBOOK + 20) == 0
    sizes = ["model.hidden_size=32", "model.text_embedding_size=32", "model.num_layers=1", "model.ffn_size=48"]
    recipe = ["recipe.steps=3", "recipe.decay_steps=1", "recipe.warmup_steps=1", "recipe.bfloat16=false"]
    assert train_t2c_command(str(root), str(tmp_path / "t2c"), [*sizes, *recipe]) == 0
    assert T2C.load(tmp_path / "t2c").config.unit_vocab_size == LARGEST_CODEBOOK

    stages["tokenize"]["unit_language"] = words
    echo = {"model": str(tmp_path / "t2c"), "text": "response", "codebook": codebook, "unit_language": words}
    lenient = {"target": "recorded", "min_mean_logprob": None, "stop_reasons": ["end", "length", "repetition"]}
    run_stages(root, stages | {"echo": echo | {"max_units": 12}, "publish_t2c": {}, "publish_echo": lenient})
    dataset = Dataset(str(root))
    assert list(check_dataset(dataset.root)) == []
    language = UnitLanguage.load(Path(words))
    for row in dataset.read("training/t2c").to_pylist():
        assert [language.decode(row["unit_words"])] == row["units"]
    spoken = {row["utterance_id"]: row["units"][0] for row in dataset.read("units").to_pylist()}
    (_, one), (_, two) = sorted(
        (row["utterance_id"], row["recorded"]["units"]) for row in dataset.read("echo_targets").to_pylist()
    )
    assert max(max(segment) for (segment,) in one + two) > INT16
    assert {unit for (segment,) in one for unit in segment} == set(spoken["a1"])
    assert {unit for (segment,) in two for unit in segment} == set(spoken["b1"])

    targets = EchoTargetDataset(str(root), "training/echo")
    (rows,) = TargetLoader(targets)
    assert {max(int(unit) for unit in row["unit_targets"][0][0]) > INT16 for row in rows} == {True}


def test_units_are_the_nearest_of_65536_centroids_however_many_frames_there_are() -> None:
    random = np.random.default_rng(2)
    centroids = random.normal(size=(LARGEST_CODEBOOK, 3)).astype(np.float32)
    book = Codebook("toy", 2, 320, centroids, np.zeros(3, np.float32), np.ones(3, np.float32), "4f")
    chosen = random.integers(LARGEST_CODEBOOK, size=700)
    assert np.array_equal(book.quantize(centroids[chosen]), chosen)  # in three blocks
    assert np.array_equal(book.quantize(centroids[chosen[:300]]), chosen[:300])

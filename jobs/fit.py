"""`echo-targets fit-codebook` and `fit-unit-language`: both give the same file for the same data and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from jobs.screen import open_console
from schemas.layout import Dataset
from transforms.audio import decode_flac
from transforms.codebook import fit_codebook
from transforms.models.whisper_encoder import HOP_SAMPLES
from transforms.tokenize import Features
from transforms.unit_language import UnitLanguage

BATCH = 16

Mode = Literal["ngram", "bpe"]


def fit_codebook_command(
    root: str, out: str, size: int, layer: int, model: str, seed: int, max_frames: int, device: str
) -> int:
    """Fits on features of the utterances, in their order, and writes the file with its report."""
    console = open_console()
    features = Features(model, layer, device)
    encoder = f"whisper-{model.removeprefix('embedded:').rstrip('/').split('/')[-1]}"
    codebook, report = fit_codebook(
        _features(Dataset(root), features, console),
        size=size,
        encoder=encoder,
        layer=layer,
        hop_samples=HOP_SAMPLES,
        seed=seed,
        max_frames=max_frames,
    )
    _parent(out)
    codebook.save(Path(out), report)
    console.print(f"{out}: {codebook.id}, digest {codebook.digest}", markup=False, soft_wrap=True)
    console.print_json(json.dumps(report))
    return 0


def _features(dataset: Dataset, features: Features, console: Console) -> Iterator[np.ndarray]:
    for manifest in dataset.manifests("utterances"):
        with dataset.open(manifest.output.path) as file:
            for batch in file.iter_batches(BATCH, columns=["audio.bytes"]):
                yield from features([decode_flac(audio["bytes"]) for audio in batch["audio"].to_pylist()])
        console.print(f"features of shard {manifest.shard + 1} of {manifest.shards}")


def fit_unit_language_command(root: str, out: str, vocab_size: int, max_word_units: int, mode: Mode) -> int:
    """Fits on the table `units` and writes the file."""
    console = open_console()
    units = Dataset(root).read("units", ["units", "codebook_id", "codebook_size"])
    books = set(units["codebook_id"].to_pylist())
    if len(books) != 1:
        console.print(f"{root}: units of {len(books)} codebooks, expected one", style="red")
        return 2
    sequences: list[list[int]] = units["units"].to_pylist()
    size = units["codebook_size"][0].as_py()
    language = UnitLanguage.fit(
        sequences, num_units=size, vocab_size=vocab_size, max_word_units=max_word_units, mode=mode
    )
    _parent(out)
    language.save(Path(out))
    words = sum(len(encoded) for encoded in language.encode_batch(sequences))
    ratio = sum(len(sequence) for sequence in sequences) / max(words, 1)
    console.print(f"{out}: {language.id}, {ratio:.2f} units a word over {len(sequences)} sequences", markup=False)
    return 0


def _parent(out: str) -> None:
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)

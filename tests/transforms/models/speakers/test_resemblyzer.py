"""The embedded speaker encoder against the package's own figures, and real voices.

`data/resemblyzer.json` holds the first 24 values of `VoiceEncoder.embed_utterance(normalize_volume(sound, -30,
increase_only=True))`, Resemblyzer 0.1.4, of utterances of LibriSpeech (CC BY 4.0) and of signals.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.speakers import resemblyzer
from echo_targets.transforms.models.speakers.registry import open_speaker_encoder
from echo_targets.transforms.models.speakers.resemblyzer import ResemblyzerEncoder, partials
from tests.transforms.models.mos.test_dnsmos import sweep

EXPECTED = json.loads((Path(__file__).parents[2] / "data" / "resemblyzer.json").read_text())
SIGNALS = {
    "sweep": sweep(176_161),
    "sweep 25600": sweep(176_161)[:25_600],
    "sweep 1000": sweep(176_161)[:1000],
    "quiet": sweep(176_161)[:60_000] / 100,
}


@pytest.fixture(scope="module")
def encoder() -> ResemblyzerEncoder:
    if find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    opened = open_speaker_encoder("embedded:resemblyzer")
    opened.setup()
    assert isinstance(opened, ResemblyzerEncoder)
    return opened


def test_signals_are_encoded_as_in_the_package(encoder: ResemblyzerEncoder) -> None:
    found = encoder.embed(list(SIGNALS.values()))
    assert found.dtype == np.float32 and found.shape == (4, 256)
    for vector, name in zip(found, SIGNALS, strict=True):
        assert vector[:24] == pytest.approx(EXPECTED[name], abs=2e-5), name
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_real_voices_are_encoded_as_in_the_package(encoder: ResemblyzerEncoder, speech: list[dict[str, Any]]) -> None:
    rows = [row for row in speech if row["id"] in EXPECTED]
    if not rows:
        pytest.skip("the recordings are not there")
    sounds = [soundfile.read(row["audio"], dtype="float32")[0] for row in rows]
    for vector, row in zip(encoder.embed(sounds), rows, strict=True):
        assert vector[:24] == pytest.approx(EXPECTED[row["id"]], abs=2e-5)


def test_a_voice_is_most_like_itself(encoder: ResemblyzerEncoder, speech: list[dict[str, Any]]) -> None:
    """Ten utterances each of two chapters, by different readers."""
    chapters: dict[str, list[np.ndarray]] = {}
    for row in speech:
        chapters.setdefault(row["speaker"], []).append(soundfile.read(row["audio"], dtype="float32")[0])
    one, two = (sounds[:10] for sounds in list(chapters.values())[:2])
    vectors = encoder.embed([*one, *two])
    alike = vectors @ vectors.T
    within = np.concatenate([block[np.triu_indices(10, 1)] for block in (alike[:10, :10], alike[10:, 10:])])
    assert np.median(within) > np.median(alike[:10, 10:]) + 0.05


def test_neighbors_and_threads_change_nothing(encoder: ResemblyzerEncoder) -> None:
    together = encoder.embed(list(SIGNALS.values()))
    alone = np.concatenate([encoder.embed([sound]) for sound in SIGNALS.values()])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one_thread = encoder.embed(list(SIGNALS.values()))
    torch.set_num_threads(threads)
    assert np.array_equal(together, alone) and np.array_equal(together, one_thread)


def test_level_hardly_matters_and_silence_is_no_error(encoder: ResemblyzerEncoder) -> None:
    sound = SIGNALS["sweep"][:60_000]
    loud, quiet = encoder.embed([sound / 40, sound / 1000])
    assert loud @ quiet > 0.999
    empty, one, zeros = encoder.embed([sound[:0], sound[:1], np.zeros(50_000, np.float32)])
    assert not empty.any() and np.isfinite(one).all() and np.isfinite(zeros).all()
    assert encoder.embed([]).shape == (0, 256)


@pytest.mark.parametrize(
    ("seconds", "starts"), [(0.1, [0]), (1.6, [0]), (1.9, [0]), (2.0, [0, 77]), (3.2, [0, 77, 154])]
)
def test_partials(seconds: float, starts: list[int]) -> None:
    """As `compute_partial_slices`: 77 frames apart; a last one below three quarters is left out, unless it is alone."""
    assert partials(int(seconds * 16_000)) == starts


def test_weights_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resemblyzer, "RESEMBLYZER", replace(resemblyzer.RESEMBLYZER, package="no_such_package"))
    with pytest.raises(ModelError, match=r"pip install 'Resemblyzer==0\.1\.4' \(or the \[speakers\] extra\)"):
        open_speaker_encoder("embedded:resemblyzer").weight_digest()

"""DNSMOS against the package's own figures, which need librosa and so were computed once.

`data/dnsmos.json` holds sig, bak, ovrl and p808 of `speechmos.dnsmos.run(sound, 16000)`, speechmos 0.0.1.1, of
utterances of LibriSpeech (CC BY 4.0), of four of them joined, and of signals.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.mos import dnsmos
from echo_targets.transforms.models.mos.dnsmos import Dnsmos, windows
from echo_targets.transforms.threads import in_threads
from tests.transforms.audio.audio_files import spoken

pytest.importorskip("speechmos")
EXPECTED = json.loads((Path(__file__).parents[2] / "data" / "dnsmos.json").read_text())


@pytest.fixture(scope="module")
def model() -> Dnsmos:
    loaded = Dnsmos()
    loaded.setup()
    return loaded


def sweep(length: int) -> np.ndarray:
    """A tone that rises from 200 Hz by 300 Hz a second, in bursts of a quarter of a second."""
    at = np.arange(length)
    seconds = at / 16_000
    rising = 0.5 * np.sin(2 * np.pi * (200 * seconds + 150 * seconds**2)) * np.hanning(4000)[at % 4000]
    return rising.astype(np.float32)


SIGNALS = {
    "sweep": sweep(176_161),
    "sweep 144160": sweep(144_160),
    "sweep 144159": sweep(144_159),
    "sweep 1000": sweep(1000),
    "zeros": np.zeros(16_000, np.float32),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_score_as_in_the_package(name: str, model: Dnsmos) -> None:
    assert model(SIGNALS[name]) == pytest.approx(EXPECTED[name], abs=1e-4)


def test_real_speech_scores_as_in_the_package(speech: list[dict[str, Any]], model: Dnsmos) -> None:
    files = {row["id"]: row["audio"] for row in speech}
    names = [name for name in EXPECTED if set(name.split("+")) <= files.keys()]
    if not names:
        pytest.skip("the recordings are not there")
    for name in names:
        sounds = [soundfile.read(files[key], dtype="float32")[0] for key in name.split("+")]
        assert model(np.concatenate(sounds)) == pytest.approx(EXPECTED[name], abs=1e-4)
    assert len(names) == 5


def test_scores_do_not_depend_on_neighbors_or_threads(model: Dnsmos) -> None:
    sounds = [spoken(), SIGNALS["sweep 1000"], spoken()[::-1].copy(), spoken()[:20_000]]
    assert in_threads(model, sounds, at_once=2) == [model(sound) for sound in sounds]


def test_noise_lowers_every_score(model: Dnsmos) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, len(spoken())).astype(np.float32)
    assert all(worse < better - 0.2 for worse, better in zip(model(spoken() + noise), model(spoken()), strict=True))


@pytest.mark.parametrize("loud", [0.0, 1.0])
@pytest.mark.parametrize("length", [1, 7, 16_000, 144_161])
def test_any_sound_has_scores_within_the_rules(length: int, loud: float, model: Dnsmos) -> None:
    clicks = loud * (np.arange(length) % 4000 == 0)
    assert all(0 < score < 6 for score in model(clicks.astype(np.float32)))


@pytest.mark.parametrize(("seconds", "count"), [(9.01, 1), (10, 1), (10.5, 1), (12.5, 3), (20, 7)])
def test_windows_start_every_second(seconds: float, count: int) -> None:
    """As the package has it, which skips windows that rounding makes a sample too short."""
    cut = windows(np.arange(int(seconds * 16_000)))
    assert {len(window) for window in cut} == {144_160}
    assert len(cut) == count and {window[0] % 16_000 for window in cut} == {0}


def test_the_networks_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Dnsmos().weight_digests().keys() == {"dnsmos_p835", "dnsmos_p808"}
    monkeypatch.setattr(dnsmos, "DNSMOS_P808", replace(dnsmos.DNSMOS_P808, sha256="0" * 64))
    with pytest.raises(ModelError, match=r"model_v8\.onnx has sha256 .* reinstall 'speechmos==0\.0\.1\.1'"):
        Dnsmos().weight_digests()
    monkeypatch.setattr(dnsmos, "DNSMOS_P835", replace(dnsmos.DNSMOS_P835, package="no_such_package"))
    with pytest.raises(ModelError, match=r"pip install 'speechmos==0\.0\.1\.1' \(or the \[mos\] extra\)"):
        Dnsmos().setup()

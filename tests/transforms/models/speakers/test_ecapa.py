"""ECAPA-TDNN of a directory, against speechbrain's own classes with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.speakers.ecapa import EcapaEncoder
from echo_targets.transforms.models.speakers.registry import open_speaker_encoder
from tests.transforms.audio.audio_files import spoken
from tests.transforms.speechbrain_checkpoints import make_ecapa

pytestmark = pytest.mark.skipif(find_spec("speechbrain") is None, reason="speechbrain is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ecapa(tmp_path_factory.mktemp("ecapa"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> EcapaEncoder:
    opened = open_speaker_encoder(str(folder))
    opened.setup()
    assert isinstance(opened, EcapaEncoder)
    return opened


SOUNDS = [spoken(), spoken()[::-1].copy(), spoken()[:30_001] / 50, spoken()[:2000]]


def theirs(folder: Path, waveform: np.ndarray) -> np.ndarray:
    """What `EncoderClassifier.encode_batch` computes: its modules, in its order, on one waveform."""
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    network = ECAPA_TDNN(24, channels=[16, 16, 16, 16, 40], attention_channels=6, lin_neurons=11).eval()
    network.load_state_dict(torch.load(folder / "embedding_model.ckpt", weights_only=True))
    lengths = torch.ones(1)
    with torch.inference_mode():
        features = Fbank(n_mels=24)(torch.from_numpy(waveform)[None])
        normed = InputNormalization(norm_type="sentence", std_norm=False).eval()(features, lengths)
        found = network(normed, lengths)[0, 0].numpy()
    return np.asarray(found / np.linalg.norm(found))


def test_embeddings_are_those_of_speechbrain(encoder: EcapaEncoder, folder: Path) -> None:
    found = encoder.embed(SOUNDS)
    assert found.shape == (4, 11) and found.dtype == np.float32 and encoder.dimension == 11
    for vector, sound in zip(found, SOUNDS, strict=True):
        assert vector == pytest.approx(theirs(folder, sound), abs=1e-4)


def test_neighbors_change_nothing(encoder: EcapaEncoder) -> None:
    """Padded in a batch, they would (speechbrain, issue 1374)."""
    alone = np.concatenate([encoder.embed([sound]) for sound in SOUNDS])
    assert np.array_equal(encoder.embed(SOUNDS), alone)


@pytest.mark.parametrize("length", [0, 1, 160, 799])
def test_short_sounds(length: int, encoder: EcapaEncoder) -> None:
    (vector,) = encoder.embed([spoken()[:length]])
    assert np.isfinite(vector).all() and vector.any() == (length > 0)


def test_every_file_shapes_the_digest(tmp_path: Path) -> None:
    one, two, other = (make_ecapa(tmp_path / name) for name in "abc")
    (other / "hyperparams.yaml").write_text((other / "hyperparams.yaml").read_text() + "\n# more\n")
    digests = [EcapaEncoder(str(folder)).weight_digest() for folder in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]


def edited(old: str, new: str) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / "hyperparams.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another network": (
        edited("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector"),
        "`embedding_model` is .*Xvector; supported: ECAPA",
    ),
    "a class to run": (edited("lin_neurons: 11", "activation: !name:os.system"), "`embedding_model` has activation; "),
    "other sizes": (edited("lin_neurons: 11", "lin_neurons: 12"), r"embedding_model\.ckpt"),
    "sizes that are none": (edited("lin_neurons: 11", "lin_neurons: many"), "wrong sizes"),
    "another norm": (edited("norm_type: sentence", "norm_type: global"), "mean_var_norm must have norm_type: sentence"),
    "another rate": (
        edited("n_mels: !ref <n_mels>", "n_mels: 24\n    sample_rate: 8000"),
        "sample_rate is 8000; expected 16000",
    ),
    "a damaged file": (lambda folder: (folder / "embedding_model.ckpt").write_bytes(b"PK"), "damaged"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_directories(how: str, tmp_path: Path) -> None:
    change, says = BROKEN[how]
    change(make_ecapa(tmp_path))
    with pytest.raises(ModelError, match=says):
        open_speaker_encoder(str(tmp_path)).setup()


def test_what_is_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "hyperparams.yaml").write_text("a: 1")
    with pytest.raises(
        ModelError, match="not a speaker encoder; expected embedded:resemblyzer, or a speechbrain directory"
    ):
        open_speaker_encoder(str(tmp_path))

"""The interface: exact frames at any rate, and a tokenizer of another kind, finite scalar quantization at 25 Hz."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.transforms.models.tokenizers import registry as unit_tokenizers
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec, UnitTokenizer
from echo_targets.transforms.models.whisper.encoder import log_mel
from echo_targets.transforms.units.codebook import expand
from tests.transforms.rows import run_stages

LEVELS, WIDTH = 3, 8


class Fsq(UnitTokenizer):
    """Three levels of each of eight numbers a frame, as CosyVoice2's S3 tokenizer (Mentzer et al. 2023): 6,561 units.

    The numbers are a projection of four frames of log-mel, which a file holds; the spectrogram has a frame less where
    the audio ends early in its last 40 ms.
    """

    codebook_size = LEVELS**WIDTH
    num_codebooks = 1
    layer = None
    sampling_rate, hop_samples = SAMPLE_RATE, 640

    @staticmethod
    def can_load(path: Path) -> bool:
        return path.suffix == ".npy"

    def __init__(self, named: TokenizerSpec) -> None:
        self._file = named.codebook
        self.digest = hashlib.sha256(self._file.read_bytes()).hexdigest()
        self.codebook_id = f"fsq-{self.digest[:8]}"

    def weight_digests(self) -> dict[str, str]:
        return {"codebook": self.digest}

    def setup(self, device: str) -> None:
        self._down = np.load(self._file, allow_pickle=False)

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [self.fitted(self._units(waveform), len(waveform)) for waveform in waveforms]

    def _units(self, waveform: np.ndarray) -> np.ndarray:
        mel = log_mel(waveform, max(640, len(waveform)), 80, "cpu").numpy()
        frames = mel[:, : mel.shape[1] // 4 * 4].T.reshape(-1, 4 * 80)
        levels = np.round(np.tanh(frames @ self._down) * 0.999) + 1
        return (levels @ LEVELS ** np.arange(WIDTH)).astype(int)[:, None]


@pytest.fixture
def projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "down.npy"
    np.save(path, np.random.default_rng(0).normal(size=(320, WIDTH)) / 4)
    monkeypatch.setattr(unit_tokenizers, "KINDS", (Fsq, *unit_tokenizers.KINDS))
    return path


def test_another_kind_goes_through_the_whole_stage(projection: Path, speech: list[dict], tmp_path: Path) -> None:
    lines = [json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"]}) for row in speech[:5]]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    stages = {"ingest": {"sources": [source]}, "tokenize": {"codebook": str(projection)}}
    dataset, _ = run_stages(tmp_path / "root", {**stages, "publish_t2c": {"roles": ["narrator"]}})
    assert list(check_dataset(dataset.root)) == []
    tokenizer = unit_tokenizers.open_tokenizer(str(projection), "")
    tokenizer.setup("cpu")
    assert isinstance(tokenizer, Fsq)
    rows = dataset.read("units").to_pylist()
    heard = {row["id"]: soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:5]}
    short = 0
    for row in rows:
        assert (row["codebook_size"], row["num_codebooks"], row["hop_samples"]) == (6561, 1, 640)
        frames = expand(np.array(row["units"][0]), np.array(row["durations"]))
        alone = tokenizer._units(heard[row[KEY]])[:, 0]
        short += len(alone) < len(frames) == ceil(len(heard[row[KEY]]) / 640)
        assert np.array_equal(frames, np.r_[alone, alone[-1:]][: len(frames)])
    assert short, "else the frame that is repeated is not tested"
    assert max(max(row["units"][0]) for row in rows) > 3**7, "units beyond those of seven numbers"
    assert dataset.read("training/t2c")["codebook_id"].to_pylist() == [tokenizer.codebook_id] * 5


@given(st.integers(1, 2**40), st.integers(1, 192_000), st.integers(1, 32_767))
def test_frames_are_counted_exactly(num_samples: int, sampling_rate: int, hop_samples: int) -> None:
    tokenizer = Fsq.__new__(Fsq)
    tokenizer.sampling_rate, tokenizer.hop_samples = sampling_rate, hop_samples
    assert tokenizer.num_frames(num_samples) == ceil(Fraction(num_samples * sampling_rate, 16_000 * hop_samples))


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (0, 1), (6, 3)])
def test_more_than_a_frame_or_two_off_is_an_error(given: int, wanted: int) -> None:
    tokenizer = Fsq.__new__(Fsq)
    units = np.arange(given)[:, None]
    if given == 1:
        assert tokenizer.fitted(units, 640 * wanted).tolist() == [[0]] * 3
        return
    with pytest.raises(ValueError, match=f"gave {given} frames for audio of {wanted} frames"):
        tokenizer.fitted(units, 640 * wanted)

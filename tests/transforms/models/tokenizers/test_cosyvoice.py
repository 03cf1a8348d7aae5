"""CosyVoice2's tokenizer against its package's own calls, on real speech, where the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec
from echo_targets.transforms.models.tokenizers.cosyvoice import S3Tokenizer
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters
from echo_targets.transforms.units.codebook import expand
from tests.transforms.rows import apply, window


@pytest.fixture(scope="module")
def network() -> Any:
    """The package's own network, small and of random weights."""
    package = pytest.importorskip("s3tokenizer.model_v2")
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = package.ModelConfig(n_mels=80, n_audio_state=128, n_audio_head=2, n_audio_layer=2)
        model = package.S3TokenizerV2("speech_tokenizer_v2_25hz", config).eval()
        model.quantizer._codebook.project_down.weight.data *= 4  # or rounding gives the middle level for all
    return model


@pytest.fixture(scope="module")
def file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    path: Path = tmp_path_factory.mktemp("s3") / "speech_tokenizer_v2_25hz.safetensors"
    save_file(network.state_dict(), path)
    return path


def by_package(network: Any, waveform: np.ndarray) -> list[int]:
    import s3tokenizer
    import torch

    mel = s3tokenizer.log_mel_spectrogram(torch.from_numpy(waveform), 80)
    units, lengths = network.quantize(mel[None], torch.tensor([mel.shape[1]]))
    found: list[int] = units[0, : lengths[0]].tolist()
    return found


def test_units_are_the_packages_whatever_the_neighbours(
    network: Any, file: Path, speech: list[dict], long_utterance: dict
) -> None:
    waveforms = [soundfile.read(row["audio"], dtype="float32")[0] for row in (*speech[:3], long_utterance)]
    tokenizer = open_tokenizer(str(file), EMBEDDED)
    tokenizer.setup("cpu")
    together = tokenizer(waveforms)
    for waveform, units in zip(waveforms, together, strict=True):
        theirs = by_package(network, waveform)
        assert len(units) == -(-len(waveform) // 640) and len(units) - len(theirs) in (0, 1)
        assert units[:, 0].tolist() == [*theirs, theirs[-1]][: len(units)]
        assert np.array_equal(tokenizer([waveform])[0], units)
    assert len({unit for units in together for unit in units[:, 0].tolist()}) > 50
    many = np.concatenate(waveforms)
    for seconds in (29.99, 30.01, 52.0, 52.5, 55.9, 56.1, 79.0):  # the last window may be little more than overlap
        some = np.resize(many, round(seconds * SAMPLE_RATE))
        assert tokenizer([some])[0].shape == (-(-len(some) // 640), 1)
    for length in (1, 200, 639, 640, 641, 1281):
        assert tokenizer([waveforms[0][5000 : 5000 + length]])[0].shape == (-(-length // 640), 1)
    assert len(waveforms[-1]) > 30 * SAMPLE_RATE


def test_through_the_stage(file: Path, ingested: Dataset) -> None:
    tokenize = Tokenize(TokenizeParameters(codebook=str(file)))
    tokenize.setup()
    for row in apply(tokenize, window(ingested).slice(0, 2)).rows.to_pylist():
        assert (row["codebook_size"], row["num_codebooks"], row["layer"]) == (6561, 1, None)
        assert (row["sampling_rate"], row["hop_samples"]) == (16_000, 640)
        assert len(expand(np.array(row["units"][0]), np.array(row["durations"]))) == row["num_frames"]


def test_what_is_asked_must_be_there_and_a_damaged_file_is_an_error(file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match="`layer`, which are for k-means, and `num_codebooks`"):
        S3Tokenizer(TokenizerSpec(file, EMBEDDED, num_codebooks=2))
    tensors = load_file(file)
    for broken in ("encoder.conv1.weight", "encoder.blocks.1.mlp_ln.bias"):
        path = tmp_path / f"{broken}.safetensors"
        save_file({name: tensor for name, tensor in tensors.items() if name != broken}, path)
        assert S3Tokenizer.can_load(path)
        with pytest.raises(ModelError, match="not the weights of S3TokenizerV2"):
            S3Tokenizer(TokenizerSpec(path, EMBEDDED)).setup("cpu")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:1000])
    assert not S3Tokenizer.can_load(cut)
    with pytest.raises(ModelError, match="not a codebook, or truncated"):
        open_tokenizer(str(cut), EMBEDDED)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from safetensors.numpy import save_file

    path = tmp_path / "s3.safetensors"
    save_file({"quantizer._codebook.project_down.weight": np.zeros((8, 128), np.float32)}, path)
    monkeypatch.setitem(sys.modules, "s3tokenizer.model_v2", None)
    tokenizer = open_tokenizer(str(path), EMBEDDED)
    assert tokenizer.codebook_id.startswith("s3v2-") and tokenizer.codebook_size == 6561
    with pytest.raises(ModelError, match=r"'echo-targets\[cosyvoice\]'"):
        tokenizer.setup("cpu")

"""speechbrain's encoders and quantizers: its own units and features, from its own files."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.encoders.self_supervised import SslEncoder, SslFeatures
from echo_targets.transforms.models.encoders.speechbrain import EPS, SpeechbrainEncoder
from echo_targets.transforms.models.tokenizers.kmeans_file import read_centroids
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters
from echo_targets.transforms.threads import in_threads
from tests.transforms.rows import apply, window
from tests.transforms.speechbrain_checkpoints import make_encoder, make_vocoder, save, unit_hifigan
from tests.transforms.ssl_checkpoints import KINDS, make_ssl

LAYERS = (1, 3)
K = 20


def discrete_ssl(folder: Path, kind: str, encoder: Any, heard: list[np.ndarray], patch: pytest.MonkeyPatch) -> Any:
    """speechbrain's quantizer; its repository on a hub is a folder: k-means of two layers, and a vocoder of them."""
    from speechbrain.integrations.audio_tokenizers import discrete_ssl
    from speechbrain.utils.kmeans import fetch_kmeans_model, process_chunks, save_model

    make_vocoder(folder, len(LAYERS) * K + 1, duration_predictor=False)
    (folder / "kmeans").mkdir()
    hidden = [encoder.extract_features(torch.from_numpy(waveform)[None])[:, 0] for waveform in heard]
    for layer in LAYERS:
        path = str(folder / "kmeans" / f"LibriSpeech_{kind}_k{K}_L{layer}.pt")
        quantizer = fetch_kmeans_model(K, "k-means++", 100, 500, 0.0, 100, 3, 0.0, 0, path)
        process_chunks([frame for each in hidden for frame in each[layer].numpy()], 500, quantizer)
        save_model(quantizer, path)
    patch.setattr(discrete_ssl, "snapshot_download", lambda repo_id, **_: repo_id)
    patch.setattr(discrete_ssl.UnitHIFIGAN, "from_hparams", lambda source, **_: unit_hifigan(Path(source)))
    return discrete_ssl.DiscreteSSL(
        str(folder / "cache"), encoder, "LibriSpeech", vocoder_repo_id=str(folder), num_clusters=K
    )


@pytest.mark.filterwarnings("ignore:speechbrain.utils.kmeans is deprecated")
@pytest.mark.parametrize(("kind", "norm"), [("hubert", "layer"), ("wavlm", "group"), ("wav2vec2", "layer")])
def test_units_are_those_of_discrete_ssl(
    ingested: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, norm: str
) -> None:
    monkeypatch.setattr(SslFeatures, "eps", EPS)  # with transformers' own, a frame between two centroids may differ
    model = make_ssl(tmp_path / "model", kind, norm)
    table = window(ingested).slice(0, 4)
    heard = {row[KEY]: decode_flac(row["audio"]["bytes"]) for row in table.to_pylist()}
    encoder = make_encoder(kind, model, output_all_hiddens=True)
    quantizer = discrete_ssl(tmp_path / "hub", kind, encoder, list(heard.values()), monkeypatch)
    for layer in LAYERS:
        book = str(tmp_path / "hub" / "kmeans" / f"LibriSpeech_{kind}_k{K}_L{layer}.pt")
        tokenize = Tokenize(TokenizeParameters(model=model, codebook=book, layer=layer))
        tokenize.setup()
        encode = partial(quantizer.encode, SSL_layers=[layer], deduplicates=[True])
        for row in apply(tokenize, table).rows.to_pylist():
            waveform = torch.from_numpy(heard[row[KEY]])[None]
            ((whole, _, runs),) = in_threads(encode, [waveform], at_once=1)  # as the stage hears
            assert row["units"] == [(runs[0, :, 0] - layer * K - 1).tolist()]
            frames = np.repeat(row["units"][0], row["durations"])
            assert frames[: whole.shape[1]].tolist() == whole[0, :, 0].tolist()
            assert len(set(row["units"][0])) > 5


def test_files_of_its_newer_quantizer(tmp_path: Path) -> None:
    from speechbrain.integrations.audio_tokenizers.kmeans import MiniBatchKMeansSklearn

    quantizer = MiniBatchKMeansSklearn(8, n_init=1, random_state=0)
    quantizer.partial_fit(torch.randn(2, 50, 12))
    quantizer.save(str(tmp_path / "quantizer.ckpt"))
    assert np.array_equal(read_centroids(tmp_path / "quantizer.ckpt"), quantizer.cluster_centers.numpy())


@pytest.fixture(scope="module")
def waveforms(speech: list[dict[str, Any]]) -> list[np.ndarray]:
    heard = [soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:2]]
    return [heard[0][:40_000], heard[1][:31_111] / 50]  # the second one is faint


def fine_tuned(folder: Path, kind: str, norm: str) -> tuple[str, Any]:
    """A directory as `EncoderASR` repositories and trainings have it, and speechbrain's module."""
    encoder = make_encoder(kind, make_ssl(folder / "start", kind, norm), output_all_hiddens=True)
    with torch.no_grad():
        for tensor in encoder.parameters():
            tensor.mul_(1.1)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(folder / "start" / name, folder / name)
    save(folder / f"{kind}.ckpt", encoder)
    return str(folder), encoder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_features_of_a_fine_tuned_encoder(tmp_path: Path, waveforms: list[np.ndarray], kind: str, norm: str) -> None:
    model, encoder = fine_tuned(tmp_path, kind, norm)
    for layer in (0, 2, 4):
        for waveform, found in zip(waveforms, open_encoder(model).features(layer, "cpu")(waveforms), strict=True):
            encoder.output_all_hiddens = layer < 4  # with transformers 5, the last of all is not normed
            with torch.inference_mode():
                said = encoder(torch.from_numpy(waveform)[None])
            expected = (said[layer, 0] if layer < 4 else said[0]).numpy()
            np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)
    assert open_encoder(model).name() == f"{kind}-{open_encoder(model).weight_digest()[:8]}"


def test_features_of_an_encoder_that_speechbrain_pretrained(tmp_path: Path, waveforms: list[np.ndarray]) -> None:
    """Its tensors lie beside those of pretraining; speechbrain itself takes them out."""
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2, Wav2Vec2Pretrain

    make_ssl(tmp_path / "start", "wav2vec2", codevector_dim=24, proj_codevector_dim=16, num_codevectors_per_group=8)
    save(tmp_path / "wav2vec2.ckpt", Wav2Vec2Pretrain(str(tmp_path / "start"), str(tmp_path / "cache")))
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(tmp_path / "start" / name, tmp_path / name)
    encoder = Wav2Vec2(str(tmp_path), str(tmp_path / "cache"), freeze=True, output_all_hiddens=True)
    (found,) = open_encoder(str(tmp_path)).features(3, "cpu")(waveforms[:1])
    expected = encoder(torch.from_numpy(waveforms[0])[None])[3, 0].numpy()
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_weights_with_the_names_of_older_torch(tmp_path: Path, waveforms: list[np.ndarray]) -> None:
    model, _ = fine_tuned(tmp_path, "hubert", "group")
    (before,) = open_encoder(model).features(2, "cpu")(waveforms[:1])
    state = torch.load(tmp_path / "hubert.ckpt", weights_only=True)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        for key in [key for key in state if key.endswith(new)]:
            state[key.replace(new, name)] = state.pop(key)
    torch.save(state, tmp_path / "hubert.ckpt")
    (after,) = open_encoder(model).features(2, "cpu")(waveforms[:1])
    assert np.array_equal(before, after)


def test_what_a_fingerprint_sees(tmp_path: Path) -> None:
    model, _ = fine_tuned(tmp_path / "a", "hubert", "group")
    before = SpeechbrainEncoder(model).weight_digest()
    (tmp_path / "a").rename(tmp_path / "b")
    assert SpeechbrainEncoder(str(tmp_path / "b")).weight_digest() == before
    assert SslEncoder(str(tmp_path / "b" / "start")).weight_digest() != before
    other, encoder = fine_tuned(tmp_path / "c", "hubert", "group")
    encoder.model.feature_projection.projection.bias.data.add_(1)
    save(tmp_path / "c" / "hubert.ckpt", encoder)
    assert SpeechbrainEncoder(other).weight_digest() != before


class Calls:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_what_is_refused_says_why(tmp_path: Path) -> None:
    model, encoder = fine_tuned(tmp_path, "hubert", "group")
    with pytest.raises(ModelError, match="4 layers, but the codebook needs layer 5"):
        open_encoder(model).features(5, "cpu")
    path = tmp_path / "hubert.ckpt"
    state = {f"model.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    torch.save({**state, "model.masked_spec_embed": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"hubert\.ckpt: .*masked_spec_embed is \(3,\), expected \(40,\)"):
        open_encoder(model).features(2, "cpu")
    torch.save(state | {"model.more": Calls(tmp_path / "ran")}, path)
    with pytest.raises(ModelError, match="damaged, or more than tensors"):
        open_encoder(model).features(2, "cpu")
    assert not (tmp_path / "ran").exists()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match="damaged, or more than tensors"):
        open_encoder(model).features(2, "cpu")
    (tmp_path / "config.json").write_text('{"speechbrain_interface": "EncoderASR"}')
    with pytest.raises(ModelError, match="of the checkpoint that it was trained from"):
        open_encoder(model).features(2, "cpu")

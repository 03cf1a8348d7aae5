"""Encoders of transformers: features as its own forward pass gives them, at any layer and in any company."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders import self_supervised
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.encoders.self_supervised import SslEncoder, SslFeatures
from echo_targets.transforms.models.whisper.encoder import num_frames
from echo_targets.transforms.stages.tokenize import Tokenize, TokenizeParameters
from echo_targets.transforms.threads import in_threads
from echo_targets.transforms.units.codebook import Codebook, collapse
from tests.transforms.rows import apply, run_stages, window
from tests.transforms.ssl_checkpoints import KINDS, SIZE, make_ssl


def by_transformers(model: str, waveform: np.ndarray, layer: int) -> np.ndarray:
    """The library's own way with one utterance."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    inputs = AutoFeatureExtractor.from_pretrained(model)(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        encoder = AutoModel.from_pretrained(model).eval()
        ends: list[Any] = []
        encoder.encoder.register_forward_hook(lambda module, given, output: ends.append(output[0][0]))
        states = encoder(inputs["input_values"], output_hidden_states=True).hidden_states
    # The last one is normed in transformers 4 and is not in transformers 5; what leaves the encoder is, in both.
    found: np.ndarray = (ends[0] if layer == len(encoder.encoder.layers) else states[layer][0]).numpy()
    return found


@pytest.fixture(scope="module")
def waveforms(speech: list[dict]) -> list[np.ndarray]:
    heard = [soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:3]]
    return [heard[0][:40_000], heard[1][:40_000], heard[2][:31_111]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_features_are_those_of_transformers(tmp_path: Path, waveforms: list[np.ndarray], kind: str, norm: str) -> None:
    model = make_ssl(tmp_path, kind, norm)
    for layer in (0, 2, 4):
        for waveform, found in zip(waveforms, SslFeatures(model, layer, "cpu")(waveforms), strict=True):
            expected = by_transformers(model, waveform, layer)
            np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)
            assert len(found) == num_frames(len(waveform)) and 0 <= len(found) - len(expected) <= 2
            assert (found[len(expected) :] == found[len(expected) - 1]).all()


@pytest.mark.parametrize("more", [{"add_adapter": True, "num_adapter_layers": 1}, {"adapter_attn_dim": 8}])
def test_adapters_are_left_out_or_kept_as_in_the_hidden_states(
    tmp_path: Path, waveforms: list[np.ndarray], more: dict[str, Any]
) -> None:
    """The convolutions after the last block shorten what follows them; MMS's layers lie inside the blocks."""
    model = make_ssl(tmp_path, "wav2vec2", "layer", **more)
    for layer in (2, 4):
        (found,) = SslFeatures(model, layer, "cpu")(waveforms[:1])
        expected = by_transformers(model, waveforms[0], layer)
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)
        assert len(found) - len(expected) <= 2


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_neighbours_change_nothing(tmp_path: Path, waveforms: list[np.ndarray], norm: str) -> None:
    features = SslFeatures(make_ssl(tmp_path, "hubert", norm), 3, "cpu")
    for waveform, together in zip(waveforms, features(waveforms), strict=True):
        assert np.array_equal(features([waveform])[0], together)


def test_every_length_has_its_frames(tmp_path: Path, waveforms: list[np.ndarray]) -> None:
    features = SslFeatures(make_ssl(tmp_path, "wavlm"), 1, "cpu")
    for samples in (1, 320, 399, 400, 719, 720, 721, 16_000):
        assert len(features([waveforms[0][:samples]])[0]) == num_frames(samples)


def test_long_utterances_are_cut(tmp_path: Path, waveforms: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    features = SslFeatures(make_ssl(tmp_path, "hubert"), 2, "cpu")
    monkeypatch.setattr(self_supervised, "CHUNK_SAMPLES", 16_000)
    parts = [features([waveforms[0][start : start + 16_000]])[0] for start in range(0, 40_000, 16_000)]
    assert np.array_equal(features([waveforms[0]])[0], np.concatenate(parts))


def test_a_bin_checkpoint_with_a_head_is_the_same_encoder(tmp_path: Path, waveforms: list[np.ndarray]) -> None:
    model = make_ssl(tmp_path / "ctc", "wav2vec2", safe=False, head=True)
    assert not list((tmp_path / "ctc").glob("*.safetensors"))
    (found,) = SslFeatures(model, 2, "cpu")(waveforms[:1])
    expected = by_transformers(model, waveforms[0], 2)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_what_a_fingerprint_sees(tmp_path: Path) -> None:
    model = make_ssl(tmp_path / "one", "hubert")
    (tmp_path / "one").rename(tmp_path / "moved")
    moved = str(tmp_path / "moved")
    before = SslEncoder(moved).weight_digest()
    assert SslEncoder(moved).name() == f"hubert-{before[:8]}"
    assert SslEncoder(make_ssl(tmp_path / "two", "hubert")).weight_digest() == before and model != moved
    make_ssl(tmp_path / "three", "hubert")
    about = tmp_path / "three" / "preprocessor_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"do_normalize": True}))
    assert SslEncoder(str(tmp_path / "three")).weight_digest() != before


def test_what_is_refused_says_why(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make_ssl(tmp_path / "a", "hubert")
    with pytest.raises(ModelError, match="4 layers, but the codebook needs layer 5"):
        SslFeatures(model, 5, "cpu")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    del tensors["encoder.layers.1.final_layer_norm.weight"]
    save_file(tensors, tmp_path / "a" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack encoder\.layers\.1\.final_layer_norm\.weight"):
        SslFeatures(model, 2, "cpu")
    (tmp_path / "a" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="whether waveforms are normalized"):
        SslFeatures(model, 2, "cpu")
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="not a checkpoint; copy it again"):
        SslEncoder(model).weight_digest()
    with pytest.raises(ModelError, match="a frame is 160 samples"):
        SslFeatures(make_ssl(tmp_path / "b", "wav2vec2", conv_stride=(5, 2, 2, 2, 2, 2, 1)), 2, "cpu")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"hidden_size": 5 << 17}, "it describes .* numbers, but the weights have .* bytes: copy the whole checkpoint"),
        ({"num_conv_pos_embeddings": 1 << 28}, "it describes .* numbers"),
        ({"conv_dim": [1 << 24] * 7}, "it describes .* numbers"),
        ({"num_hidden_layers": 100_000_000}, "num_hidden_layers is 100000000; at most 1000 are supported"),
        ({"num_attention_heads": 0}, "transformers can't load the checkpoint"),
    ],
    ids=str,
)
def test_a_configuration_can_not_claim_what_its_weights_do_not_hold(
    tmp_path: Path, claim: dict[str, Any], message: str
) -> None:
    model = make_ssl(tmp_path, "hubert")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | claim))
    with pytest.raises(ModelError, match=message):
        SslFeatures(model, 2, "cpu")


def test_an_index_names_files_beside_it_alone(tmp_path: Path) -> None:
    model = make_ssl(tmp_path / "model", "hubert")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"encoder.layer_norm.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    for use in (SslEncoder(model).weight_digest, lambda: SslFeatures(model, 2, "cpu")):
        with pytest.raises(ModelError, match="not a file in its directory"):
            use()


def test_a_codebook_of_another_encoder_is_refused(tmp_path: Path) -> None:
    model, other = make_ssl(tmp_path / "one", "hubert"), make_ssl(tmp_path / "two", "wavlm")
    plain = np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32)
    centroids = np.eye(4, SIZE, dtype=np.float32)
    book = Codebook(SslEncoder(model).name(), 2, 320, centroids, *plain, SslEncoder(model).weight_digest())
    book.save(tmp_path / "book.safetensors", {})
    parameters = {"codebook": str(tmp_path / "book.safetensors")}
    assert Tokenize(TokenizeParameters(model=model, **parameters)).weight_digests()["codebook"] == book.digest
    for given in (other, TokenizeParameters().model):
        with pytest.raises(
            ModelError, match=rf"fitted on {SslEncoder(model).name()} .* `model` is {open_encoder(given).name()} "
        ):
            Tokenize(TokenizeParameters(model=given, **parameters)).weight_digests()
    with pytest.raises(ModelError, match="not of a codec"):
        TokenizeParameters(codebook=str(tmp_path)).open()


def test_units_by_fairseq_recipe_and_through_the_whole_stage(
    ingested: Dataset, speech: list[dict], tmp_path: Path
) -> None:
    """HuBERT and a k-means file: what `ApplyKmeans` of fairseq says on transformers' own features."""
    import joblib
    import torch
    from sklearn.cluster import MiniBatchKMeans

    model = make_ssl(tmp_path / "hubert", "hubert")
    heard = {row[KEY]: decode_flac(row["audio"]["bytes"]) for row in window(ingested).slice(0, 3).to_pylist()}
    alone = in_threads(lambda waveform: by_transformers(model, waveform, 3), heard.values(), at_once=1)
    features = dict(zip(heard, alone, strict=True))
    book = str(tmp_path / "km.bin")
    joblib.dump(MiniBatchKMeans(20, random_state=0, n_init=1).fit(np.concatenate(list(features.values()))), book)

    parameters = {"model": model, "codebook": book, "layer": 3}
    tokenize = Tokenize(TokenizeParameters(**parameters))
    tokenize.setup()
    rows = apply(tokenize, window(ingested).slice(0, 3)).rows.to_pylist()
    centroids = torch.from_numpy(joblib.load(book).cluster_centers_.transpose())
    for row in rows:
        x = torch.from_numpy(features[row[KEY]])
        dist = x.pow(2).sum(1, keepdim=True) - 2 * torch.matmul(x, centroids) + centroids.pow(2).sum(0, keepdim=True)
        units, durations = collapse(dist.argmin(dim=1).numpy())
        assert row["units"] == [units.tolist()] and row["durations"][:-1] == durations.tolist()[:-1]
        assert row["codebook_id"].startswith(f"{SslEncoder(model).name()}-l3-k20-")

    lines = [json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"]}) for row in speech[:2]]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}, "tokenize": parameters})
    assert dataset.read("units").num_rows == 2 and list(check_dataset(dataset.root)) == []
    assert set(dataset.recipe("units", dataset.tables()["units"].recipe).weights) == {"encoder", "codebook"}


def test_the_layer_of_a_kmeans_file_must_be_said(tmp_path: Path) -> None:
    parameters = TokenizeParameters(model=make_ssl(tmp_path, "hubert"), codebook=str(tmp_path / "km.bin"))
    with pytest.raises(ModelError, match="set `layer`"):
        Tokenize(parameters).weight_digests()
    with pytest.raises(ModelError, match="remove `layer`"):
        Tokenize(TokenizeParameters(layer=7)).weight_digests()

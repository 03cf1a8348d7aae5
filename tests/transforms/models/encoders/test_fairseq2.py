"""Encoders of fairseq2: features as its own forward pass gives them, of every kind of file and under every name."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders import self_supervised
from echo_targets.transforms.models.encoders.fairseq2 import Fairseq2Encoder, Fairseq2Features
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.whisper.encoder import num_frames
from tests.transforms.fairseq2_checkpoints import KINDS, as_fairseq, hidden_states, make_model, save, write_card
from tests.transforms.rows import run_stages
from tests.transforms.ssl_checkpoints import make_ssl

if find_spec("fairseq2n") is None:
    pytest.skip("fairseq2 has no wheels for this Python", allow_module_level=True)


@pytest.fixture(scope="module")
def waveforms(speech: list[dict]) -> list[np.ndarray]:
    heard = [soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:2]]
    return [heard[0][:40_000], heard[1][:31_111]]


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[Any, Any]]:
    return {kind: make_model(kind) for kind in KINDS}


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["pt", "safetensors", "shards"])
def test_features_are_those_of_fairseq2(
    tmp_path: Path, models: dict[str, tuple[Any, Any]], waveforms: list[np.ndarray], kind: str, form: str
) -> None:
    model = save(tmp_path, kind, *models[kind], form)
    expected = [hidden_states(models[kind][0], waveform, kind == "large") for waveform in waveforms]
    for layer in (0, 2, 4):
        for states, waveform, found in zip(
            expected, waveforms, Fairseq2Features(model, layer, "cpu")(waveforms), strict=True
        ):
            close(found, states[layer])
            assert len(found) == num_frames(len(waveform)) and 0 <= len(found) - len(states[layer]) <= 2
            assert (found[len(states[layer]) :] == found[len(states[layer]) - 1]).all()


def as_heard(waveform: np.ndarray, kind: str) -> np.ndarray:
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-5) if kind == "large" else waveform


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["wav2vec2", "hubert"])
@pytest.mark.parametrize("head", [False, True])
def test_names_of_fairseq_and_transformers_are_the_same_model(
    tmp_path: Path, models: dict[str, tuple[Any, Any]], waveforms: list[np.ndarray], kind: str, of: str, head: bool
) -> None:
    import torch
    from fairseq2.models.wav2vec2.asr import Wav2Vec2AsrConfig, convert_wav2vec2_asr_state_dict
    from transformers import AutoModel, AutoModelForCTC

    config = models[kind][1]
    norm = "layer" if kind == "large" else "group"
    source = make_ssl(tmp_path / "hf", of, norm, head=head, layer_norm_eps=1e-5)
    network = (AutoModelForCTC if head else AutoModel).from_pretrained(source).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    network.save_pretrained(source)
    with torch.inference_mode():
        read = torch.from_numpy(as_heard(waveforms[0], kind))[None]
        expected = network(read, output_hidden_states=True).hidden_states
    write_card(tmp_path / "hf", config, kind == "large")

    write_card(tmp_path / "fairseq", config, kind == "large")
    prefix = "w2v_encoder.w2v_model." if head else ""
    arguments = argparse.Namespace(encoder_layers=4, conv_feature_layers="[(512, 10, 5)]")
    theirs = as_fairseq(network, prefix)
    torch.save({"args": arguments, "model": theirs, "extra_state": {"epoch": 3}}, tmp_path / "fairseq" / "x.pt")
    for layer in (0, 3):
        (found,) = Fairseq2Features(str(tmp_path / "hf"), layer, "cpu")(waveforms[:1])
        close(found, expected[layer][0].numpy())
        (again,) = Fairseq2Features(str(tmp_path / "fairseq"), layer, "cpu")(waveforms[:1])
        assert np.array_equal(found, again)

    # The names that the test gave are fairseq's to fairseq2's own converter, too.
    named = {f"w2v_encoder.w2v_model.{name.removeprefix(prefix)}": each for name, each in theirs.items()}
    converted = convert_wav2vec2_asr_state_dict(
        named | {"w2v_encoder.proj.weight": torch.zeros(1)}, Wav2Vec2AsrConfig(encoder_config=config.encoder_config)
    )
    ours = Fairseq2Features(str(tmp_path / "fairseq"), 4, "cpu")
    for name, tensor in ours._encoder.state_dict().items():
        assert torch.equal(converted[f"encoder.{name}"], tensor)
    for name, tensor in ours._frontend.state_dict().items():
        assert torch.equal(converted[f"encoder_frontend.{name}"], tensor)


def test_neighbours_and_length_change_nothing(
    tmp_path: Path, models: dict, waveforms: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Fairseq2Features(save(tmp_path, "base", *models["base"]), 3, "cpu")
    for waveform, together in zip(waveforms, features(waveforms), strict=True):
        assert np.array_equal(features([waveform])[0], together)
    for samples in (1, 320, 399, 400, 719, 720, 721, 16_000):
        assert len(features([waveforms[0][:samples]])[0]) == num_frames(samples)
    monkeypatch.setattr(self_supervised, "CHUNK_SAMPLES", 16_000)
    parts = [features([waveforms[0][start : start + 16_000]])[0] for start in range(0, 40_000, 16_000)]
    assert np.array_equal(features([waveforms[0]])[0], np.concatenate(parts))


@pytest.mark.parametrize("places", ["relative", "rotary"])
def test_other_positions_and_more_than_their_table(tmp_path: Path, waveforms: list[np.ndarray], places: str) -> None:
    """100 s are 5,000 frames; the table of a default configuration is for 4,096."""
    model, config = make_model("base", pos_encoder_type=places, use_conformer=True, depthwise_conv_kernel_size=31)
    features = Fairseq2Features(save(tmp_path, "base", model, config), 2, "cpu")
    close(features(waveforms[:1])[0], hidden_states(model, waveforms[0], False)[2])
    assert len(features([np.resize(waveforms[0], 90 * 16_000)])[0]) == 4_500


def test_what_a_fingerprint_sees(tmp_path: Path, models: dict) -> None:
    model = save(tmp_path / "one", "base", *models["base"])
    before = Fairseq2Encoder(model).weight_digest()
    assert isinstance(open_encoder(model), Fairseq2Encoder)
    assert open_encoder(model).name() == f"wav2vec2-{before[:8]}"
    (tmp_path / "one").rename(tmp_path / "moved")
    (tmp_path / "moved" / "train.log").write_text("not of the model")
    assert Fairseq2Encoder(str(tmp_path / "moved")).weight_digest() == before
    assert Fairseq2Encoder(save(tmp_path / "two", "large", *models["base"])).weight_digest() != before
    step = save(tmp_path / "three", "base", *models["base"], "shards")
    seen = Fairseq2Encoder(step).weight_digest()
    shard = Path(step) / "model/pp_00/tp_00/sdp_01.pt"
    (tmp_path / "four").mkdir()
    moved = Path(step).parent.rename(tmp_path / "four" / "checkpoints") / "step_500"
    (moved / shard.relative_to(step)).write_bytes(b"other")
    assert Fairseq2Encoder(str(moved)).weight_digest() != seen


class Malicious:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("it-ran",)


def test_files_stay_data(tmp_path: Path, models: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    network, config = models["base"]
    model = save(tmp_path / "a", "base", network, config)
    torch.save({"model": network.state_dict(), "cfg": Malicious()}, tmp_path / "a" / "model.pt")
    with pytest.raises(ModelError, match="weights that can't be loaded safely"):
        Fairseq2Features(model, 2, "cpu")
    step = save(tmp_path / "b", "base", network, config, "shards")
    torch.save(network.state_dict() | {"x": Malicious()}, Path(step) / "model/pp_00/tp_00/sdp_01.pt")
    with pytest.raises(ModelError, match="weights that can't be loaded safely"):
        Fairseq2Features(step, 2, "cpu")
    save(tmp_path / "c", "base", network, config)
    (tmp_path / "c" / "model.yaml").write_text("model_family: !!python/object/apply:os.mkdir [it-ran]\n")
    with pytest.raises(ModelError, match="not valid YAML"):
        Fairseq2Encoder.can_load(str(tmp_path / "c"))
    assert not (tmp_path / "it-ran").exists()
    claimed = {name: torch.zeros(1).expand(1 << 40) for name in network.state_dict() if name.startswith("encoder.")}
    torch.save({"model": network.state_dict() | claimed}, tmp_path / "a" / "model.pt")
    with pytest.raises(ModelError, match="claims more numbers than the file holds"):
        Fairseq2Features(model, 2, "cpu")
    merged = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))
    (tmp_path / "c" / "model.yaml").write_text(f"model_family: wav2vec2\na0: &a0 {{x: 1}}\n{merged}")
    with pytest.raises(ModelError, match="YAML aliases"):
        Fairseq2Encoder.can_load(str(tmp_path / "c"))
    doubled = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    card = f"model_family: wav2vec2\na0: &a0 []\n{doubled}model_config: {{encoder_config: {{model_dim: *a39}}}}\n"
    (tmp_path / "b" / "model.yaml").write_text(card)
    with pytest.raises(ModelError, match="YAML aliases"):
        Fairseq2Features(step, 2, "cpu")
    (tmp_path / "c" / "model.yaml").write_text("#" * (1 << 20) + "\nmodel_family: wav2vec2\n")
    with pytest.raises(ModelError, match="too large for a card"):
        Fairseq2Encoder.can_load(str(tmp_path / "c"))


def edited(folder: Path, **changes: Any) -> str:
    """Changes values of a card; `encoder_…` are the encoder's."""
    path = folder / "model.yaml"
    card = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        inner = card["model_config"]["encoder_config"] if name.startswith("encoder_") else card
        inner[name.removeprefix("encoder_")] = value
    path.write_text(yaml.safe_dump({name: value for name, value in card.items() if value is not None}))
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"normalize_audio": None}, "add `normalize_audio: true`"),
        ({"model_arch": "huge"}, r"huge.*model_arch: base, large, large_lv60k"),
        ({"model_config": [3]}, "name an architecture"),
        ({"encoder_model_dimension": 3}, "name an architecture"),
        ({"encoder_model_dim": "many"}, "name an architecture"),
        ({"encoder_pos_encoder_type": "${env:HOME}"}, r"YAML aliases or \$"),
        ({"encoder_use_fbank": True}, "takes filterbanks"),
        ({"encoder_feature_extractor_layer_descs": [[16, 10, 5]]}, "a frame is 5 samples"),
        ({"encoder_num_encoder_layers": 10**9}, "more than 1000 layers"),
        ({"encoder_model_dim": -2}, "no network has these sizes"),
        ({"encoder_model_dim": 2 * 10**6}, "do not match"),
        ({"encoder_num_encoder_layers": 3}, r"surplus encoder\.layers\.3"),
        ({"encoder_norm_order": "PRE"}, r"missing encoder\.layer_norm"),
    ],
)
def test_a_card_that_is_wrong_is_refused(tmp_path: Path, models: dict, changes: dict, says: str) -> None:
    model = edited(Path(save(tmp_path, "base", *models["base"])), **changes)
    with pytest.raises(ModelError, match=says) as refused:
        Fairseq2Features(model, 2, "cpu")
    assert "model.yaml" in str(refused.value)


def test_weights_that_are_missing_are_named(tmp_path: Path, models: dict) -> None:
    import torch

    network, config = models["base"]
    model = save(tmp_path / "a", "base", network, config)
    with pytest.raises(ModelError, match="4 layers, but the codebook needs layer 5"):
        Fairseq2Features(model, 5, "cpu")
    state = network.state_dict()
    del state["encoder.layers.1.ffn_layer_norm.weight"]
    torch.save(state, tmp_path / "a" / "model.pt")
    with pytest.raises(ModelError, match=r"missing encoder\.layers\.1\.ffn_layer_norm\.weight"):
        Fairseq2Features(model, 2, "cpu")
    (tmp_path / "a" / "model.pt").write_bytes((tmp_path / "a" / "model.pt").read_bytes()[:5_000])
    with pytest.raises(ModelError, match=r"model\.pt: weights that can't be loaded safely"):
        Fairseq2Features(model, 2, "cpu")
    (tmp_path / "a" / "other.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"found model\.pt, other\.pt"):
        Fairseq2Encoder(model).weight_digest()
    save(tmp_path / "b", "base", network, config, "shards")
    with pytest.raises(ModelError, match="found none; for a training run, name one checkpoint"):
        Fairseq2Encoder(str(tmp_path / "b")).weight_digest()


def test_without_fairseq2_it_says_what_to_install(
    tmp_path: Path, models: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(tmp_path, "base", *models["base"])
    monkeypatch.setitem(sys.modules, "fairseq2", None)
    assert open_encoder(model).weight_digest()
    with pytest.raises(ModelError, match=r"pip install 'echo-targets\[fairseq2\]'"):
        Fairseq2Features(model, 2, "cpu")


def test_an_architecture_of_fairseq2_and_what_differs_is_a_card(tmp_path: Path) -> None:
    """The few lines that a person writes beside a checkpoint of fairseq."""
    from echo_targets.transforms.models.checkpoints.fairseq2 import Fairseq2Checkpoint

    (tmp_path / "model.yaml").write_text(
        "model_family: wav2vec2\nmodel_arch: large_lv60k\nnormalize_audio: true\n"
        "model_config: {encoder_config: {model_dim: 1280, num_encoder_layers: 48, ffn_inner_dim: 5120}}\n"
    )
    checkpoint = Fairseq2Checkpoint(str(tmp_path))
    sizes = checkpoint.config().encoder_config
    assert (sizes.model_dim, sizes.num_encoder_layers, sizes.num_encoder_attn_heads) == (1280, 48, 16)
    assert sizes.feature_extractor_layer_norm_convs and checkpoint.normalizes


def test_units_through_the_whole_stage(tmp_path: Path, models: dict, speech: list[dict]) -> None:
    import json

    import joblib
    from sklearn.cluster import MiniBatchKMeans

    model = save(tmp_path / "w2v", "large", *models["large"])
    heard = [soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:2]]
    features = Fairseq2Features(model, 3, "cpu")(heard)
    joblib.dump(MiniBatchKMeans(20, random_state=0, n_init=1).fit(np.concatenate(features)), tmp_path / "km.bin")
    lines = [json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"]}) for row in speech[:2]]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}
    parameters = {"model": model, "codebook": str(tmp_path / "km.bin"), "layer": 3}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}, "tokenize": parameters})
    rows = dataset.read("units").to_pylist()
    assert len(rows) == 2 and list(check_dataset(dataset.root)) == []
    kmeans = joblib.load(tmp_path / "km.bin")
    for row, (key, frames) in zip(rows, sorted(zip((r["id"] for r in speech[:2]), features, strict=True)), strict=True):
        assert row["utterance_id"] == key and row["codebook_id"].startswith(f"{Fairseq2Encoder(model).name()}-l3-k20-")
        agreed = np.repeat(row["units"][0], row["durations"]) == kmeans.predict(frames)
        assert agreed.mean() > 0.98  # 16-bit audio

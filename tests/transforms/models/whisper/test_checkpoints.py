"""Whisper as transformers saves it: computed as transformers does, and heard as the embedded one where it is that."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from whisper.tokenizer import LANGUAGES

from echo_targets.schemas import TRANSCRIPTS
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.base import joined
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.attention import AttentionAligner
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.encoders.whisper import WhisperFeatures
from echo_targets.transforms.models.whisper.ctranslate2 import read_ctranslate2
from echo_targets.transforms.models.whisper.encoder import layer_features, log_mel
from echo_targets.transforms.models.whisper.tensor_names import from_transformers, to_transformers
from echo_targets.transforms.models.whisper.weights import EMBEDDED, choose_alignment_heads, load_whisper, weights_of
from echo_targets.transforms.stages.align import Align, AlignParameters
from echo_targets.transforms.stages.transcribe import Transcribe, TranscribeParameters
from echo_targets.transforms.units.codebook import Codebook
from tests.transforms.rows import apply, run_stages, window
from tests.transforms.whisper_checkpoints import export_embedded, make_whisper, write_tokenizer

WINDOW = 30 * 16_000
SAVED = {
    "safetensors": {},
    "half": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "shards": {"shard": "1MB"},
    "bin": {"safe": False},
    "bin shards": {"safe": False, "shard": "1MB"},
    "multilingual": {"vocab_size": 51865},
    "large-v3": {"vocab_size": 51866, "num_mel_bins": 128},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    return export_embedded(tmp_path_factory.mktemp("whisper") / "tiny.en")


@pytest.fixture()
def small(tmp_path: Path) -> Path:
    return Path(make_whisper(tmp_path / "small"))


@pytest.mark.parametrize("how", SAVED)
def test_hidden_states_and_logits_are_those_of_transformers(speech: list[dict], tmp_path: Path, how: str) -> None:
    import soundfile
    from transformers import WhisperForConditionalGeneration

    model = make_whisper(tmp_path, **SAVED[how])
    assert len(list(tmp_path.glob("*.safetensors"))) + len(list(tmp_path.glob("*.bin"))) > ("shards" in how)
    theirs = WhisperForConditionalGeneration.from_pretrained(model, dtype="float32").eval()
    ours = load_whisper(model)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    waveform = np.resize(soundfile.read(speech[0]["audio"], dtype="float32")[0], WINDOW)
    mel = log_mel(waveform, WINDOW, ours.dims.n_mels, "cpu")[None]
    ids = torch.tensor([[50258, 50363, 11, 262, 51000]])
    with torch.inference_mode():
        expected = theirs(mel, decoder_input_ids=ids, output_hidden_states=True)
        states = [layer_features(ours, [waveform], layer)[0] for layer in range(4)]
        states[-1] = ours.encoder.ln_post(torch.from_numpy(states[-1])).numpy()  # transformers norms the last one
        logits = ours.logits(ids, ours.encoder(mel))
    for state, hidden in zip(states, expected.encoder_hidden_states, strict=True):
        np.testing.assert_allclose(state, hidden[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.01
    choose_alignment_heads(model, ours)
    assert ours.alignment_heads.indices().T.tolist() == [[0, 1], [1, 0]]


def test_names_go_both_ways_and_are_those_of_the_library(exported: str) -> None:
    ours = load_whisper(EMBEDDED).state_dict()
    theirs = set(load_file(Path(exported, "model.safetensors")))
    assert {f"model.{to_transformers(name)}" for name in ours} == theirs
    assert {from_transformers(name) for name in theirs} == set(ours)


def test_the_exported_embedded_whisper_is_the_embedded_one(exported: str) -> None:
    embedded = load_whisper(EMBEDDED).state_dict()
    for name, tensor in load_whisper(exported).state_dict().items():
        assert torch.equal(tensor, embedded[name]), name


def test_whole_stages_write_what_they_do_with_the_embedded_one(
    speech: list[dict], exported: str, tmp_path: Path
) -> None:
    chosen = sorted(speech, key=lambda row: row["duration"])[:2]
    lines = [json.dumps({"id": row["id"], "audio": str(row["audio"]), "text": row["text"]}) for row in chosen]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    shipped = Codebook.load(asset("embedded:codebook-tiny.en-l3-k100.safetensors"))

    def stages(model: str) -> dict[str, dict[str, Any]]:
        book = replace(shipped, encoder_digest=open_encoder(model).weight_digest())  # the same weights in other files
        book.save(tmp_path / "book.safetensors", {})
        return {
            "ingest": {"sources": [{"kind": "manifest", "corpus": "speech", "manifest": str(tmp_path / "m.jsonl")}]},
            "transcribe": {"backend": "openai-whisper", "model": model, "temperatures": [0.0]},
            "tokenize": {"model": model, "codebook": str(tmp_path / "book.safetensors")},
            "align": {"method": "attention", "model": model},
        }

    ours, _ = run_stages(tmp_path / "ours", stages(exported))
    assert list(check_dataset(ours.root)) == []
    embedded, _ = run_stages(tmp_path / "embedded", stages(EMBEDDED))
    for table in ("transcripts", "units", "alignments"):
        assert ours.read(table).num_rows == 2 and ours.read(table).equals(embedded.read(table)), table
    assert max(ours.read("transcripts")["wer_vs_reference"].to_pylist()) < 0.3
    moved = str(shutil.copytree(exported, tmp_path / "elsewhere"))
    _, reports = run_stages(tmp_path / "ours", stages(moved))
    assert [report.shards_run for report in reports.values()] == [0, 0, 0, 0]


def test_units_do_not_hang_on_neighbours(ingested: Dataset, tmp_path: Path) -> None:
    model = make_whisper(tmp_path / "large", vocab_size=51866, num_mel_bins=128)
    waveforms = [decode_flac(row["audio"]["bytes"]) for row in window(ingested).slice(0, 4).to_pylist()]
    hear = WhisperFeatures(model, 2, "cpu")
    for together, waveform in zip(hear(waveforms), waveforms, strict=True):
        assert np.array_equal(together, hear([waveform])[0])
    with pytest.raises(ModelError, match="3 layers, but the codebook needs layer 4"):
        WhisperFeatures(model, 4, "cpu")


def test_a_multilingual_one_detects_or_is_told_the_language(ingested: Dataset, tmp_path: Path) -> None:
    model = make_whisper(tmp_path / "large", vocab_size=51866, num_mel_bins=128)
    rows = window(ingested).slice(0, 1)
    transcribe = Transcribe(
        TranscribeParameters(backend="openai-whisper", model=model, language=None, temperatures=[0.0])
    )
    transcribe.setup()
    (row,) = apply(transcribe, rows).rows.to_pylist()
    assert row["language"] in LANGUAGES and 0 < row["language_prob"] <= 1

    def align(language: str) -> dict[str, Any]:
        transform = Align(AlignParameters(method="attention", model=model, language=language))
        assert transform.fingerprint_parameters()["language"] == language
        transform.setup()
        (row,) = apply(transform, joined(rows, TRANSCRIPTS, None)).rows.to_pylist()
        return row

    german, english = align("de"), align("en")
    assert [item["symbol"] for item in german["items"]] == [item["symbol"] for item in english["items"]]
    assert german != english
    with pytest.raises(ModelError, match="Unsupported language: klingon"):
        align("klingon")
    assert "language" not in Align(AlignParameters()).fingerprint_parameters()


def test_fingerprint_and_name_follow_the_files_and_not_their_place(small: Path) -> None:
    before, encoder = weights_of(str(small)), open_encoder(str(small))
    name, weights = encoder.name(), encoder.weight_digest()
    moved = str(small.rename(small.with_name("moved")))
    assert (weights_of(moved), open_encoder(moved).name()) == (before, name) == (before, f"whisper-{weights[:8]}")
    for file in ("config.json", "generation_config.json", "model.safetensors"):
        whole = Path(moved, file).read_bytes()
        Path(moved, file).write_bytes(whole + b" ")
        sha256_of.cache_clear()
        assert weights_of(moved) != before
        assert (open_encoder(moved).weight_digest() != weights) == (
            file == "model.safetensors"
        )  # its text shapes no units
        Path(moved, file).write_bytes(whole)
        sha256_of.cache_clear()
    assert weights_of(moved) == before


def test_faster_whisper_says_how_to_convert_and_reads_what_that_gives(
    exported: str, ingested: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = TranscribeParameters(model=exported, temperatures=[0.0])
    with pytest.raises(ModelError, match="backend: openai-whisper") as refusal:
        Transcribe(parameters).weight_digests()
    (line,) = re.findall(r"ct2-transformers-converter [^;]*", str(refusal.value))
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    (converter,) = entry_points(group="console_scripts", name=sys.argv[0])
    converter.load()()
    converted = f"{exported}-ct2"
    embedded = load_whisper(EMBEDDED).state_dict()
    for name, tensor in load_whisper(converted).state_dict().items():
        assert torch.equal(tensor, embedded[name]), name
    transcribe = Transcribe(parameters.model_copy(update={"model": converted}))
    transcribe.setup()
    (row,) = apply(transcribe, window(ingested).slice(4, 1)).rows.to_pylist()
    assert row["wer_vs_reference"] < 0.3


@pytest.mark.parametrize("quantization", ["int8", "int8_bfloat16", "bfloat16"])
def test_ctranslate2_of_fewer_bits_is_read_back_as_numbers(exported: str, tmp_path: Path, quantization: str) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(exported).convert(str(tmp_path / "small"), quantization=quantization)
    exact, coarse = load_whisper(EMBEDDED).state_dict(), load_whisper(str(tmp_path / "small")).state_dict()
    for name, tensor in exact.items():
        assert (coarse[name] - tensor).abs().max() <= tensor.abs().max() / 200, name
    assert not [name for name in read_ctranslate2(tmp_path / "small" / "model.bin") if name.endswith("_scale")]


def test_both_backends_detect_one_language(ingested: Dataset, tmp_path: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    model = make_whisper(tmp_path / "small", 51865)
    write_tokenizer(Path(model), "multilingual")
    chosen = {"model": str(tmp_path / "old"), "language": None, "temperatures": [0.0]}
    generation = Path(model, "generation_config.json")
    published = json.loads(generation.read_text())
    generation.write_text(json.dumps({key: value for key, value in published.items() if key != "lang_to_id"}))
    TransformersConverter(model).convert(chosen["model"])
    with pytest.raises(ModelError, match="no lang_ids for language detection: set `language`"):
        Transcribe(TranscribeParameters.model_validate(chosen)).setup()
    generation.write_text(json.dumps(published))
    TransformersConverter(model).convert(str(tmp_path / "ct2"))
    rows, heard = window(ingested), []
    for backend, path in (("openai-whisper", model), ("faster-whisper", str(tmp_path / "ct2"))):
        chosen = {"backend": backend, "model": path, "language": None, "temperatures": [0.0]}
        transcribe = Transcribe(TranscribeParameters.model_validate(chosen))
        transcribe.setup()
        heard.append(apply(transcribe, rows).rows.to_pylist())
    for one, two in zip(*heard, strict=True):
        assert one["language"] == two["language"] and one["language"] in LANGUAGES
        # CTranslate2 computes in 8-bit integers, whose rounding differs between processors
        assert one["language_prob"] == pytest.approx(two["language_prob"], abs=0.1)


Change = Callable[[dict[str, torch.Tensor]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.encoder.layers.1.fc1.bias"), r"missing encoder\.layers\.1\.fc1\.bias"),
        (lambda state: state.pop("model.encoder.conv1.weight"), r"encoder\.conv1\.weight"),
        (lambda state: state.update({"model.decoder.extra": torch.zeros(1)}), r"surplus decoder\.extra"),
        (
            lambda state: state.update({"model.decoder.layers.0.fc2.weight": torch.zeros(32, 64)}),
            r"decoder\.layers\.0\.fc2\.weight is \(32, 64\), expected \(32, 128\)",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if ".encoder.layers.2." in name],
            "encoder_layers is 3 in config.json, 2 in the weights",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(small: Path, change: Change, message: str) -> None:
    state = load_file(small / "model.safetensors")
    change(state)
    save_file(state, small / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        load_whisper(str(small))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"activation_function": "relu"}, "activation_function is relu"),
        ("config.json", {"scale_embedding": True}, "scale_embedding is True"),
        ("config.json", {"max_source_positions": 750}, "max_source_positions is 750"),
        ("config.json", {"num_mel_bins": 40}, "num_mel_bins is 40"),
        ("config.json", {"num_mel_bins": 128}, "num_mel_bins is 128 in config.json, 80 in the weights"),
        ("config.json", {"encoder_attention_heads": 5}, "width of 32 does not divide into 5 attention heads"),
        ("config.json", {"decoder_attention_heads": 0}, "0 attention heads"),
        ("config.json", {"decoder_attention_heads": "many"}, "numbers of attention heads are missing or wrong"),
        ("config.json", {"encoder_layers": 10**9}, "encoder_layers is 1000000000 in config.json, 3 in the weights"),
    ],
)
def test_what_openai_whisper_cannot_be_is_refused(small: Path, file: str, change: dict, message: str) -> None:
    path = small / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_whisper(str(small))


def test_an_output_layer_of_its_own_is_refused(small: Path) -> None:
    state = load_file(small / "model.safetensors")
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"] + 1
    save_file(state, small / "model.safetensors")
    load_whisper(str(small))  # transformers ties it, whatever the file says
    config = small / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(ModelError, match="proj_out is not tied"):
        load_whisper(str(small))


@pytest.mark.parametrize("safe", [True, False])
def test_damaged_and_missing_files_are_named(tmp_path: Path, safe: bool) -> None:
    folder = tmp_path / "whole"
    make_whisper(folder, safe=safe)
    (file,) = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=rf"{file.name}: .*damaged"):
        load_whisper(str(folder))
    file.unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors .* copy it again"):
        weights_of(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: not JSON"):
        weights_of(str(folder))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="is not a Whisper"):
        weights_of(str(folder))
    with pytest.raises(ModelError, match="does not exist"):
        weights_of(str(tmp_path / "nowhere"))


def test_a_pickle_with_more_than_tensors_does_not_run(small: Path) -> None:
    (small / "model.safetensors").unlink()
    torch.save({"model.x": torch.zeros(1), "run": Runs(small / "ran")}, small / "pytorch_model.bin")
    with pytest.raises(ModelError, match="more than tensors"):
        load_whisper(str(small))
    assert not (small / "ran").exists()
    torch.save({"model.x": torch.zeros(1).expand(1 << 40)}, small / "pytorch_model.bin")
    with pytest.raises(ModelError, match="claims more numbers than the file holds"):
        load_whisper(str(small))
    torch.save([torch.zeros(1)], small / "pytorch_model.bin")
    with pytest.raises(ModelError, match="not a dictionary of tensors"):
        load_whisper(str(small))


class Runs:
    """What a pickle could do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_vocabulary_of_other_tokens_is_refused(small: Path, tmp_path: Path) -> None:
    decoding = Transcribe(TranscribeParameters(backend="openai-whisper", model=str(small)))
    decoding.setup()
    vocabulary = json.loads((small / "vocab.json").read_text())
    tokens = {id: token for token, id in vocabulary.items()}
    changed = vocabulary | {tokens[262]: 263, tokens[263]: 262}
    (small / "vocab.json").write_text(json.dumps(changed))
    for setup in (decoding.setup, AttentionAligner(str(small)).setup):
        with pytest.raises(ModelError, match="token 262 is"):
            setup()
    (small / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    decoding.setup()
    (small / "tokenizer.json").write_text(json.dumps({"model": {"pieces": []}}))
    with pytest.raises(ModelError, match="not a vocabulary of byte pairs"):
        decoding.setup()
    state = load_file(small / "model.safetensors")
    state["model.decoder.embed_tokens.weight"] = torch.zeros(51900, 32)
    save_file(state, small / "model.safetensors")
    config = small / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 51900}))
    with pytest.raises(ModelError, match="51900 tokens; openai-whisper's have 51864, 51865, 51866"):
        decoding.setup()
    assert WhisperFeatures(str(small), 1, "cpu")([np.zeros(400, np.float32)])[0].shape == (2, 32)

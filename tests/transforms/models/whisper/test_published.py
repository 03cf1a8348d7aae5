"""Whispers as they are published: distilled and turbo, in files of transformers, CTranslate2 and openai-whisper."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import whisper
from ctranslate2.converters import TransformersConverter
from safetensors.torch import load_file, save_file

from echo_targets.schemas import TRANSCRIPTS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import joined
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.attention import AttentionAligner
from echo_targets.transforms.models.asr.base import Recognizer
from echo_targets.transforms.models.asr.registry import BACKENDS
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.whisper.encoder import num_frames
from echo_targets.transforms.models.whisper.weights import choose_alignment_heads, load_whisper
from echo_targets.transforms.stages.align import Align, AlignParameters
from echo_targets.transforms.stages.transcribe import Transcribe, TranscribeParameters
from tests.transforms.models.whisper.test_checkpoints import Runs
from tests.transforms.rows import apply, window
from tests.transforms.whisper_checkpoints import make_whisper, write_tokenizer

SHORT = {"max_target_positions": 120}
"""Positions of the decoder: a transcript of random weights runs to their end."""
WEIGHTS = "model.safetensors"
TEACHERS = [[7, 0], [10, 17], [12, 18], [13, 12], [16, 1], [17, 14], [19, 11], [21, 4], [24, 1], [25, 6]]
"""Heads of large-v3, which distil-large-v3 and kotoba-whisper-bilingual name, with two layers of their own."""
KINDS = {
    "distil-large-v3": {"vocab_size": 51866, "num_mel_bins": 128, "encoder_layers": 5, "heads": TEACHERS},
    "large-v3-turbo": {"vocab_size": 51866, "num_mel_bins": 128, "encoder_layers": 5, "decoder_layers": 4},
    "distil-small.en": {"vocab_size": 51864, "encoder_layers": 3, "decoder_layers": 4, "heads": [[6, 6], [7, 0]]},
}


def make(folder: Path, heads: list[list[int]] | None = None, **more: Any) -> Path:
    """Saves a checkpoint of transformers, with its tokenizer."""
    model = Path(make_whisper(folder, **(SHORT | more)))
    write_tokenizer(model, "gpt2" if more.get("vocab_size", 51864) == 51864 else "multilingual")
    if heads:
        change(model / "generation_config.json", alignment_heads=heads)
    return model


def change(file: Path, **changes: Any) -> None:
    """Sets keys of a JSON file, and removes those that are ..."""
    found = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))
    sha256_of.cache_clear()


def convert(model: Path, out: Path) -> Path:
    """What `ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json` writes."""
    TransformersConverter(str(model), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(str(out))
    return out


def recognizer(backend: str, model: Path, language: str | None = "en") -> Recognizer:
    found = BACKENDS[backend](str(model), "cpu", language, 1)
    found.setup()
    return found


@pytest.fixture(scope="module")
def waveform(long_utterance: dict[str, Any]) -> np.ndarray:
    found, _ = soundfile.read(long_utterance["audio"], dtype="float32")
    assert len(found) > 2 * whisper.audio.N_SAMPLES, "more than two windows"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_goes_through_each_stage(kind: str, waveform: np.ndarray, ingested: Dataset, tmp_path: Path) -> None:
    model = make(tmp_path / kind, **KINDS[kind])
    converted = convert(model, tmp_path / f"faster-{kind}")
    assert json.loads((converted / "preprocessor_config.json").read_text())["feature_size"] in (80, 128)
    rows = window(ingested).slice(0, 1)
    many = "en" not in kind
    for backend, path in (("openai-whisper", model), ("faster-whisper", converted)):
        chosen = {"backend": backend, "model": str(path), "language": None if many else "en", "temperatures": [0.0]}
        transcribe = Transcribe(TranscribeParameters.model_validate(chosen))
        transcribe.setup()
        (row,) = apply(transcribe, rows).rows.to_pylist()
        assert (row["language_prob"] is None) != many
    features = [open_encoder(str(path)).features(2, "cpu")([waveform])[0] for path in (model, converted)]
    assert features[0].shape == (num_frames(len(waveform)), 32)
    assert np.array_equal(*features)

    for path, file in ((model, "generation_config.json"), (converted, "config.json")):
        align = Align(AlignParameters(method="attention", model=str(path), language="en"))
        if KINDS[kind].get("heads"):
            for use in (align.weight_digests, align.setup) if path == model else (align.setup,):
                with pytest.raises(ModelError, match=rf"{file}: alignment_heads names \[\d+, \d+\], .* Remove the key"):
                    use()
            change(path / file, alignment_heads=...)
        align.setup()
        (aligned,) = apply(align, joined(rows, TRANSCRIPTS, None)).rows.to_pylist()
        assert aligned["status"] != "failed" and aligned["items"]


@pytest.mark.parametrize("heads", [[[2, 0]], [[0, 8]], [[-1, 0]], ["none"], [[0]], 3])
def test_heads_that_cannot_be_stop_alignment_alone(tmp_path: Path, heads: Any) -> None:
    model = make(tmp_path / "model")
    change(model / "generation_config.json", alignment_heads=heads)
    load_whisper(str(model))
    aligner = AttentionAligner(str(model))
    for use in (aligner.weight_digests, aligner.setup):
        with pytest.raises(ModelError, match=r"alignment_heads (names .* 2 layers with 8 heads|is .* not pairs)"):
            use()


def test_the_median_filter_is_the_checkpoint_s(ingested: Dataset, tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    rows, found = joined(window(ingested).slice(0, 1), TRANSCRIPTS, None), []
    for width in (7, 31):
        change(model / "config.json", median_filter_width=width)
        align = Align(AlignParameters(method="attention", model=str(model)))
        align.setup()
        found.append(apply(align, rows).rows.to_pylist()[0]["items"])
    assert found[0] != found[1]
    change(model / "config.json", median_filter_width=8)
    with pytest.raises(ModelError, match="median_filter_width is 8, not an odd number"):
        align.setup()


# -- openai-whisper's own files --------------------------------------------------------------------------------------


def as_openai(model: Path, file: Path) -> Path:
    """Saves a model as openai-whisper's checkpoints are, in half precision."""
    loaded = load_whisper(str(model))
    state = {name: tensor.half() for name, tensor in loaded.state_dict().items()}
    torch.save({"dims": vars(loaded.dims), "model_state_dict": state}, file)
    return file


def test_a_file_of_openai_whisper_is_the_model_that_it_holds(waveform: np.ndarray, tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    save_file({name: each.half() for name, each in load_file(model / WEIGHTS).items()}, model / WEIGHTS)
    file = as_openai(model, tmp_path / "mine.pt")
    theirs = whisper.load_model(str(file), device="cpu").state_dict()
    for name, tensor in load_whisper(str(file)).state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    windows = [waveform[: 7 * 16_000], waveform[20 * 16_000 : 50 * 16_000]]
    decoded = []
    for path in (file, model):
        loaded = recognizer("openai-whisper", path)
        decoded.append(loaded.decode(loaded.encode(windows)))
    assert decoded[0] == decoded[1]
    features = [open_encoder(str(path)).features(3, "cpu")([waveform])[0] for path in (model, file)]
    assert np.array_equal(*features)
    assert open_encoder(str(file)).weight_digest() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_published_file_aligns_by_its_own_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = as_openai(make(tmp_path / "model"), tmp_path / "mine.pt")
    loaded = load_whisper(str(file))
    choose_alignment_heads(str(file), loaded)
    assert loaded.alignment_heads.indices().T.tolist() == [[1, head] for head in range(8)]  # the upper half
    dump = np.zeros((2, 8), bool)
    dump[0, 5] = True
    import base64
    import gzip

    monkeypatch.setitem(whisper._MODELS, "mine", f"https://host/{sha256_of(file)}/mine.pt")
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "mine", base64.b85encode(gzip.compress(dump.tobytes())))
    choose_alignment_heads(str(file), loaded)
    assert loaded.alignment_heads.indices().T.tolist() == [[0, 5]]


Change = Callable[[dict[str, Any]], Any]
BROKEN: dict[str, tuple[Change, str]] = {
    "no sizes": (lambda found: found.pop("dims"), r"not a checkpoint of openai-whisper, with dims .*'dims'"),
    "no weights": (lambda found: found.pop("model_state_dict"), "not a checkpoint of openai-whisper"),
    "sizes that are none": (lambda found: found.update(dims=3), "not a checkpoint of openai-whisper"),
    "a layer more": (
        lambda found: found["dims"].update(n_text_layer=10**9),
        "n_text_layer is 1000000000 in dims",
    ),
    "other heads": (
        lambda found: found["dims"].update(n_audio_head=5),
        "width of 32 does not divide into 5 attention heads",
    ),
    "a tensor less": (lambda found: found["model_state_dict"].popitem(), r"missing|not the tensors"),
    "no tensor": (lambda found: found["model_state_dict"].update(x=3), "not a dictionary of tensors"),
    "numbers that are not there": (
        lambda found: found["model_state_dict"].update(x=torch.zeros(1).expand(1 << 40)),
        "claims more numbers",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_of_openai_whisper_is_named(tmp_path: Path, what: str) -> None:
    file = as_openai(make(tmp_path / "model"), tmp_path / "mine.pt")
    found = torch.load(file, weights_only=True)
    damage, message = BROKEN[what]
    damage(found)
    torch.save(found, file)
    with pytest.raises(ModelError, match=rf"mine\.pt: .*({message})"):
        load_whisper(str(file))


def test_nothing_in_a_file_of_openai_whisper_runs(tmp_path: Path) -> None:
    torch.save({"dims": {}, "model_state_dict": {}, "run": Runs(tmp_path / "ran")}, tmp_path / "mine.pt")
    with pytest.raises(ModelError, match=r"mine\.pt: damaged, or more than tensors"):
        load_whisper(str(tmp_path / "mine.pt"))
    (tmp_path / "mine.pt").write_bytes(b"no zip")
    with pytest.raises(ModelError, match=r"mine\.pt: damaged"):
        load_whisper(str(tmp_path / "mine.pt"))
    assert not (tmp_path / "ran").exists()


# -- what the files beside the weights say ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_suppressed_tokens_are_the_checkpoint_s(backend: str, waveform: np.ndarray, tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    windows = [waveform[: 9 * 16_000], waveform[30 * 16_000 : 60 * 16_000]]

    def heard(**changes: Any) -> list[list[int]]:
        change(model / "generation_config.json", **changes)
        path = convert(model, tmp_path / f"ct2-{len(list(tmp_path.iterdir()))}") if backend[0] == "f" else model
        found = recognizer(backend, path)
        tokens: list[list[int]] = []
        split = found._split  # type: ignore[attr-defined]
        found._split = lambda each, *rest: (tokens.append(list(each)), split(each, *rest))[1]  # type: ignore[attr-defined]
        for each in windows:  # together, threads would append in any order
            found.decode(found.encode([each]))
        return tokens

    usual = heard()
    assert heard(suppress_tokens=...) == usual, "openai-whisper's own list, where the file says nothing"
    text = [token for tokens in usual for token in tokens if token < 50256]
    assert text, "else nothing is tested"
    other = heard(suppress_tokens=[text[0], text[-1]])
    assert not {text[0], text[-1]} & {token for tokens in other for token in tokens}
    first = [tokens[0] for tokens in usual]
    later = heard(suppress_tokens=[], begin_suppress_tokens=first)
    assert not set(first) & {tokens[0] for tokens in later}


SAYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "another start": ("generation_config.json", {"decoder_start_token_id": 7}, "decoder_start_token_id is 7, but"),
    "one language": ("generation_config.json", {"is_multilingual": False}, "is_multilingual is False, but"),
    "a translator": ("generation_config.json", {"task": "translate"}, "the model translates"),
    "a forced task": (
        "generation_config.json",
        {"forced_decoder_ids": [[1, None], [2, 50358]]},
        "the model translates",
    ),
    "other languages": ("generation_config.json", {"lang_to_id": {"<|de|>": 50259}}, "lang_to_id has 50259 for de"),
    "few languages": ("generation_config.json", {"lang_to_id": {"<|de|>": 50261}}, "has only 1 of the 99 languages"),
    "no list": ("generation_config.json", {"suppress_tokens": "1,2"}, "suppress_tokens is 1,2, not a list of tokens"),
    "a token of none": (
        "generation_config.json",
        {"suppress_tokens": [51865]},
        "suppresses token 51865, but there are only 51865",
    ),
    "no first ones": (
        "generation_config.json",
        {"begin_suppress_tokens": [-1]},
        "begin_suppress_tokens is .* no",
    ),
    "more bands": ("preprocessor_config.json", {"feature_size": 128}, "feature_size is 128, but must be 80"),
    "another rate": ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate is 8000, but must be 16000"),
    "another hop": ("preprocessor_config.json", {"hop_length": 80}, "hop_length is 80, but must be 160"),
    "dither": ("preprocessor_config.json", {"dither": 0.1}, r"dither is 0\.1, but must be 0\.0"),
}


@pytest.mark.parametrize("what", SAYS)
def test_what_a_checkpoint_wants_otherwise_is_refused_by_name(tmp_path: Path, what: str) -> None:
    model = make(tmp_path / "model", vocab_size=51865)
    file, changes, message = SAYS[what]
    change(model / file, **changes)
    with pytest.raises(ModelError, match=rf"{file}: .*{message}"):
        recognizer("openai-whisper", model, language=None)


def test_an_old_checkpoint_says_less_and_is_read(tmp_path: Path) -> None:
    """Without generation_config.json, preprocessor_config.json and keys that came later."""
    model = make(tmp_path / "model", vocab_size=51865)
    for name in ("generation_config.json", "preprocessor_config.json"):
        (model / name).unlink()
    change(model / "config.json", **dict.fromkeys(("median_filter_width", "begin_suppress_tokens", "dtype"), ...))
    recognizer("openai-whisper", model, language=None)
    AttentionAligner(str(model)).setup()


@pytest.mark.parametrize("kind", ["vocabulary.json", "vocabulary.txt"])
def test_the_vocabulary_of_ctranslate2_is_checked(tmp_path: Path, kind: str) -> None:
    model = make(tmp_path / "model", vocab_size=51866, num_mel_bins=128)
    TransformersConverter(str(model)).convert(str(tmp_path / "ct2"))  # writes no tokenizer
    tokens = json.loads((tmp_path / "ct2" / "vocabulary.json").read_text())

    def write(changed: list[str]) -> None:
        (tmp_path / "ct2" / "vocabulary.json").unlink(missing_ok=True)
        text = json.dumps(changed) if kind == "vocabulary.json" else "\n".join(changed)  # as ctranslate2 3 wrote it
        (tmp_path / "ct2" / kind).write_text(text, "utf-8")

    write(tokens)
    recognizer("faster-whisper", tmp_path / "ct2")
    write([*tokens[:262], tokens[263], tokens[262], *tokens[264:]])
    with pytest.raises(ModelError, match="its token 262 is"):
        recognizer("faster-whisper", tmp_path / "ct2")
    (tmp_path / "ct2" / kind).unlink()
    with pytest.raises(ModelError, match=r"vocabulary\.txt: No such file or directory: copy the whole checkpoint"):
        recognizer("faster-whisper", tmp_path / "ct2")

"""One set of Whisper weights for every backend, read into openai-whisper's own model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transforms.models.checkpoints import digest, read_json, read_tensors
from transforms.models.ctranslate2_file import openai_names, read_ctranslate2
from transforms.models.embedded import WHISPER_TINY_EN, ModelError, sha256_of
from transforms.models.tensors import check_tensors
from transforms.models.whisper_names import from_transformers, to_transformers

if TYPE_CHECKING:
    import torch
    from whisper.model import Whisper

EMBEDDED = "embedded:tiny.en"
BESIDE_CTRANSLATE2 = ("config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.json", "vocabulary.txt")
"""What shapes a model of CTranslate2 beside its weights, where it is there."""
VOCABULARIES = {51864: "gpt2", 51865: "multilingual", 51866: "multilingual"}
"""Sizes of openai-whisper's vocabularies, and their names there: English, 99 and 100 languages."""
SIZES = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_layer": "decoder_layers",
}
"""Sizes of a model: openai-whisper's names, and those in transformers' `config.json`."""
CHOICES = {
    "activation_function": ("gelu",),
    "scale_embedding": (False,),
    "max_source_positions": (1500,),
    "num_mel_bins": (80, 128),
}
"""What openai-whisper can do; the first is what transformers takes where `config.json` does not say."""


def load_whisper(model: str, device: str = "cpu") -> Whisper:
    """openai-whisper's model in float32, in evaluation mode.

    Args:
        model: `embedded:tiny.en`, a directory of CTranslate2 or of transformers, a checkpoint file of openai-whisper
            (read with `weights_only`), or a name that openai-whisper downloads.
        device: a torch device.

    Raises:
        ModelError: the files are missing, damaged or not a Whisper model, or openai-whisper is not installed.
    """
    try:
        import whisper
    except ImportError as error:
        raise ModelError("openai-whisper is not installed: pip install -c constraints.txt '.[transcribe]'") from error

    directory = WHISPER_TINY_EN.locate().parent if model == EMBEDDED else Path(model)
    if (directory / "model.bin").is_file():
        return _from_ctranslate2(directory).to(device).eval()
    if is_transformers(model):
        return _from_transformers(directory).to(device).eval()
    try:
        return whisper.load_model(model, device=device).float().eval()
    except RuntimeError as error:
        raise ModelError(f"no Whisper model {model!r}: {error}") from error


def is_transformers(model: str) -> bool:
    """Whether a model is a directory of transformers with a Whisper."""
    path = Path(model, "config.json")
    return path.is_file() and read_json(path).get("model_type") == "whisper"


def weights_of(model: str) -> str:
    """What stands for a model in a fingerprint: its files' SHA-256, or its name where a library downloads it.

    Raises:
        ModelError: files are missing, or a directory is not a model's.
    """
    if model == EMBEDDED:
        return sha256_of(WHISPER_TINY_EN.locate())
    path = Path(model)
    if path.is_file():
        return sha256_of(path)
    if (path / "model.bin").is_file():
        files = [path / name for name in ("model.bin", *BESIDE_CTRANSLATE2) if (path / name).is_file()]
        return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
    if is_transformers(model):
        small = [file for file in (path / "config.json", path / "generation_config.json") if file.is_file()]
        return hashlib.sha256("".join([*map(sha256_of, small), digest(path)]).encode()).hexdigest()
    if path.is_dir():
        raise ModelError(f"{path} is no Whisper: no model.bin of CTranslate2, no config.json with model_type whisper")
    if path.is_absolute():
        raise ModelError(f"{path} is not there: give a Whisper's directory or file, or a name")
    return model


def check_vocabulary(model: str, size: int) -> None:
    """Refuses a model whose tokens are not those of openai-whisper's tokenizer, which spells what it hears.

    Args:
        model: as `load_whisper` takes it.
        size: of its vocabulary.

    Raises:
        ModelError: the size is another, or a directory of transformers has a tokenizer with other tokens.
    """
    if size not in VOCABULARIES:
        raise ModelError(f"{model} has {size} tokens, openai-whisper's tokenizers {', '.join(map(str, VOCABULARIES))}")
    if not is_transformers(model):
        return
    from tokenizers import Tokenizer, decoders, models
    from whisper.tokenizer import get_encoding

    whole, parts = Path(model, "tokenizer.json"), Path(model, "vocab.json")
    try:
        tokens = read_json(whole)["model"]["vocab"] if whole.is_file() else read_json(parts)
        theirs = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{whole}: not a vocabulary of byte pairs ({error!r}): copy the whole checkpoint") from error
    theirs.decoder = decoders.ByteLevel()
    ours = get_encoding(VOCABULARIES[size])
    for id in range(ours.eot_token):  # behind it come Whisper's special tokens, which the size fixes
        if (found := theirs.decode([id])) != (expected := ours.decode([id])):
            raise ModelError(
                f"{model}: its token {id} is {found!r}, openai-whisper's is {expected!r}: it can't spell it"
            )


def _from_ctranslate2(directory: Path) -> Whisper:
    import torch

    file = directory / "model.bin"
    tensors, config = read_ctranslate2(file), read_json(directory / "config.json")
    try:
        state = {name: torch.from_numpy(array) for name, array in openai_names(tensors).items()}
        heads = int(tensors["encoder/num_heads"]), int(tensors["decoder/num_heads"])
    except KeyError as error:
        raise ModelError(f"{file}: no tensor {error}: convert the model again") from error
    return _whisper(directory, state, *heads, config.get("alignment_heads"))


def _from_transformers(directory: Path) -> Whisper:
    config, generation = read_json(directory / "config.json"), directory / "generation_config.json"
    for key, choices in CHOICES.items():
        if (found := config.get(key, choices[0])) not in choices:
            raise ModelError(f"{directory}/config.json: {key} is {found}, openai-whisper takes {choices}: take another")
    state = {from_transformers(name): tensor for name, tensor in read_tensors(directory).items()}
    output = state.pop("proj_out.weight", None)
    if output is not None and not config.get("tie_word_embeddings", True):
        raise ModelError(f"{directory}: proj_out is not tied to embed_tokens, as openai-whisper's model has it")
    alignment_heads = read_json(generation).get("alignment_heads") if generation.is_file() else None
    try:
        heads = int(config["encoder_attention_heads"]), int(config["decoder_attention_heads"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{directory}/config.json: no numbers of attention heads ({error!r})") from error
    model = _whisper(directory, state, *heads, alignment_heads)
    for ours, theirs in SIZES.items():
        if (found := getattr(model.dims, ours)) != config.get(theirs):
            raise ModelError(f"{directory}: {theirs} is {config.get(theirs)} in config.json, {found} in the weights")
    return model


def _whisper(
    directory: Path, state: Mapping[str, torch.Tensor], audio_heads: int, text_heads: int, alignment_heads: Any
) -> Whisper:
    """The model with tensors under openai-whisper's names, of any float type. Its sizes are those of the tensors."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    try:
        audio_positions, audio_state = state["encoder.positional_embedding"].shape
        text_positions, text_state = state["decoder.positional_embedding"].shape
        dims = ModelDimensions(
            n_mels=state["encoder.conv1.weight"].shape[1],
            n_audio_ctx=audio_positions,
            n_audio_state=audio_state,
            n_audio_head=audio_heads,
            n_audio_layer=_count(state, "encoder"),
            n_vocab=state["decoder.token_embedding.weight"].shape[0],
            n_text_ctx=text_positions,
            n_text_state=text_state,
            n_text_head=text_heads,
            n_text_layer=_count(state, "decoder"),
        )
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ModelError(f"{directory}: not the tensors of a Whisper ({error}): copy the whole checkpoint") from error
    for width, heads in ((audio_state, audio_heads), (text_state, text_heads)):
        if heads < 1 or width % heads:
            raise ModelError(f"{directory}: {heads} attention heads do not share a width of {width}: see config.json")
    for side, width, layers in (
        ("encoder", audio_state, dims.n_audio_layer),
        ("decoder", text_state, dims.n_text_layer),
    ):
        for layer in range(layers):  # before the network is made: a name or two could claim any size
            held = state.get(f"{side}.blocks.{layer}.attn.query.weight")
            if held is None or tuple(held.shape) != (width, width):
                raise ModelError(f"{directory}: {side} layer {layer} is not {width} wide: copy the whole checkpoint")
    model = Whisper(dims)
    check_tensors(directory, _named(model.state_dict()), _named(state))
    model.load_state_dict(state)
    if alignment_heads:
        chosen = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
        try:
            for layer, head in alignment_heads:
                chosen[layer, head] = True
        except (TypeError, ValueError, IndexError) as error:
            raise ModelError(f"{directory}: alignment_heads are not [layer, head] of its decoder ({error})") from error
        model.register_buffer("alignment_heads", chosen.to_sparse(), persistent=False)
    return model


def _named(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {to_transformers(name): tensor for name, tensor in state.items()}


def _count(state: Iterable[str], side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})

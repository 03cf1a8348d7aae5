"""Whisper weights in any format, loaded into openai-whisper's model for all backends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.embedded import WHISPER_TINY_EN
from echo_targets.transforms.models.checkpoints.files import digest, load_pickle, read_json, read_tensors, tensors_of
from echo_targets.transforms.models.checkpoints.tensors import check_tensors
from echo_targets.transforms.models.whisper.ctranslate2 import openai_names, read_ctranslate2
from echo_targets.transforms.models.whisper.settings import check_decoding, check_spectrogram, heads_within, settings_of
from echo_targets.transforms.models.whisper.tensor_names import from_transformers, to_transformers

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from whisper.model import Whisper

EMBEDDED = "embedded:tiny.en"
BESIDE_CTRANSLATE2 = ("config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.json", "vocabulary.txt")
"""Files that shape a CTranslate2 model in addition to its weights. All are optional."""
VOCABULARIES = {51864: "gpt2", 51865: "multilingual", 51866: "multilingual"}
"""Sizes and names of openai-whisper's vocabularies: English, 99 and 100 languages."""
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
FIXED = {"activation_function": "gelu", "scale_embedding": False}
"""Keys of transformers' `config.json` and the only values that openai-whisper supports."""
POSITIONS, MELS = 1500, (80, 128)
"""The encoder's positions and the spectrogram's bands that openai-whisper supports."""


def load_whisper(model: str, device: str = "cpu") -> Whisper:
    """Load openai-whisper's model in float32 and evaluation mode.

    Args:
        model: `embedded:tiny.en`, a CTranslate2 or transformers directory, an openai-whisper checkpoint file (loaded
            with `weights_only`), or a name that openai-whisper downloads.
        device: a torch device.

    Raises:
        ModelError: the files are missing, damaged or not a Whisper model, or openai-whisper is not installed.
    """
    try:
        import whisper
    except ImportError as error:
        raise ModelError("openai-whisper is not installed: pip install 'echo-targets[transcribe]'") from error

    directory = directory_of(model)
    if (directory / "model.bin").is_file():
        return _from_ctranslate2(directory).to(device).eval()
    if is_transformers(model):
        return _from_transformers(directory).to(device).eval()
    if directory.is_file():
        return _from_openai(directory).to(device).eval()
    try:
        return whisper.load_model(model, device=device).float().eval()
    except RuntimeError as error:
        raise ModelError(f"no Whisper model {model!r}: {error}") from error


def directory_of(model: str) -> Path:
    """Return the path of a model's directory or openai-whisper file; for a model's name, a path that does not exist."""
    return WHISPER_TINY_EN.locate().parent if model == EMBEDDED else Path(model)


def is_transformers(model: str) -> bool:
    """Return True if a model is a transformers directory with a Whisper."""
    path = Path(model, "config.json")
    return path.is_file() and read_json(path).get("model_type") == "whisper"


def weights_of(model: str) -> str:
    """Return a model's digest, for the fingerprint: the SHA-256 of its files, or its name if a library downloads it.

    Raises:
        ModelError: files are missing, or the directory is not a Whisper model.
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
        raise ModelError(
            f"{path} is not a Whisper: it has no CTranslate2 model.bin and no config.json with model_type whisper"
        )
    if path.is_absolute():
        raise ModelError(f"{path} does not exist: give the directory, file or name of a Whisper")
    return model


def encoder_digest(model: str) -> str:
    """Return the digest of what shapes the encoder's hidden states, without the files for text.

    A name that openai-whisper downloads and the downloaded file have the same digest.

    Raises:
        ModelError: as for `weights_of`.
    """
    if is_transformers(model):
        heads = read_json(Path(model, "config.json")).get("encoder_attention_heads")
        return hashlib.sha256(f"{digest(Path(model))} {heads}".encode()).hexdigest()
    if (file := Path(model, "model.bin")).is_file():
        return sha256_of(file)
    found = weights_of(model)
    return _published_digests().get(model, found) if found == model else found


def _published_digests() -> dict[str, str]:
    """Return the SHA-256 of openai-whisper's files by name; they are part of the download addresses."""
    from whisper import _MODELS

    return {name: address.split("/")[-2] for name, address in _MODELS.items()}


def check_text(model: str, whisper: Whisper, detects: bool = False) -> None:
    """Reject a model that openai-whisper's tokenizer and prompt do not fit.

    Args:
        model: as for `load_whisper`.
        whisper: the loaded model.
        detects: True if the language of the speech is to be detected.

    Raises:
        ModelError: the vocabulary has another size or other tokens, or the model needs another way of decoding.
    """
    from whisper.tokenizer import get_encoding, get_tokenizer

    if (size := whisper.dims.n_vocab) not in VOCABULARIES:
        raise ModelError(f"{model} has {size} tokens; openai-whisper's have {', '.join(map(str, VOCABULARIES))}")
    directory = directory_of(model)
    if not directory.is_dir():
        return
    tokenizer = get_tokenizer(whisper.is_multilingual, num_languages=whisper.num_languages)
    check_decoding(directory, whisper, tokenizer, detects)
    ours = get_encoding(VOCABULARIES[size])
    theirs = _spelling(directory)
    for id in range(ours.eot_token):  # Whisper's special tokens follow, which the size determines
        if (found := theirs.decode([id])) != (expected := ours.decode([id])):
            raise ModelError(
                f"{model}: its token {id} is {found!r}, but openai-whisper's is {expected!r}: use another model"
            )


def _spelling(directory: Path) -> Tokenizer:
    """Return a decoder of a directory's tokens, from the vocabulary file of transformers or CTranslate2."""
    from tokenizers import Tokenizer, decoders, models

    converted = (directory / "model.bin").is_file()
    names = ("vocabulary.json", "vocabulary.txt") if converted else ("tokenizer.json", "vocab.json")
    file = next((directory / name for name in names if (directory / name).is_file()), directory / names[-1])
    try:
        if converted:
            tokens = json.loads(file.read_bytes()) if file.suffix == ".json" else file.read_text("utf-8").split("\n")
            vocabulary = {token: id for id, token in reversed(list(enumerate(tokens)))}
        else:
            vocabulary = read_json(file)["model"]["vocab"] if file.name == names[0] else read_json(file)
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}: copy the whole checkpoint") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: not a vocabulary of byte pairs ({error!r}): copy the whole checkpoint") from error
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def choose_alignment_heads(model: str, whisper: Whisper) -> None:
    """Set a model's alignment heads from its files; if they name none, keep openai-whisper's default, the upper half.

    Raises:
        ModelError: the decoder lacks a named head, which happens with distilled models.
    """
    import torch
    from whisper import _ALIGNMENT_HEADS

    directory = directory_of(model)
    if directory.is_file():
        digests = {digest: name for name, digest in _published_digests().items()}
        if (name := digests.get(sha256_of(directory))) is not None:
            whisper.set_alignment_heads(_ALIGNMENT_HEADS[name])
        return
    dims = whisper.dims
    chosen = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in heads_within(settings_of(directory), dims.n_text_layer, dims.n_text_head):
        chosen[layer, head] = True
    if chosen.any():
        whisper.register_buffer("alignment_heads", chosen.to_sparse().to(whisper.device), persistent=False)


def check_alignment_heads(model: str) -> None:
    """Reject what `choose_alignment_heads` would reject, from only the JSON files of a transformers directory.

    Raises:
        ModelError: as for `choose_alignment_heads`.
    """
    if not is_transformers(model):
        return
    about = read_json(Path(model, "config.json"))
    layers, heads = about.get("decoder_layers"), about.get("decoder_attention_heads")
    if isinstance(layers, int) and isinstance(heads, int):  # otherwise `load_whisper` reports it
        heads_within(settings_of(Path(model)), layers, heads)


def _from_ctranslate2(directory: Path) -> Whisper:
    import torch

    file = directory / "model.bin"
    tensors = read_ctranslate2(file)
    try:
        state = {name: torch.from_numpy(array) for name, array in openai_names(tensors).items()}
        heads = int(tensors["encoder/num_heads"]), int(tensors["decoder/num_heads"])
    except KeyError as error:
        raise ModelError(f"{file}: no tensor {error}: convert the model again") from error
    model = _whisper(directory, state, *heads)
    check_spectrogram(directory, model.dims.n_mels)
    return model


def _from_transformers(directory: Path) -> Whisper:
    config = read_json(directory / "config.json")
    for key, fixed in FIXED.items():
        if (found := config.get(key, fixed)) != fixed:
            raise ModelError(
                f"{directory}/config.json: {key} is {found}, but openai-whisper needs {fixed}: use another model"
            )
    state = {from_transformers(name): tensor for name, tensor in read_tensors(directory).items()}
    output = state.pop("proj_out.weight", None)
    if output is not None and not config.get("tie_word_embeddings", True):
        raise ModelError(f"{directory}: proj_out is not tied to embed_tokens, but openai-whisper's model needs that")
    try:
        heads = int(config["encoder_attention_heads"]), int(config["decoder_attention_heads"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{directory}/config.json: the numbers of attention heads are missing or wrong ({error!r})"
        ) from error
    model = _whisper(directory, state, *heads)
    check_spectrogram(directory, model.dims.n_mels)
    for ours, theirs in SIZES.items():
        if (found := getattr(model.dims, ours)) != config.get(theirs):
            raise ModelError(f"{directory}: {theirs} is {config.get(theirs)} in config.json, {found} in the weights")
    return model


def _from_openai(file: Path) -> Whisper:
    """Load openai-whisper's published format: {"dims": sizes, "model_state_dict": tensors}."""
    found = load_pickle(file)
    try:
        sizes, state = dict(found["dims"]), tensors_of(file, found["model_state_dict"])
        heads = int(sizes["n_audio_head"]), int(sizes["n_text_head"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{file}: not a checkpoint of openai-whisper, with dims and model_state_dict ({error!r}): save both"
        ) from error
    model = _whisper(file, state, *heads)
    for name, size in vars(model.dims).items():
        if sizes.get(name) != size:
            raise ModelError(f"{file}: {name} is {sizes.get(name)} in dims, but {size} in the weights")
    return model


def _whisper(directory: Path, state: Mapping[str, torch.Tensor], audio_heads: int, text_heads: int) -> Whisper:
    """Return a model with tensors under openai-whisper's names, of any float dtype; they determine its sizes."""
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
    if dims.n_audio_ctx != POSITIONS or dims.n_mels not in MELS:
        raise ModelError(
            f"{directory}: max_source_positions is {dims.n_audio_ctx} and num_mel_bins is {dims.n_mels}; "
            f"openai-whisper needs {POSITIONS}, and {' or '.join(map(str, MELS))}: use another model"
        )
    for width, heads in ((audio_state, audio_heads), (text_state, text_heads)):
        if heads < 1 or width % heads:
            raise ModelError(
                f"{directory}: a width of {width} does not divide into {heads} attention heads: see config.json"
            )
    for side, width, layers in (
        ("encoder", audio_state, dims.n_audio_layer),
        ("decoder", text_state, dims.n_text_layer),
    ):
        for layer in range(layers):  # checked before allocating, since one tensor name could claim any size
            held = state.get(f"{side}.blocks.{layer}.attn.query.weight")
            if held is None or tuple(held.shape) != (width, width):
                raise ModelError(
                    f"{directory}: {side} layer {layer} does not have width {width}: copy the whole checkpoint"
                )
    model = Whisper(dims)
    check_tensors(directory, _named(model.state_dict()), _named(state))
    model.load_state_dict(state)
    return model


def _named(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {to_transformers(name): tensor for name, tensor in state.items()}


def _count(state: Iterable[str], side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})

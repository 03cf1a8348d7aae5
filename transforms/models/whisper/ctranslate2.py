"""Convert CTranslate2's file of a Whisper model back to openai-whisper's tensors.

The container is described in `ctranslate2/specs/model_spec.py` (binary version 6), and its Whisper tensor names in
`ctranslate2/specs/whisper_spec.py`. Linear 0 of a self-attention stacks query, key and value; linear 1 of a
cross-attention stacks key and value. Whisper's key projection has no bias, so the key part of a stacked bias is zero.
Equal tensors are stored once; the names of the others follow after all tensors.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from echo_targets.transforms.errors import ModelError

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, 5: np.uint16}
BFLOAT16 = 5
"""The upper half of a float32, which numpy loads as a 16-bit integer."""
MAX_TENSOR_BYTES = 1 << 32


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Return all tensors of a CTranslate2 `model.bin` by name, converted to float32.

    Raises:
        ModelError: the file is not a Whisper model in CTranslate2's binary version 6, or is truncated.
    """
    with path.open("rb") as file:
        try:
            version, specification = _number(file, "I"), _string(file)
            if version != 6 or specification != "WhisperSpec":
                raise ModelError(f"{path}: expected a WhisperSpec of binary version 6, found {specification} {version}")
            _number(file, "I")  # revision of the specification
            tensors = dict(_tensor(file) for _ in range(_number(file, "I")))
            aliases = [(_string(file), _string(file)) for _ in range(_number(file, "I"))]
            return _dequantized(tensors | {alias: tensors[name] for alias, name in aliases})
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: not a CTranslate2 model, or truncated ({error})") from error


def _dequantized(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name in [name for name in tensors if name.endswith("_scale")]:
        scale = tensors.pop(name)  # one per row, or one for all rows
        weight = tensors[name.removesuffix("_scale")]
        tensors[name.removesuffix("_scale")] = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return tensors


def _tensor(file: BinaryIO) -> tuple[str, np.ndarray]:
    name = _string(file)
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    kind = _number(file, "B")
    dtype = np.dtype(DTYPES[kind])
    size = _number(file, "I")
    if size > MAX_TENSOR_BYTES:
        raise ValueError(f"tensor {name} claims {size} bytes")
    array = np.frombuffer(file.read(size), dtype).reshape(shape)
    if kind == BFLOAT16:
        return name, (array.astype(np.uint32) << 16).view(np.float32)
    return name, array.astype(np.float32 if dtype.kind == "f" else dtype)


def _number(file: BinaryIO, code: str) -> int:
    return int(struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0])


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


def openai_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a Whisper model's tensors under openai-whisper's names.

    Raises:
        KeyError: a tensor is missing.
    """
    state: dict[str, np.ndarray] = {
        "decoder.token_embedding.weight": tensors["decoder/embeddings/weight"],
        "encoder.ln_post.weight": tensors["encoder/layer_norm/gamma"],
        "encoder.ln_post.bias": tensors["encoder/layer_norm/beta"],
        "decoder.ln.weight": tensors["decoder/layer_norm/gamma"],
        "decoder.ln.bias": tensors["decoder/layer_norm/beta"],
    }
    for side in ("encoder", "decoder"):
        state[f"{side}.positional_embedding"] = tensors[f"{side}/position_encodings/encodings"]
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            state[f"encoder.{conv}.{kind}"] = tensors[f"encoder/{conv}/{kind}"]
    for name in tensors:
        side, block, *rest = name.split("/")
        if block.startswith("layer_") and block != "layer_norm" and rest[-1] in ("weight", "gamma"):
            _layer(state, tensors, f"{side}.blocks.{block.removeprefix('layer_')}", name.rsplit("/", 1)[0], rest)
    return state


def _layer(state: dict[str, np.ndarray], tensors: dict[str, np.ndarray], to: str, source: str, rest: list[str]) -> None:
    part, kind = rest[0], rest[1]
    names = {"self_attention": "attn", "attention": "cross_attn", "ffn": "mlp"}
    if kind == "layer_norm":
        state[f"{to}.{names[part]}_ln.weight"] = tensors[f"{source}/gamma"]
        state[f"{to}.{names[part]}_ln.bias"] = tensors[f"{source}/beta"]
        return
    if part == "ffn":
        targets = [{"linear_0": "mlp.0", "linear_1": "mlp.2"}[kind]]
    else:
        stacked = {
            ("self_attention", "linear_0"): ["query", "key", "value"],
            ("self_attention", "linear_1"): ["out"],
            ("attention", "linear_0"): ["query"],
            ("attention", "linear_1"): ["key", "value"],
            ("attention", "linear_2"): ["out"],
        }[part, kind]
        targets = [f"{names[part]}.{projection}" for projection in stacked]
    weights = np.split(tensors[f"{source}/weight"], len(targets))
    biases = np.split(tensors[f"{source}/bias"], len(targets))
    for target, weight, bias in zip(targets, weights, biases, strict=True):
        state[f"{to}.{target}.weight"] = weight
        if not target.endswith(".key"):
            state[f"{to}.{target}.bias"] = bias

"""Keys of a Llama's `config.json` that change its computation: which values are supported, and which are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Activation = Literal["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
"""transformers' names of activation functions (`hidden_act`)."""

ROPE_SCALING = {
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}
"""Keys of `rope_scaling` by type. `dynamic` and `longrope` are not supported because a row would depend on the length
of its batch; `yarn` because versions of transformers differ."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "pretraining_tp": (None, 1),
    "partial_rotary_factor": (None, 1),
    "sliding_window": (None,),
    "use_sliding_window": (None, False),
    "attention_chunk_size": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "use_qk_norm": (None, False),
    "qk_norm": (None, False),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "attention_multiplier": (None,),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "scale_emb": (None, 1),
    "scale_depth": (None,),
    "dim_model_base": (None,),
}
"""Keys of other networks, each with the values that make no difference to a Llama."""


def reject_other_networks(config: Mapping[str, Any]) -> None:
    """Reject the configuration of a network that differs from a Llama.

    Raises:
        ValueError: a key of `NEUTRAL` has another value, or a layer does not attend to all earlier positions.
    """
    for key, neutral in NEUTRAL.items():
        if config.get(key) not in neutral:
            remedy = " or ".join("removed" if value is None else repr(value) for value in reversed(neutral))
            raise ValueError(
                f"{key} is {config[key]!r}, which is not supported; "
                f"it must be {remedy}, and the weights must have been trained or saved for that"
            )
    layers = set(config.get("layer_types") or [])
    if layers - {"full_attention"}:
        raise ValueError(f"layer_types has {', '.join(sorted(map(str, layers)))}; only full_attention is supported")


def checked_rope_scaling(scaling: dict[str, Any] | None) -> dict[str, Any] | None:
    """Check `rope_scaling`, and use transformers' current name for its type.

    Returns:
        `rope_type` and its numbers; None without scaling.

    Raises:
        ValueError: an unsupported type or key, a missing key, or a value that is not a positive number.
    """
    if scaling is None:
        return None
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    numbers = {key: value for key, value in scaling.items() if key not in ("rope_type", "type")}
    if kind == "default":
        expected: set[str] = set()
    elif kind in ROPE_SCALING:
        expected = ROPE_SCALING[kind]
    else:
        raise ValueError(f"type {kind!r} is not supported; use a checkpoint with default, linear or llama3")
    if numbers.keys() != expected:
        needs = ", ".join(sorted(expected)) or "no further key"
        raise ValueError(f"type {kind} needs {needs}; it has {', '.join(sorted(numbers)) or 'none'}")
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"{key} is {value!r}, expected a positive number")
    if kind == "llama3" and numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
        raise ValueError("high_freq_factor must be above low_freq_factor")
    return {"rope_type": kind, **numbers} if expected else None


def check_heads(width: int, heads: int, kv_heads: int, head_dim: int | None) -> None:
    """Check that a Llama's width divides into its heads, and its heads into key-value heads.

    Raises:
        ValueError: they do not divide.
    """
    if heads % kv_heads:
        raise ValueError(f"{heads} attention heads do not divide into {kv_heads} key-value heads")
    if head_dim is None and width % heads:
        raise ValueError(f"a width of {width} does not divide into {heads} heads")
    if (head_dim or width // heads) % 2:
        raise ValueError(f"the head width is {head_dim or width // heads}; rotary positions need an even one")

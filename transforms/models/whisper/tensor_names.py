"""Names of Whisper's tensors in openai-whisper and in transformers."""

from __future__ import annotations

PAIRS = (
    ("encoder.ln_post.", "encoder.layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".positional_embedding", ".embed_positions.weight"),
    (".token_embedding.", ".embed_tokens."),
    (".blocks.", ".layers."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".mlp_ln.", ".final_layer_norm."),
    (".attn.", ".self_attn."),
    (".cross_attn.", ".encoder_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
)
"""Parts of names: openai-whisper's, then transformers'. All other parts are the same."""


def to_transformers(name: str) -> str:
    """Convert a name: `encoder.blocks.0.attn.query.weight` to `encoder.layers.0.self_attn.q_proj.weight`."""
    for ours, theirs in PAIRS:
        name = name.replace(ours, theirs)
    return name


def from_transformers(name: str) -> str:
    """Invert `to_transformers`. Also removes the prefix `model.`, which transformers puts before names of a Whisper."""
    name = name.removeprefix("model.")
    for ours, theirs in PAIRS:
        name = name.replace(theirs, ours)
    return name

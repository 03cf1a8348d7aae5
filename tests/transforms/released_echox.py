"""Checkpoints as EchoX's authors write them: by the classes of transformers that their code extends, and its own rules.

What their code makes of a configuration (`FreedomIntelligence/EchoX`, `xiaozhang521/ACLlama` for the tokenizer) is
written down here a second time; nothing of this project's network is asked.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from transformers import LlamaConfig

Shapes = dict[str, tuple[int, ...]]

ROPE = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 1777,
    "rope_theta": 30_000.0,
    "rope_scaling": ROPE | {"original_max_position_embeddings": 64},
    "rms_norm_eps": 3e-5,
    "tie_word_embeddings": False,
    "audio_tower": "./whisper-large-v3",
    "adapter_size": 16,
    "audio_token_len": 1,
    "unit_output": "finetune_kd",
    "unit_model": "large",
    "use_cache": False,
}
"""No two sizes are equal, no head is the width divided by the heads, and no value is transformers' default."""
WORDS = ["7", "0", "837_81_194", "5_7", "1003", "12_5", "999"]
"""A vocabulary of units in the order in which a unit language saves it; 1003 is no unit."""
SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
"""The system's text in the release."""
TEXT = [SYSTEM, "system", "user", "assistant", "speaker", "\n", "What is two plus three?", "It is five.", "No."]


def released_tokenizer(words: list[str]) -> Any:
    """A tokenizer of transformers with Llama 3's special tokens, `<audio_patch>` and words of units, in this order."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    words_of_text = pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}|[^\s\p{L}\p{N}]|\s"), "isolated")
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [words_of_text, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bare.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare)
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens({"bos_token": special[0], "eos_token": special[4]})
    tokenizer.add_tokens(special, special_tokens=True)
    begin = tokenizer.convert_tokens_to_ids(special[0])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A", pair=f"{special[0]} $A {special[0]} $B", special_tokens=[(special[0], begin)]
    )
    tokenizer.add_tokens("<audio_patch>", special_tokens=True)
    tokenizer.pad_token_id = tokenizer.eos_token_id
    tokenizer.add_tokens([f"<|unit_{word}|>" for word in words])
    return tokenizer


def released_config(tokenizer: Any, words: list[str], **changes: Any) -> dict[str, Any]:
    """Keys of `config.json`; transformers adds its own when it saves them.

    The ids that the release has in its code are those of Llama 3's tokenizer; the small one's stand in their place.
    """
    ids = tokenizer.convert_tokens_to_ids
    begin, header_start, header_end = ids(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"])
    header = [header_start, begin, ids("speaker"), header_end, begin, ids("Ċ")]
    return {
        **SIZES,
        "vocab_size": len(tokenizer) - len(words),
        "unit_vocab_size": len(words) + 2,
        "bos_token_id": ids("<|begin_of_text|>"),
        "eos_token_id": ids("<|end_of_text|>"),
        "period_id": ids("."),
        "unit_prefix_ids": [*header, ids('"')],
        "unit_middle_ids": [ids("<|eot_id|>"), *header],
        "unit_end_id": ids("<|eot_id|>"),
        **changes,
    }


def write_whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(3)
    WhisperModel(
        WhisperConfig(
            d_model=16,
            encoder_layers=2,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=2,
            encoder_ffn_dim=40,
            decoder_ffn_dim=48,
            num_mel_bins=128,
            vocab_size=77,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        )
    ).save_pretrained(folder)


def write_released(folder: Path, words: list[str] = WORDS, shard_bytes: int = 40_000, **changes: Any) -> Path:
    """A checkpoint of random weights in shards, beside `whisper-large-v3`, as the release's README downloads both."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from transformers import LlamaConfig

    folder.mkdir(parents=True)
    write_whisper(folder.parent / "whisper-large-v3")
    tokenizer = released_tokenizer(words)
    config = released_config(tokenizer, words, **changes)
    released = type("EchoXConfig", (LlamaConfig,), {"model_type": "EchoX"})
    released(**deepcopy(config), architectures=["EchoXForCausalLM"], torch_dtype="float16").save_pretrained(folder)
    about = json.loads((folder / "config.json").read_text())
    if about.pop("rope_parameters", None):  # transformers 5 wrote it, the release has transformers 4's keys
        about |= {name: config[name] for name in ("rope_theta", "rope_scaling")}
        (folder / "config.json").write_text(json.dumps(about))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    state = {name: _drawn(name, shape) for name, shape in echox_shapes(config, 16).items()}
    plan = split_torch_state_dict_into_shards(state, max_shard_size=shard_bytes)
    for file, names in plan.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def rope_of(llama: LlamaConfig) -> tuple[float, dict[str, Any] | None]:
    """`rope_theta` and `rope_scaling` of a configuration; transformers 5 has both in `rope_parameters`."""
    rope = getattr(llama, "rope_parameters", None)
    if rope is None:
        return llama.rope_theta, llama.rope_scaling
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    return rope["rope_theta"], None if scaling == {"rope_type": "default"} else scaling


def _drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    drawn = torch.randn(shape) * (0.1 if "norm" in name or name.endswith("bias") else 0.4)
    return drawn + ("norm" in name and name.endswith("weight"))


def llama_shapes(prefix: str, layers: int, width: int, ffn: int, heads: int, kv_heads: int, head: int) -> Shapes:
    """A Llama decoder without embeddings."""
    shapes: Shapes = {f"{prefix}norm.weight": (width,)}
    for layer in range(layers):
        shapes |= {
            f"{prefix}layers.{layer}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": (heads * head, width),
                "self_attn.k_proj": (kv_heads * head, width),
                "self_attn.v_proj": (kv_heads * head, width),
                "self_attn.o_proj": (width, heads * head),
                "mlp.gate_proj": (ffn, width),
                "mlp.up_proj": (ffn, width),
                "mlp.down_proj": (width, ffn),
                "input_layernorm": (width,),
                "post_attention_layernorm": (width,),
            }.items()
        }
    return shapes


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name: str, width: int) -> Shapes:
    """torch's multi-head attention."""
    return {
        f"{name}.in_proj_weight": (3 * width, width),
        f"{name}.in_proj_bias": (3 * width,),
        **linear(f"{name}.out_proj", width, width),
    }


def echox_shapes(llm: dict[str, Any], whisper_width: int) -> Shapes:
    """Tensors of a checkpoint with these keys of `config.json`."""
    width, ffn, vocab = llm["hidden_size"], llm["intermediate_size"], llm["vocab_size"]
    heads, kv_heads = llm["num_attention_heads"], llm["num_key_value_heads"]
    units = llm["unit_vocab_size"]
    head = llm.get("head_dim") or width // heads
    layers, of_units, unit_ffn, unit_heads, unit_kv_heads, unit_head = {
        "large": (2, width, ffn, heads, kv_heads, head),
        "small": (4, 512, 2048, 8, kv_heads, 64),
        "unset": (6, 512, 2048, 8, kv_heads, 64),
    }.get(str(llm.get("unit_model", "unset")), (8, 768, 2048, 12, 12, 64))
    layer = "model.asr_transformer_encoder.layers.0"
    return {
        "model.embed_tokens.weight": (vocab, width),
        **llama_shapes("model.", llm["num_hidden_layers"], width, ffn, heads, kv_heads, head),
        "lm_head.weight": (vocab, width),
        **linear("model.mm_projector1", 2 * whisper_width, width),
        **attention(f"{layer}.self_attn", width),
        **linear(f"{layer}.linear1", width, 2 * width),
        **linear(f"{layer}.linear2", 2 * width, width),
        **norm(f"{layer}.norm1", width),
        **norm(f"{layer}.norm2", width),
        **norm("model.out_norm", width),
        "model.audio_feature_head.weight": (vocab, width),
        **attention("model.lbm.encoder_attn", width),
        **norm("model.lbm.atten_layer_norm", width),
        "unit_translator.model.embed_tokens.weight": (vocab, width),
        **llama_shapes("unit_translator.model.", layers, of_units, unit_ffn, unit_heads, unit_kv_heads, unit_head),
        "unit_translator.unit_embedding.weight": (units, width),
        **linear("unit_translator.adapter", width, of_units),
        "unit_translator.lm_head.weight": (vocab + units, of_units),
        **linear("unit_translator.aligner_MLP.0", width, ffn),
        **linear("unit_translator.aligner_MLP.3", ffn, width),
    }

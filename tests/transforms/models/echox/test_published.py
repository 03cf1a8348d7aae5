"""Checkpoints as published: tokenizer files, places, shards; keys of config.json are computed or refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_targets.transforms.assets import asset
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_tensors
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX, tower_of
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from tests.transforms.released_echox import SIZES, SYSTEM, WORDS, released_tokenizer, rope_of, write_released

REQUIRED = {
    "vocab_size": 99,
    **{name: SIZES[name] for name in SIZES if name.startswith(("hidden", "intermediate", "num_"))},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("published") / "EchoX-8B")


@pytest.fixture()
def checkpoint(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / written.name


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder: Path, **changes: Any) -> str:
    change(folder / "config.json", **changes)
    with pytest.raises(ModelError) as error:
        EchoX.load(folder)
    return str(error.value)


def test_what_the_authors_tools_write_loads(written: Path) -> None:
    echox = EchoX.load(written)
    tokenizer = released_tokenizer(WORDS)
    ids = tokenizer.convert_tokens_to_ids
    config = echox.config
    assert len(list(written.glob("model-*.safetensors"))) > 3
    assert config.end_ids == [ids("<|eot_id|>"), ids("<|end_of_text|>")]  # the tokenizer's first, as the release ends
    assert config.pad_token_id == ids("<|eot_id|>")
    assert config.audio_patch_id == ids("<audio_patch>") == config.vocab_size - 1
    assert echox.tokenizer is not None
    text = "It is <|unit_7|> five."
    assert max(echox.tokenizer.encode(text).ids) < config.vocab_size, "text never spells units of the decoder"
    assert echox.tokenizer.encode("five").ids == tokenizer("five").input_ids
    for llama in (echox.network.model.config, echox.network.unit_translator.model.config):
        theta, scaling = rope_of(llama)
        assert (theta, llama.rms_norm_eps, llama.head_dim) == (30_000.0, 3e-5, 10)
        assert scaling is not None and scaling["original_max_position_embeddings"] == 64


def test_words_of_units_are_spelled_as_the_release_spells_them(written: Path) -> None:
    """Against the released decoding: all digits of the decoded tokens that are below 1000, here without repeats."""

    config, tokenizer = EchoXConfig.read(written), released_tokenizer(WORDS)
    decoder, first = config.unit_decoder, config.vocab_size
    assert decoder.decodable == list(range(first, first + len(WORDS)))
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        ids = (first + torch.randint(len(WORDS), (12,), generator=rng)).tolist()
        text = tokenizer.batch_decode([ids])[0]
        units = [int(number) for number in re.findall(r"\d+", text) if int(number) < 1000]
        expected = [unit for place, unit in enumerate(units) if not place or unit != units[place - 1]]
        assert decoder.spelled(ids) == expected
    decoded = EchoX.load(written).t2c.generate([[3, 4, 5], [9], [8, 8]], 30)
    assert {unit for row in decoded for unit in row.units} <= {7, 0, 837, 81, 194, 5, 12, 999}
    assert all(one != other for row in decoded for one, other in zip(row.units, row.units[1:], strict=False))


def test_the_prompt_is_the_releases_token_by_token(written: Path) -> None:
    """Its code calls a tokenizer that begins each piece with <|begin_of_text|>, and puts Llama 3's headers around."""
    tokenizer = released_tokenizer(WORDS)
    begin, start, end, turn = tokenizer.convert_tokens_to_ids(
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    )

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text).input_ids
        return found

    def header(role: str) -> list[int]:
        return [start, *ids(role), end]

    expected = [begin, *header("system"), *ids("\n"), *ids(SYSTEM), turn]
    for reply in ("It is five.", None):
        expected += [*header("user"), *ids("\n<audio_patch>"), *ids(""), turn, *header("assistant"), *ids("\n")]
        expected += [*ids(reply), turn] if reply else []

    echox = EchoX.load(written)
    assert echox.tokenizer is not None
    template = PromptTemplate.load(asset("embedded:prompts/echox.json"), echox.tokenizer)
    earlier = echox.tokenizer.encode("It is five.", add_special_tokens=False).ids
    found = template.ids(echox.tokenizer, [earlier])
    assert [echox.config.audio_patch_id if token is None else token for token in found] == expected


def test_words_with_marks_are_read_across_tokens(tmp_path: Path) -> None:
    """Pieces of a SentencePiece vocabulary may end inside a number; the release joins them before it reads."""
    config = EchoXConfig.read(write_released(tmp_path / "EchoX-3B", ["▁837_8", "1_194", "▁5", "▁7"]))
    ids = [config.vocab_size + number for number in (0, 1, 2, 2, 3)]
    assert config.unit_decoder.spelled(ids) == [837, 81, 194, 5, 7]


def test_single_units_in_order_are_ids(tmp_path: Path) -> None:
    units = list(map(str, range(12)))
    echox = EchoX.load(write_released(tmp_path / "EchoX-3B", units, units=12))
    assert (
        echox.config.unit_spellings is None and echox.config.unit_decoder.decodable[11] == echox.config.vocab_size + 11
    )
    shuffled = EchoXConfig.read(write_released(tmp_path / "other" / "EchoX-3B", units[::-1], units=12))
    assert shuffled.unit_decoder.spelled([shuffled.vocab_size, shuffled.vocab_size + 3]) == [11, 8]


def test_units_may_start_before_the_padded_vocabulary_ends(tmp_path: Path) -> None:
    """The release takes the tokenizer's ids as they are, so the first words have embeddings of the text's table."""
    words = released_tokenizer(WORDS)
    first = len(words) - len(WORDS)
    folder = write_released(tmp_path / "EchoX-3B", vocab_size=first + 3)
    echox = EchoX.load(folder)
    assert echox.config.unit_decoder.decodable == list(range(first, first + len(WORDS)))
    assert echox.config.unit_decoder.spelled([first + 2, first]) == [837, 81, 194, 7]
    assert echox.tokenizer is not None and echox.tokenizer.token_to_id("<|unit_7|>") is None
    assert echox.t2c.generate([[3, 4, 5]], 30)[0].units


def test_tokens_that_do_not_fit_the_decoder_are_named(checkpoint: Path) -> None:
    vocab = EchoXConfig.read(checkpoint).vocab_size
    message = refused(checkpoint, unit_vocab_size=3)
    assert f"unit tokens have ids up to {vocab + 6}, but config.json has {vocab} + 3" in message
    message = refused(checkpoint, vocab_size=vocab - 1)
    assert "'<audio_patch>' has an id from vocab_size" in message


def test_generation_config_and_lists_end_replies_too(checkpoint: Path) -> None:
    first = EchoXConfig.read(checkpoint)
    change(checkpoint / "config.json", eos_token_id=[5, 6])
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [6, 8], "temperature": 0.6}))
    config = EchoXConfig.read(checkpoint)
    assert config.end_ids == [first.end_ids[0], 5, 6, 8] and config.digest != first.digest
    (checkpoint / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json: not JSON"):
        EchoXConfig.read(checkpoint)


def test_a_special_token_that_the_tokenizer_lacks_is_named(checkpoint: Path) -> None:
    change(checkpoint / "tokenizer_config.json", pad_token={"content": "<|finetune_right_pad_id|>"})
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: pad_token '<\|finetune_right_pad_id\|>' is not"):
        EchoXConfig.read(checkpoint)


@pytest.mark.parametrize(
    "named", ["./whisper-large-v3", "/mnt/of/the/authors/whisper-large-v3", "openai/whisper-large-v3"]
)
def test_the_audio_tower_is_found_where_the_readme_downloads_it(checkpoint: Path, named: str) -> None:
    change(checkpoint / "config.json", audio_tower=named)
    config = EchoXConfig.read(checkpoint)
    assert tower_of(checkpoint, config) == str(checkpoint.parent / "whisper-large-v3")
    shutil.copytree(checkpoint.parent / "whisper-large-v3", checkpoint / "whisper-large-v3")
    assert tower_of(checkpoint, config) == str(checkpoint / "whisper-large-v3")
    shutil.rmtree(checkpoint / "whisper-large-v3")
    (checkpoint.parent / "whisper-large-v3").rename(checkpoint.parent / "moved")
    with pytest.raises(ModelError, match=r"config\.json: audio_tower '.*-large-v3' is not a directory; download"):
        tower_of(checkpoint, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_size": 1280}, "adapter_size is 1280, but the audio tower .* has width 16"),
        ({"hidden_act": "swiglu"}, "hidden_act: .*'silu'.*'gelu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling: type 'dynamic' is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling: type 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "needs factor, high_freq_factor, .*has factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope_scaling: factor is 0"),
        ({"rope_scaling": {"factor": 2.0}}, "type default needs no further key; it has factor"),
        ({"rope_parameters": {"rope_type": "default"}}, "rope_parameters and rope_scaling"),
        ({"sliding_window": 4096}, "sliding_window is 4096, .* it must be removed"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has .*sliding_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, .* it must be 1 or removed"),
        ({"pretraining_tp": 2}, "pretraining_tp is 2"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config is .*bitsandbytes"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier is 12.0"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"model_type": "qwen2"}, "model_type is 'qwen2'; expected EchoX"),
        ({"unit_output": "pretrain"}, "unit_output: is 'pretrain', a checkpoint without a denoising adapter"),
        ({"num_key_value_heads": 4}, "6 attention heads do not divide into 4 key-value heads"),
        ({"num_attention_heads": 10}, "hidden_size 24 does not divide into the 10 heads"),
        ({"num_key_value_heads": 3, "unit_model": "small"}, "8 attention heads do not divide into 3 key-value heads"),
        ({"head_dim": 5}, "head width is 5"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true, but .* an lm_head.weight that is not"),
        ({"unit_model": "Large"}, r"unit_model \('Large'\) a unit decoder of 8 layers of width 768: copy config.json"),
        ({"unit_model": {"num_layers": 2}}, "hidden_size: Field required|Field required"),
        ({"unit_model": {"end_id": 2}}, "unit_model: .*end_id"),
        ({"num_hidden_layers": 4}, r"missing model.layers.3.* config.json describes 4 layers of width 24"),
        ({"attention_bias": True}, "missing model.layers.0.self_attn.k_proj.bias"),
    ],
)  # fmt: skip
def test_a_key_that_is_not_computed_is_named(checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    found = refused(checkpoint, **changes)

    assert re.search(message, found), found
    assert str(checkpoint) in found


def test_harmless_keys_are_left_alone(checkpoint: Path) -> None:
    change(
        checkpoint / "config.json",
        attention_dropout=0.1,
        initializer_range=0.5,
        sliding_window=None,
        pretraining_tp=1,
        layer_types=["full_attention"] * 3,
        unit_vocab="/mnt/of/the/authors/vocab.txt",
        model_type="ACLlama",
    )
    EchoX.load(checkpoint)


def test_biases_and_activation_are_computed_in_both_decoders(checkpoint: Path) -> None:
    index = checkpoint / "model.safetensors.index.json"
    state = read_tensors(checkpoint)
    for name in list(state):
        if ".layers." in name and name.endswith("_proj.weight") and "lbm" not in name:
            state[name.replace("weight", "bias")] = torch.full(state[name].shape[:1], 0.3)
    for file in checkpoint.glob("model*"):
        file.unlink()
    save_file(state, checkpoint / "model.safetensors")
    assert not index.exists()
    assert "surplus model.layers.0.mlp.down_proj.bias" in refused(checkpoint)
    change(checkpoint / "config.json", attention_bias=True, mlp_bias=True)
    silu = EchoX.load(checkpoint)
    change(checkpoint / "config.json", hidden_act="gelu")
    gelu = EchoX.load(checkpoint)
    inputs = torch.ones(1, 4, 24)
    for part in ("model", "unit_translator.model"):
        with torch.inference_mode():
            one, other = (
                echox.network.get_submodule(part)(inputs_embeds=inputs).last_hidden_state for echox in (silu, gelu)
            )
        assert not torch.allclose(one, other, atol=1e-3), part


def test_keys_of_transformers_5_are_read(checkpoint: Path) -> None:
    before = EchoXConfig.read(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    rope = config.pop("rope_scaling") | {"rope_theta": config.pop("rope_theta")}
    (checkpoint / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    assert EchoXConfig.read(checkpoint) == before
    (checkpoint / "config.json").write_text(json.dumps(config | {"rope_parameters": {"rope_theta": 7.0}}))
    plain = EchoXConfig.read(checkpoint)
    assert (plain.rope_theta, plain.rope_scaling) == (7.0, None)


def test_absent_keys_have_the_values_of_llama() -> None:
    from transformers import LlamaConfig

    llama, config = LlamaConfig(), EchoXConfig.model_validate(REQUIRED)
    for key in (
        "hidden_act",
        "attention_bias",
        "mlp_bias",
        "rms_norm_eps",
        "max_position_embeddings",
        "tie_word_embeddings",
    ):
        assert getattr(config, key) == getattr(llama, key), key
    assert (config.rope_theta, config.rope_scaling) == rope_of(llama)
    assert config.unit_decoder.num_layers == 6
    null = EchoXConfig.model_validate(REQUIRED | {"unit_model": None})
    assert null.unit_decoder.num_layers == 8, "to the release a key that is there is set"


def test_tied_embeddings_as_transformers_saves_them(checkpoint: Path) -> None:
    """Llama 3.2 3B ties its own embeddings; the unit decoder's are not tied, whatever the key says."""
    state = read_tensors(checkpoint)
    del state["lm_head.weight"]
    for file in checkpoint.glob("model*"):
        file.unlink()
    save_file(state, checkpoint / "model.safetensors")
    assert "missing lm_head.weight" in refused(checkpoint, tie_word_embeddings=False)
    change(checkpoint / "config.json", tie_word_embeddings=True)
    network = EchoX.load(checkpoint).network
    assert torch.equal(network.lm_head.weight, network.model.embed_tokens.weight)
    assert torch.equal(network.unit_translator.lm_head.weight, state["unit_translator.lm_head.weight"])
    assert not torch.equal(network.unit_translator.model.embed_tokens.weight, network.model.embed_tokens.weight)


def test_shards_of_torch_save_and_buffers_of_old_versions(checkpoint: Path) -> None:
    whole = EchoX.load(checkpoint).network.state_dict()
    state = read_tensors(checkpoint) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(5)}
    names = sorted(state)
    files = {name: f"pytorch_model-{place % 2 + 1:05d}-of-00002.bin" for place, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: state[name] for name in names if files[name] == file}, checkpoint / file)
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    for file in checkpoint.glob("model*"):
        file.unlink()
    for name, tensor in EchoX.load(checkpoint).network.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    (checkpoint / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin\.index\.json names 'pytorch_model-00002-of-00002\.bin'"):
        EchoX.load(checkpoint)


def test_missing_and_surplus_tensors_are_one_message(checkpoint: Path) -> None:
    file = next(file for file in sorted(checkpoint.glob("model-*")) if len(load_file(file)) > 8)
    state = load_file(file)
    lost = [state.pop(name) is not None and name for name in sorted(state)[:7]]
    save_file(state | {"model.vision.weight": torch.zeros(2)}, file)
    with pytest.raises(ModelError) as error:
        EchoX.load(checkpoint)
    message = str(error.value)
    assert f"missing {lost[0]}" in message and "and 3 more" in message and "copy config.json and all weight" in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation_function", "relu", "activation_function is 'relu'"),
        ("num_mel_bins", 64, "num_mel_bins is 64"),
        ("max_source_positions", 300, "expected|fewer than audio_context"),
    ],
)
def test_another_encoder_is_named(checkpoint: Path, key: str, value: Any, message: str) -> None:
    change(checkpoint.parent / "whisper-large-v3" / "config.json", **{key: value})
    with pytest.raises(ModelError, match=message):
        EchoX.load(checkpoint)


def test_the_digest_follows_every_file_that_is_read(checkpoint: Path) -> None:
    first = EchoXConfig.read(checkpoint).digest
    change(checkpoint / "config.json", audio_tower="elsewhere/whisper-large-v3", use_cache=True)
    assert EchoXConfig.read(checkpoint).digest == first
    change(checkpoint / "tokenizer_config.json", pad_token="<|end_of_text|>")
    second = EchoXConfig.read(checkpoint).digest
    change(checkpoint / "config.json", rms_norm_eps=1e-5)
    assert len({first, second, EchoXConfig.read(checkpoint).digest}) == 3

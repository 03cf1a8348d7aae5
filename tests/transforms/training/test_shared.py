"""The three stages on a handful of real clips with made-up replies, by networks that learn them in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.collate import KDRow
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.echox.tokenizer import SPECIALS, byte_level_tokenizer
from echo_targets.transforms.training import s2t as s2t_training
from echo_targets.transforms.training import shared as training
from echo_targets.transforms.training.echo import (
    EchoRecipe,
    EchoRow,
    TranslatorRecipe,
    train_echo,
    train_unit_translator,
)
from echo_targets.transforms.training.s2t import S2TRecipe, S2TRow, held_out_replies, train_s2t
from echo_targets.transforms.training.shared import prompt_ids
from echo_targets.transforms.training.t2c import Row

REPLIES = ["Yes.", "No, not now.", "Go on then.", "That is so.", "I see. Well."]
RECIPE = S2TRecipe(
    steps=120,
    text_steps=30,
    batch_tokens=300,
    learning_rate=5e-3,
    warmup_steps=5,
    decay_steps=50,
    dropout=0.0,
    log_every=20,
    save_every=1000,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rows(speech: list[dict[str, Any]]) -> list[S2TRow]:
    shortest = sorted(speech, key=lambda row: row["duration"])[: len(REPLIES)]
    return [
        S2TRow(row["id"], row["audio"].read_bytes(), round(row["duration"] * 16_000), row["text"].capitalize(), reply)
        for row, reply in zip(shortest, REPLIES, strict=True)
    ]


@pytest.fixture(scope="module")
def tokenizer(rows: list[S2TRow]) -> Tokenizer:
    return byte_level_tokenizer((text for row in rows for text in (row.text, row.response_text)), 300)


@pytest.fixture(scope="module")
def prompt(tokenizer: Tokenizer) -> PromptTemplate:
    return PromptTemplate.load(asset("embedded:prompts/nano.json"), tokenizer)


@pytest.fixture(scope="module")
def config(tokenizer: Tokenizer) -> EchoXConfig:
    pad, user, assistant, end, patch = map(tokenizer.token_to_id, SPECIALS)
    unit_model = {"num_layers": 1, "hidden_size": 48, "num_heads": 2, "num_kv_heads": 2, "ffn_size": 96}
    return EchoXConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_theta=10_000.0,
        eos_token_id=end,
        pad_token_id=pad,
        audio_tower="embedded:tiny.en",
        audio_context=50,
        unit_vocab_size=60,
        units=60,
        unit_model=unit_model | {"max_positions": 128},
        audio_patch_id=patch,
        period_id=tokenizer.token_to_id("."),
        unit_prefix_ids=[user],
        unit_middle_ids=[end, assistant],
        unit_end_id=end,
    )


@pytest.fixture(scope="module")
def stage1(
    rows: list[S2TRow],
    config: EchoXConfig,
    tokenizer: Tokenizer,
    prompt: PromptTemplate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out: Path = tmp_path_factory.mktemp("stage1")
    train_s2t(rows, rows, config, tokenizer, prompt, out, RECIPE)
    return out


def units_of(reply: str) -> list[int]:
    """Two units a letter."""
    letters = [ord(letter) % 30 for letter in reply.lower() if letter.isalpha()]
    return [2 * letter + n for letter in letters for n in range(2)]


@pytest.fixture(scope="module")
def stage2(stage1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("stage2")
    recipe = TranslatorRecipe(
        steps=150, batch_tokens=300, learning_rate=1e-2, warmup_steps=5, decay_steps=60, dropout=0.0
    )
    spoken = [Row(reply, units_of(reply)) for reply in REPLIES]
    report = train_unit_translator(spoken, spoken, EchoX.load(stage1), out, recipe)
    assert report["held_out_unit_error_rate"] < 0.1
    return out


@pytest.fixture(scope="module")
def echo_rows(rows: list[S2TRow], config: EchoXConfig, tokenizer: Tokenizer, prompt: PromptTemplate) -> list[EchoRow]:
    ids = prompt_ids(prompt, tokenizer, config)
    place = ids.index(config.audio_patch_id)
    made = []
    for row in rows:
        asked, reply = (tokenizer.encode(text, add_special_tokens=False).ids for text in (row.text, row.response_text))
        kd = KDRow([ids[:place], ids[place + 1 :]], [asked], reply, [len(reply)], [units_of(row.response_text)])
        made.append(EchoRow(row.id, row.audio, row.num_samples, kd))
    return made


def test_a_rows_system_text_is_in_its_prompt(rows: list[S2TRow], config: EchoXConfig, tokenizer: Tokenizer) -> None:
    template = {"before_system": ["<assistant>"], "before_audio": ["<end>", "<user>"], "after_audio": ["<end>"]}
    placed = PromptTemplate.model_validate({"id": "p", "after_reply": ["<end>"], **template})
    tower: Any = SimpleNamespace(max_samples=2**30, context=300)
    without, told = (
        s2t_training._example(replace(rows[0], system_text=text), config, tokenizer, placed, tower).prompt
        for text in (None, "Go on.")
    )
    said = tokenizer.encode("Go on.", add_special_tokens=False).ids
    assert said and told == [without[0], *said, *without[1:]]


def test_it_learns_to_answer_speech(stage1: Path, rows: list[S2TRow], prompt: PromptTemplate) -> None:
    report = json.loads((stage1 / "report.json").read_text())
    assert report["held_out_exact_replies"] == 1.0
    assert report["held_out_ctc_word_error_rate"] < 0.5
    assert held_out_replies(EchoX.load(stage1), rows, prompt)["held_out_exact_replies"] == 1.0
    curve = [json.loads(line) for line in (stage1 / "curve.jsonl").read_text().splitlines()]
    assert "ctc" not in curve[0] and curve[-1]["ctc"] < curve[2]["ctc"] / 2
    assert curve[-1]["loss"] == pytest.approx(curve[-1]["reply"] + 0.3 * curve[-1]["ctc"], abs=1e-3)


def test_a_killed_run_goes_on_to_the_same_weights(
    rows: list[S2TRow],
    config: EchoXConfig,
    tokenizer: Tokenizer,
    prompt: PromptTemplate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(RECIPE, steps=8, text_steps=4, text_share=0.3, decay_steps=2, save_every=3, dropout=0.1)
    train_s2t(rows, [], config, tokenizer, prompt, tmp_path / "whole", recipe)
    loss, calls = s2t_training._loss, 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(s2t_training, "_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_s2t(rows, [], config, tokenizer, prompt, tmp_path / "cut", recipe)
    monkeypatch.undo()

    def encoded_again(*_: Any) -> Any:
        raise AssertionError("the frames are in the cache")

    monkeypatch.setattr(training, "tower_frames", encoded_again)
    train_s2t(rows, [], config, tokenizer, prompt, tmp_path / "cut", recipe)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    assert (tmp_path / "whole" / "curve.jsonl").read_text() == (tmp_path / "cut" / "curve.jsonl").read_text()
    with pytest.raises(ValueError, match="another recipe"):
        train_s2t(rows, [], config, tokenizer, prompt, tmp_path / "cut", replace(recipe, seed=1))


def test_training_computes_what_the_model_does(
    stage1: Path, rows: list[S2TRow], prompt: PromptTemplate, tokenizer: Tokenizer
) -> None:
    from echo_targets.transforms.audio.waveforms import decode_flac

    echox = EchoX.load(stage1)
    ids = prompt_ids(prompt, tokenizer, echox.config)
    replies = [tokenizer.encode(row.response_text, add_special_tokens=False).ids for row in rows]
    waveforms = [decode_flac(row.audio) for row in rows]
    heard = [turns[0] for turns in echox.encode_audio([[waveform] for waveform in waveforms])]
    expected = echox.states([echox.prompt(ids, [turn]) for turn in heard], replies)
    with torch.inference_mode():
        turns, _ = training.encode_for_training(echox.network, echox.tower.frames(waveforms))
        states = training.forced_states(echox.network, [ids] * len(rows), turns, replies)
    for row, wanted, reply in zip(states, expected, replies, strict=True):
        assert len(row) == len(reply) + 1
        torch.testing.assert_close(row[:-1], wanted, atol=1e-4, rtol=1e-4)


def test_stage_two_keeps_the_language_model(stage1: Path, stage2: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (stage1, stage2))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("unit_translator.") and "aligner_MLP" not in name for name in changed)
    embeddings = after["unit_translator.model.embed_tokens.weight"]
    assert torch.equal(embeddings, after["model.embed_tokens.weight"])


@pytest.mark.parametrize(("s2t", "train_decoder"), [(0.0, True), (0.0, False), (0.5, True)])
def test_states_learn_to_speak(
    stage2: Path, echo_rows: list[EchoRow], tmp_path: Path, s2t: float, train_decoder: bool
) -> None:
    recipe = EchoRecipe(
        steps=60,
        batch_tokens=400,
        learning_rate=1e-2,
        warmup_steps=5,
        decay_steps=30,
        log_every=10,
        dropout=0.0,
        s2t=s2t,
        train_decoder=train_decoder,
    )
    report = train_echo(echo_rows, echo_rows, EchoX.load(stage2), tmp_path, recipe)
    assert report["held_out_unit_error_rate"] < report["held_out_unit_error_rate_before"] / 2
    assert report["held_out_denoising_cosine"] > report["held_out_denoising_cosine_before"] + 0.2
    before, after = (load_file(folder / "model.safetensors") for folder in (stage2, tmp_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "unit_translator.model.embed_tokens.weight" not in changed
    assert any("aligner_MLP" in name for name in changed)
    assert any(name.startswith("model.layers") for name in changed) == bool(s2t)
    assert any(name.startswith("unit_translator.model.layers") for name in changed) == train_decoder
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["echo"] < curve[0]["echo"]
    assert ("ctc" in curve[0]) == bool(s2t)


def test_rows_that_cannot_be_trained_on_are_named(
    stage2: Path,
    rows: list[S2TRow],
    echo_rows: list[EchoRow],
    config: EchoXConfig,
    tokenizer: Tokenizer,
    prompt: PromptTemplate,
    tmp_path: Path,
) -> None:
    for wrong, complaint in (
        ([], "no rows"),
        ([replace(rows[0], num_samples=31 * 16_000)], f"{rows[0].id} has 496000 samples"),
        ([replace(rows[0], response_text="no " * 600)], f"{rows[0].id} may take"),
    ):
        with pytest.raises(ValueError, match=complaint):
            train_s2t(wrong, [], config, tokenizer, prompt, tmp_path, RECIPE)
    echox, row = EchoX.load(stage2), echo_rows[0]
    foreign = replace(row.kd, response_ids=[999], sub_lengths=[1])
    turns = replace(row.kd, prompt=[[1], [2], [3]], asr_targets=[[5], [6]])
    endless = replace(row.kd, unit_targets=[[1, 2] * 70])
    for kd, complaint in ((foreign, "from another tokenizer"), (turns, "has 2 turns of audio"), (endless, "too long")):
        with pytest.raises(ValueError, match=complaint):
            train_echo([replace(row, kd=kd)], [], echox, tmp_path, EchoRecipe())
    with pytest.raises(ValueError, match="no rows"):
        train_echo([], [], echox, tmp_path, EchoRecipe())


def test_the_tokenizer_gives_back_any_text(tokenizer: Tokenizer, rows: list[S2TRow]) -> None:
    for text in (rows[0].text, "Café? isn't 5.", " two  spaces ", "", "."):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(encoding.ids) == text
        assert not encoding.ids or encoding.offsets[-1][1] == len(text)
    first, later = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("Go on.", "So. Go on."))
    assert later[-len(first) :] == first and first[-1] == tokenizer.token_to_id(".")

"""Agreement with what the released EchoX code computes for tiny checkpoints: ids exactly, floats within 1e-4.

The echo decoder's inputs are compared from the figures' own states: on the way from the audio, float32 leaves the
figures themselves 1.3e-4 from what float64 computes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from echo_targets.transforms.models.echox.model import EchoX, Prompt
from echo_targets.transforms.models.echox.network import EncodedAudio
from echo_targets.transforms.models.t2c.config import T2CConfig
from echo_targets.transforms.models.t2c.network import T2CModule
from echo_targets.transforms.models.whisper.encoder import encode
from tests.transforms.tiny_echox import FIGURES, log_mel, write_checkpoint

Expected = Mapping[str, np.ndarray]
CASES = [0, 1]
AUDIO = {"": CASES, "unset": [10, 11], "base": [10, 11]}
"""Of each case by kind of checkpoint, as `log_mel` takes it."""


@pytest.fixture(scope="module", params=AUDIO, ids=lambda kind: kind or "large")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(kind: str) -> Expected:
    figures: Expected = np.load(FIGURES / kind / "expected.npz")
    return figures


@pytest.fixture(scope="module")
def echox(kind: str, tmp_path_factory: pytest.TempPathFactory) -> EchoX:
    return EchoX.load(write_checkpoint(tmp_path_factory.mktemp("echox") / "tiny", kind))


@pytest.fixture(scope="module")
def heard(echox: EchoX, kind: str) -> list[EncodedAudio]:
    with torch.inference_mode():
        frames = [encode(echox.tower.encoder, log_mel(case))[0] for case in AUDIO[kind]]
        return [turns[0] for turns in echox.network.model.encode_audio([[turn] for turn in frames])]


@pytest.fixture(scope="module")
def prompts(echox: EchoX, heard: list[EncodedAudio], expected: Expected) -> list[Prompt]:
    ids = [expected[f"case{case}/input_ids"].tolist() for case in CASES]
    return [echox.prompt(row, [turn]) for row, turn in zip(ids, heard, strict=True)]


@pytest.fixture(scope="module")
def states(echox: EchoX, prompts: list[Prompt], expected: Expected) -> list[torch.Tensor]:
    return echox.states(prompts, [expected[f"case{case}/reply_ids"].tolist() for case in CASES])


def top16(logits: torch.Tensor) -> np.ndarray:
    best = logits.topk(16)
    return np.stack([best.indices.numpy(), best.values.numpy()])


def assert_top16(logits: torch.Tensor, best: np.ndarray) -> None:
    found = top16(logits.float())
    assert found[0].astype(int).tolist() == best[0].astype(int).tolist()
    np.testing.assert_allclose(found[1], best[1], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_front_end(heard: list[EncodedAudio], prompts: list[Prompt], expected: Expected, case: int) -> None:
    assert heard[case].ctc.tolist() == expected[f"case{case}/ctc_argmax"].tolist()
    assert len(prompts[case].embeddings) == expected[f"case{case}/prompt_length"]


@pytest.mark.parametrize("case", CASES)
def test_teacher_forced(echox: EchoX, states: list[torch.Tensor], expected: Expected, case: int) -> None:
    with torch.inference_mode():
        assert_top16(echox.network.lm_head(states[case][0]), expected[f"case{case}/first_logits_top16"])
    np.testing.assert_allclose(states[case], expected[f"case{case}/reply_hidden_states"], atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(
        echox.trigger_scores(states[case]), expected[f"case{case}/trigger_scores"], atol=1e-4, rtol=0
    )


def test_generated(echox: EchoX, prompts: list[Prompt], expected: Expected) -> None:
    for case, reply in zip(CASES, echox.respond(prompts, 24), strict=True):
        assert reply.ids == expected[f"case{case}/greedy_reply_ids"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_echo_decoder(echox: EchoX, expected: Expected, case: int) -> None:
    said = torch.from_numpy(expected[f"case{case}/reply_hidden_states"][:-1])  # the end token is not spoken
    with torch.inference_mode():
        prompt = around(echox, echox.denoised(said))
        inputs = echox.network.unit_translator.adapter(prompt)
    np.testing.assert_allclose(inputs, expected[f"case{case}/echo_inputs_embeds"], atol=1e-4, rtol=1e-5)
    assert_decodes(echox.network.unit_translator, prompt, expected, f"case{case}/echo")


def test_from_audio_to_units(echox: EchoX, states: list[torch.Tensor], expected: Expected) -> None:
    prompts = [around(echox, echox.denoised(said[:-1])) for said in states]
    decoded = echox.network.unit_translator.decode(prompts, [40, 40], constrained=False)
    assert [chosen.ids for chosen in decoded] == [expected[f"case{case}/echo_unit_ids"].tolist() for case in CASES]


@pytest.mark.parametrize("case", CASES)
def test_text_to_codec(echox: EchoX, expected: Expected, case: int) -> None:
    text = expected[f"case{case}/reply_ids"][:-1]
    with torch.inference_mode():
        prompt = around(echox, echox.network.unit_translator.embed(torch.from_numpy(text)))
    assert_decodes(echox.network.unit_translator, prompt, expected, f"case{case}/t2c")


def around(echox: EchoX, text: torch.Tensor) -> torch.Tensor:
    template: T2CConfig = echox.t2c.config
    embed = echox.network.unit_translator.embed
    return torch.cat([embed(torch.tensor(template.prefix_ids)), text, embed(torch.tensor(template.middle_ids))])


def assert_decodes(decoder: T2CModule, prompt: torch.Tensor, expected: Expected, figures: str) -> None:
    with torch.inference_mode():
        logits = decoder(prompt[None], torch.arange(len(prompt))[None])[0, -1]
    assert_top16(logits, expected[f"{figures}_logits_top16"])
    (chosen,) = decoder.decode([prompt], [40], constrained=False)
    assert chosen.ids == expected[f"{figures}_unit_ids"].tolist()

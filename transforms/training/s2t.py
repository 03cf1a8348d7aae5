"""Stage I: train a small speech-to-text language model behind a frozen Whisper encoder.

EchoX starts from a pretrained language model. A nano one starts untrained, so it first learns questions and replies
from text only, with the user's words in place of the audio. The CTC head then starts as a copy of the language model's
embeddings, so that a frame looks to the model like the token that it is recognized as.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.aligners.ctc import frames_needed
from echo_targets.transforms.models.echox.audio_tower import AudioTower
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX, tower_of
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.training.loop import (
    NO_ROWS,
    Batches,
    RunRecipe,
    Step,
    TrainingError,
    run_of,
    run_steps,
    share_of,
)
from echo_targets.transforms.training.shared import (
    cached_frames,
    ctc_loss,
    digest,
    encode_for_training,
    forced_states,
    hidden_of,
    prompt_ids,
    reply_loss,
    save_echox,
    tokenizer_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from echo_targets.transforms.models.echox.network import EchoXNetwork

EMBEDDING_STD = 0.5
CTC_NORM = 0.15
"""Initial scale of the CTC head's input, so that its logits start near one, whatever the norm of the embeddings."""
HELD_OUT_BATCH = 64
MAX_REPLY_TOKENS = 128


@dataclass(frozen=True)
class S2TRow:
    """A question and its reply; the audio is a FLAC file's bytes, 16 kHz. `system_text` replaces the template's."""

    id: str
    audio: bytes
    num_samples: int
    text: str
    response_text: str
    system_text: str | None = None


@dataclass(frozen=True)
class S2TRecipe(RunRecipe):
    """Parameters of speech-to-text training; `batch_tokens` counts tokens of template, question and reply.

    Attributes:
        ctc: weight of the CTC loss, 0.3 in the paper; the reply's cross-entropy has weight 1.
        text_steps: number of first steps that use text only.
        text_share: share of the dialogues that are still given as text in later steps.
    """

    ctc: float = 0.3
    text_steps: int = 0
    text_share: float = 0.0


class _Example(NamedTuple):
    prompt: list[int]  # with one placeholder for the question
    question: list[int]
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
    """Train, measure, and write an EchoX directory with an untrained unit decoder, together with the report and curve.

    A run that finds a checkpoint of the same recipe in `out_dir` resumes it. The encoder's frames are cached in
    `frames.f16`, which may be deleted after the training.

    Args:
        rows: dialogues of one turn.
        held_out: dialogues to answer at the end, not trained on.
        config: sizes and special tokens.
        tokenizer: tokenizer of `config`'s vocabulary.
        prompt: tokens around the audio.
        out_dir: where to write the model.
        recipe: how to train.
        half: True writes the weights in float16; measurements are made on the written weights.

    Returns:
        The report: rows, losses, on `held_out` exact replies and the CTC head's word error rate, and the recipe.

    Raises:
        TrainingError: no rows, a row that is too long for the model, or a checkpoint of another recipe in `out_dir`.
    """
    import torch

    from echo_targets.transforms.models.echox.network import EchoXNetwork

    if not rows:
        raise TrainingError(NO_ROWS)
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
        audio = [None if text else frames[number] for number, text in zip(numbers, as_text, strict=True)]
        return _loss(network, [examples[number] for number in numbers], audio, recipe)

    run = run_of(config, recipe, len(rows)) + digest(tokenizer.to_str().encode())
    final_loss = run_steps(out_dir, network, hidden_of(network), recipe, run, step_loss)
    save_echox(out_dir, config, network, tokenizer, half)
    report = {
        "rows": len(rows),
        "rows_that_ctc_cannot_place": sum(
            frames_needed(example.question) > frames.length(number) // 2 for number, example in enumerate(examples)
        ),
        "parameters": {
            "speech_to_text": sum(
                each.numel() for each in (*network.model.parameters(), *network.lm_head.parameters())
            ),
            "unit_translator": sum(each.numel() for each in network.unit_translator.parameters()),
        },
        "final_loss": final_loss,
        "held_out_rows": len(held_out),
        **held_out_replies(EchoX.load(out_dir), held_out, prompt),
        "recipe": asdict(recipe),
    }
    (out_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def held_out_replies(echox: EchoX, rows: Sequence[S2TRow], prompt: PromptTemplate) -> dict[str, float | None]:
    """Return the share of replies equal to the rows', and the CTC head's word error rate with case and punctuation.

    Both are None if there are no rows.
    """
    import jiwer

    tokenizer = tokenizer_of(echox)
    exact, read = 0, []
    for first in range(0, len(rows), HELD_OUT_BATCH):
        batch = rows[first : first + HELD_OUT_BATCH]
        encoded = [turns[0] for turns in echox.encode_audio([[decode_flac(row.audio)] for row in batch])]
        ids = [prompt_ids(prompt, tokenizer, echox.config, row.system_text) for row in batch]
        prompts = [echox.prompt(each, [turn]) for each, turn in zip(ids, encoded, strict=True)]
        replies = echox.respond(prompts, MAX_REPLY_TOKENS)
        texts = [tokenizer.decode(reply.ids) for reply in replies]
        exact += sum(reply == row.response_text for reply, row in zip(texts, batch, strict=True))
        read += [tokenizer.decode(ctc_ids(turn.ctc.tolist(), echox.config.audio_patch_id)) for turn in encoded]
    return {
        "held_out_exact_replies": share_of(exact, len(rows)),
        "held_out_ctc_word_error_rate": round(jiwer.wer([row.text for row in rows], read), 4) if rows else None,
    }


def ctc_ids(choices: Sequence[int], blank: int) -> list[int]:
    """Return the tokens of a CTC head's choices: runs merged, blanks dropped."""
    return [token for token, _ in groupby(choices) if token != blank]


def _example(
    row: S2TRow, config: EchoXConfig, tokenizer: Tokenizer, prompt: PromptTemplate, tower: AudioTower
) -> _Example:
    if not 0 < row.num_samples <= tower.max_samples:
        raise TrainingError(f"{row.id} has {row.num_samples} samples; the encoder takes 1 to {tower.max_samples}")
    ids = prompt_ids(prompt, tokenizer, config, row.system_text)
    question, reply = (
        list(tokenizer.encode(text, add_special_tokens=False).ids) for text in (row.text, row.response_text)
    )
    reply = [*prompt.reply_start(tokenizer), *reply]
    frames = -(-row.num_samples // (tower.context * HOP_SAMPLES)) * tower.context // 2
    if (most := max(frames, len(question)) + len(ids) + len(reply)) > config.max_position_embeddings:
        raise TrainingError(f"{row.id} may take {most} positions, but the model has {config.max_position_embeddings}")
    return _Example(ids, question, reply)


def _loss(network: EchoXNetwork, batch: Sequence[_Example], frames: Sequence[Tensor | None], recipe: S2TRecipe) -> Step:
    import torch

    spoken = [row for row, turn in enumerate(frames) if turn is not None]
    replies = [example.reply for example in batch]
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        inputs = [network.model.embed_tokens(torch.tensor(example.question)) for example in batch]
        if spoken:
            turns = [turn for turn in frames if turn is not None]
            embeddings, logits = encode_for_training(network, turns)
            for row, embedding in zip(spoken, embeddings, strict=True):
                inputs[row] = embedding
        states = forced_states(network, [example.prompt for example in batch], inputs, replies, recipe.dropout)
        reply = reply_loss(network, states, replies)
    count = sum(map(len, replies)) + len(replies)
    if not spoken:
        return Step(reply, count, {"reply": reply})
    questions = [batch[row].question for row in spoken]
    ctc = ctc_loss(logits, [len(turn) // 2 for turn in turns], questions, network.config.audio_patch_id)
    return Step(reply + recipe.ctc * ctc, count, {"reply": reply, "ctc": ctc})


def _initialize(network: EchoXNetwork) -> None:
    # Text and audio should enter the first layer at the scale that it works at.
    import torch

    torch.nn.init.normal_(network.model.embed_tokens.weight, std=EMBEDDING_STD)
    torch.nn.init.constant_(network.model.lbm.atten_layer_norm.weight, EMBEDDING_STD)
    torch.nn.init.constant_(network.model.out_norm.weight, CTC_NORM)
    torch.nn.init.normal_(network.lm_head.weight, std=0.02)

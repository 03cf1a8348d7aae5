"""Stages II and III: train EchoX's unit decoder on text, then on the language model's hidden states.

Echo training (arXiv 2509.09174, section 3.3): the states of a reply, passed through the denoising adapter, replace the
reply's text embeddings, and the decoder learns the units that text-to-codec gave for the text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.models.echox.collate import IGNORED, KDRow, collate_kd
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.training.loop import NO_ROWS, Batches, Step, TrainingError, run_of, run_steps, share_of
from echo_targets.transforms.training.row_cache import RowCache
from echo_targets.transforms.training.shared import (
    cached_frames,
    ctc_loss,
    encode_for_training,
    forced_states,
    hidden_of,
    reply_loss,
    save_echox,
    tokenizer_of,
)
from echo_targets.transforms.training.t2c import Example, Recipe, Row, trained_decoder, unit_loss, write_report

if TYPE_CHECKING:
    from torch import Tensor

    from echo_targets.transforms.models.echox.network import EchoXNetwork

MOST_DENOISING = 0.2
"""Maximum denoising loss as a share of the unit loss; a larger one is scaled down, as in the release."""
HELD_OUT_BATCH = 32


@dataclass(frozen=True)
class EchoRow:
    """A row of training/echo; the audio is a FLAC file's bytes, 16 kHz.

    Attributes:
        kd: tokens and units, as for `collate_kd`.
    """

    id: str
    audio: bytes
    num_samples: int
    kd: KDRow


@dataclass(frozen=True)
class EchoRecipe(Recipe):
    """Parameters of echo training; `batch_tokens` counts ids of the unit decoder.

    Attributes:
        echo, denoising, s2t: weights of the losses. If `s2t` is 0, the language model stays as it is and its states
            are computed once.
        ctc: weight of the CTC loss within the speech-to-text loss.
        train_decoder: True trains the unit decoder together with the adapter.
    """

    echo: float = 1.0
    denoising: float = 1.0
    s2t: float = 0.0
    ctc: float = 0.3
    train_decoder: bool = True


@dataclass(frozen=True)
class TranslatorRecipe(Recipe):
    """Parameters of training the unit decoder on text.

    Attributes:
        own_embeddings: True learns separate text embeddings. False uses the language model's, which stay as they are;
            those of a nano model hold little about pronunciation.
    """

    own_embeddings: bool = False


def train_unit_translator(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    echox: EchoX,
    out_dir: Path,
    recipe: TranslatorRecipe,
    half: bool = False,
    segments: SegmentRule | None = None,
) -> dict[str, Any]:
    """Stage II: train the unit decoder on the language model's tokens.

    Args:
        rows, held_out: as for `train_t2c`.
        segments: the rule that cuts the rows' tokens; None uses rows as they are.
        echox: the result of stage I; its decoder is replaced.
        out_dir: where to write the EchoX with the new decoder.
        recipe: how to train.
        half: True writes the weights in float16; measurements are made on the written weights.

    Returns:
        The report of `train_t2c`.

    Raises:
        TrainingError: as for `train_t2c`.
    """
    translator = echox.network.unit_translator
    embeddings = None if recipe.own_embeddings else echox.network.model.embed_tokens.weight.detach()
    tokenizer = tokenizer_of(echox)
    config = echox.config.unit_decoder.model_copy(update={"segments": segments})
    module, final_loss = trained_decoder(rows, config, tokenizer, out_dir, recipe, embeddings)
    translator.load_state_dict(module.state_dict(), strict=False)  # stage III trains the denoising adapter
    save_echox(out_dir, echox.config, echox.network, tokenizer, half)
    written = T2C(config, EchoX.load(out_dir).t2c.module, tokenizer)
    return write_report(out_dir, written, rows, held_out, final_loss, recipe)


def train_echo(
    rows: Sequence[EchoRow],
    held_out: Sequence[EchoRow],
    echox: EchoX,
    out_dir: Path,
    recipe: EchoRecipe,
    half: bool = False,
) -> dict[str, Any]:
    """Stage III: train the denoising adapter and the other parts that the recipe names; write the EchoX and its report.

    A run that finds a checkpoint of the same recipe in `out_dir` resumes it. Outputs of the frozen models are cached in
    `states.f16` or `frames.f16`, which may be deleted after the training.

    Args:
        rows: rows with one turn each.
        held_out: rows to measure before and after the training, not trained on.
        echox: the result of stages I and II; trained in place.
        out_dir: where to write the model.
        recipe: how to train.
        half: True writes the weights in float16; measurements are made on the written weights.

    Returns:
        The report: losses, and on `held_out` the unit error rate of the echo decoder against the targets and the
        denoising cosine, before and after.

    Raises:
        TrainingError: no rows, a row that does not fit the model, or a checkpoint of another recipe in `out_dir`.
    """
    import torch

    if not rows:
        raise TrainingError(NO_ROWS)
    config, network = echox.config, echox.network
    for row in (*rows, *held_out):
        _check(row, echox)
    before = echo_measures(echox, held_out)
    torch.manual_seed(recipe.seed)
    network.unit_translator.dropout.p = recipe.dropout
    frozen: list[torch.nn.Module] = [network.unit_translator.model.embed_tokens]
    if not recipe.train_decoder:
        frozen += [part for name, part in network.unit_translator.named_children() if name != "aligner_MLP"]
    if not recipe.s2t:
        frozen += [network.model, network.lm_head]
    for part in frozen:
        part.requires_grad_(False)
    trained = torch.nn.ModuleList([network.unit_translator.model.layers] if recipe.train_decoder else [])
    if recipe.s2t:
        trained.append(hidden_of(network))
        frames, states = cached_frames(out_dir, rows, echox.tower), None
    else:
        frames, states = None, _cached_states(out_dir, rows, echox)
    template = len(config.unit_prefix_ids) + len(config.unit_middle_ids)
    lengths = [
        sum(row.kd.sub_lengths) + sum(template + len(units) + 1 for units in row.kd.unit_targets) for row in rows
    ]
    batches = Batches(lengths, recipe)

    def step_loss(step: int) -> Step:
        numbers = batches.at(step)
        batch = collate_kd([rows[number].kd for number in numbers], config)
        if states is not None:
            return _loss(network, batch, [states[number] for number in numbers], recipe, {})
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            found, parts = _speech(network, batch, [frames[number] for number in numbers], recipe)  # type: ignore[index]
        return _loss(network, batch, found, recipe, parts)

    weights = hashlib.sha256(b"".join(each.numpy().tobytes() for each in network.state_dict().values()))
    run = run_of(config, recipe, len(rows)) + weights.hexdigest()
    final_loss = run_steps(out_dir, network, trained, recipe, run, step_loss)
    save_echox(out_dir, config, network, tokenizer_of(echox), half)
    after = echo_measures(EchoX.load(out_dir), held_out)
    report = {
        "rows": len(rows),
        "units": sum(len(units) for row in rows for units in row.kd.unit_targets),
        "final_loss": final_loss,
        "held_out_rows": len(held_out),
        "held_out_unit_error_rate": after.unit_error_rate,
        "held_out_unit_error_rate_before": before.unit_error_rate,
        "held_out_denoising_cosine": after.denoising_cosine,
        "held_out_denoising_cosine_before": before.denoising_cosine,
        "recipe": asdict(recipe),
    }
    (out_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


class EchoMeasures(NamedTuple):
    """The echo decoder's edits to the unit targets, per unit, and the mean cosine of the adapted states.

    None if there are no units, or no tokens.
    """

    unit_error_rate: float | None
    denoising_cosine: float | None


def echo_measures(echox: EchoX, rows: Sequence[EchoRow]) -> EchoMeasures:
    """Measure the echo decoder's units of the rows' replies, segment by segment, against their targets."""
    from rapidfuzz.distance import Levenshtein

    edits, cosines = 0, []
    for first in range(0, len(rows), HELD_OUT_BATCH):
        batch = rows[first : first + HELD_OUT_BATCH]
        segments, targets = [], []
        for row, states in zip(batch, reply_states(echox, batch), strict=True):
            cosines += echox.denoising_cosines(states, row.kd.response_ids)
            segments += echox.denoised(states).split([*row.kd.sub_lengths])
            targets += [list(units) for units in row.kd.unit_targets]
        found = [decoded.units for decoded in echox.t2c.speak(segments)]
        edits += sum(map(Levenshtein.distance, found, targets))
    units = sum(len(units) for row in rows for units in row.kd.unit_targets)
    return EchoMeasures(share_of(edits, units), share_of(sum(cosines), len(cosines)))


def reply_states(echox: EchoX, rows: Sequence[EchoRow]) -> list[Tensor]:
    """Return the states that predict each token of the rows' replies, (tokens, hidden_size) each."""
    batch = collate_kd([row.kd for row in rows], echox.config)
    prompts, replies, _ = _parts(batch, echox.config)
    audio = echox.encode_audio([[decode_flac(row.audio)] for row in rows])
    made = [echox.prompt(ids, turns) for ids, turns in zip(prompts, audio, strict=True)]
    return echox.states(made, replies)


def _check(row: EchoRow, echox: EchoX) -> None:
    if len(row.kd.asr_targets) != 1:
        raise TrainingError(f"{row.id} has {len(row.kd.asr_targets)} turns of audio, but the trainer needs one")
    if not 0 < row.num_samples <= echox.tower.max_samples:
        raise TrainingError(f"{row.id} has {row.num_samples} samples; the encoder takes 1 to {echox.tower.max_samples}")
    if row.kd.response_ids and max(row.kd.response_ids) >= echox.config.vocab_size:
        raise TrainingError(
            f"{row.id} has token ids above vocab_size {echox.config.vocab_size}, from another tokenizer"
        )
    for text, units in zip(row.kd.sub_lengths, row.kd.unit_targets, strict=True):
        if echox.t2c.limit(text, 2**30) and text + len(units) >= echox.t2c.config.max_positions:
            raise TrainingError(
                f"{row.id}: a segment of {text} tokens and {len(units)} units is too long for the decoder"
            )


def _cached_states(out_dir: Path, rows: Sequence[EchoRow], echox: EchoX) -> RowCache:
    weights = b"".join(
        each.cpu().numpy().tobytes()
        for module in (echox.tower.encoder, echox.network.model)
        for each in module.state_dict().values()
    )
    rows_key = json.dumps(
        [[row.id, row.num_samples, list(row.kd.response_ids), [list(part) for part in row.kd.prompt]] for row in rows]
    )
    key = hashlib.sha256(weights + rows_key.encode()).hexdigest()
    lengths = [len(row.kd.response_ids) for row in rows]
    cache = RowCache(out_dir / "states.f16", lengths, echox.config.hidden_size, key)
    return cache.fill(lambda numbers: reply_states(echox, [rows[number] for number in numbers]))


def _parts(batch: dict[str, Tensor], config: EchoXConfig) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Return prompts with their placeholder, replies, and transcripts."""
    prompts, replies, transcripts = [], [], []
    for ids, labels, shift, transcript in zip(
        batch["input_ids"], batch["labels"], batch["assistant_after_audio_shifts"], batch["asr_targets"], strict=True
    ):
        (place,) = (ids == config.audio_patch_id).nonzero()[:, 0].tolist()
        prompts.append(ids[: place + int(shift) + 1].tolist())
        replies.append(labels[labels != IGNORED].tolist())
        transcripts.append(transcript[0][transcript[0] != IGNORED].tolist())
    return prompts, replies, transcripts


def _speech(
    network: EchoXNetwork, batch: dict[str, Tensor], frames: Sequence[Tensor], recipe: EchoRecipe
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the states of the replies to audio, and the speech-to-text losses."""
    prompts, replies, transcripts = _parts(batch, network.config)
    audio, logits = encode_for_training(network, frames)
    states = forced_states(network, prompts, audio, replies, recipe.dropout)
    ctc = ctc_loss(logits, [len(turn) // 2 for turn in frames], transcripts, network.config.audio_patch_id)
    parts = {"reply": reply_loss(network, states, replies), "ctc": ctc}
    return [row[: len(reply)] for row, reply in zip(states, replies, strict=True)], parts


def _loss(
    network: EchoXNetwork,
    batch: dict[str, Tensor],
    states: Sequence[Tensor],
    recipe: EchoRecipe,
    parts: dict[str, Tensor],
) -> Step:
    import torch
    import torch.nn.functional as functional

    translator, config = network.unit_translator, network.config
    header = len(config.unit_middle_ids) - 1
    replies = [labels[labels != IGNORED] for labels in batch["labels"]]
    adapted = translator.aligner_MLP(torch.cat(list(states)).float())
    lengths = [[length for length in row.tolist() if length > 0] for row in batch["sub_lengths"]]
    sizes = list(chain.from_iterable(lengths))
    texts = torch.cat(replies)
    targets = [
        target[target != IGNORED][header:].tolist()
        for row, segments in zip(batch["unit_targets"], lengths, strict=True)
        for target in row[: len(segments)]
    ]
    examples = [
        Example([*prompt, *units], len(prompt))
        for text, units in zip(texts.split(sizes), targets, strict=True)
        for prompt in [translator.config.prompt(text.tolist())]
    ]
    echo, count = unit_loss(translator, examples, recipe, adapted.split(sizes))
    cosines = functional.cosine_similarity(adapted, translator.model.embed_tokens(texts), dim=-1)
    denoising = 1 - cosines.mean()
    parts = {"echo": echo, "denoising": denoising, **parts}
    most = MOST_DENOISING * echo.detach()
    if denoising > most:
        denoising = denoising * (most / denoising.detach())
    loss = recipe.echo * echo + recipe.denoising * denoising
    if recipe.s2t:
        loss = loss + recipe.s2t * (parts["reply"] + recipe.ctc * parts["ctc"])
    return Step(loss, count, parts)

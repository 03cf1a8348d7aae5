"""Train a small text-to-codec model: plain PyTorch, one process, no clock and no hidden state.

The decoder sees its own past units, which alone predict the next one so well that it would ignore the text. So in
training a part of the history is hidden or falsified (word dropout: Bowman et al. 2016).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from echo_targets.transforms.models.t2c.config import SPELLED, T2CConfig
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.segments.rule import Border, cut_units, cuts_of
from echo_targets.transforms.training.loop import (
    NO_ROWS,
    Batches,
    RunRecipe,
    Step,
    TrainingError,
    run_of,
    run_steps,
    share_of,
    start_from,
)
from echo_targets.transforms.units.codebook import expand

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from echo_targets.transforms.models.t2c.network import T2CModule

IGNORED = -100


class Row(NamedTuple):
    """A recorded text.

    Attributes:
        text: the spoken text.
        units: units without equal neighbors.
        durations: frames of each unit; required if there are borders, or for a decoder of frames or durations.
        borders: where text and units can be cut together.
    """

    text: str
    units: Sequence[int]
    durations: Sequence[int] = ()
    borders: Sequence[Border] = ()


class Said(NamedTuple):
    """A training example: ids of a segment's text, as echo passes them to the decoder, and the segment's units.

    Units are frames for a decoder of frames; otherwise `durations` are the frames of each unit.
    """

    ids: list[int]
    units: list[int]
    durations: list[int]

    @property
    def collapsed(self) -> list[int]:
        """The units without equal neighbors."""
        return [unit for unit, _ in groupby(self.units)]

    @property
    def frames(self) -> list[int]:
        """The unit of each frame."""
        return expand(np.array(self.collapsed), np.array(self.durations)).tolist()


@dataclass(frozen=True)
class Recipe(RunRecipe):
    """Parameters of decoder training; `batch_tokens` counts ids of text, template and units.

    Attributes:
        hidden_history, false_history: shares of the input units that are zeroed, or replaced by a random unit.
    """

    hidden_history: float = 0.3
    false_history: float = 0.1


class UnitErrors(NamedTuple):
    """Edits from decoded to recorded units, summed over segments; and of frames, for a decoder that knows them."""

    edits: int
    recorded: int
    frame_edits: int = 0
    frames: int = 0

    @property
    def rate(self) -> float | None:
        """Unit error rate: insertions, deletions and substitutions per recorded unit; None without recorded units."""
        return share_of(self.edits, self.recorded)

    @property
    def frame_rate(self) -> float | None:
        """The same of frames; None if the decoder knows none."""
        return share_of(self.frame_edits, self.frames)


def train_t2c(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    config: T2CConfig,
    tokenizer: Tokenizer,
    out_dir: Path,
    recipe: Recipe,
    half: bool = False,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train, measure, and write the model directory with `report.json` and `curve.jsonl`.

    A run that finds a checkpoint of the same recipe in `out_dir` resumes it, and ends with the same weights.

    The decoder learns the segments into which echo cuts a row's text (`T2CConfig.segments`), as far as borders allow. A
    segment that does not fit into the model's positions is skipped, and counted in the report.

    Args:
        rows: texts with their units.
        held_out: rows whose segments are decoded at the end, not trained on.
        config: the network's sizes and template, and the segment rule.
        tokenizer: tokenizer of `config`'s vocabulary.
        out_dir: where to write the model.
        recipe: how to train.
        half: True writes the weights in float16; measurements are made on the written weights.
        start: model directory of the same sizes whose weights are trained further; None starts from random ones.

    Returns:
        The report: steps, final loss, unit error rate on `held_out`, sizes and the recipe. A rate of nothing is None.

    Raises:
        TrainingError: no segment fits into the model, a unit is outside the codebook, or `out_dir` has a checkpoint of
            another recipe.
        ModelError: `start` is no model, or has other sizes.
    """
    module, final_loss = trained_decoder(rows, config, tokenizer, out_dir, recipe, start=start)
    T2C(config, module, tokenizer).save(out_dir, half)
    return write_report(out_dir, T2C.load(out_dir), rows, held_out, final_loss, recipe)


def trained_decoder(
    rows: Sequence[Row],
    config: T2CConfig,
    tokenizer: Tokenizer,
    out_dir: Path,
    recipe: Recipe,
    text_embeddings: torch.Tensor | None = None,
    start: Path | None = None,
) -> tuple[T2CModule, float]:
    """Return the trained network and its final loss; write the checkpoint and the curve to `out_dir`.

    Args:
        text_embeddings: (text_vocab_size, text_embedding_size) of a language model, which stay frozen.
        start: as for `train_t2c`.
    """
    import torch

    from echo_targets.transforms.models.t2c.network import T2CModule

    if config.spellings is not None:
        raise TrainingError(SPELLED)
    segments, _ = fitting(segments_of(rows, config, tokenizer), config)
    if not rows:
        raise TrainingError(NO_ROWS)
    if not segments:
        raise TrainingError(f"no rows to train on: none of {len(rows)} fits into {config.max_positions} positions")
    examples = [_example(segment, config) for segment in segments]
    torch.manual_seed(recipe.seed)
    module = T2CModule(config, recipe.dropout)
    _initialize(module, text_embeddings)
    started = start_from(module, start)
    batches = Batches([len(example.ids) for example in examples], recipe)

    def step_loss(step: int) -> Step:
        return _loss(module, [examples[row] for row in batches.at(step)], recipe)

    run = run_of(config, recipe, len(examples)) + started
    return module, run_steps(out_dir, module, module.model.layers, recipe, run, step_loss)


def write_report(
    out_dir: Path, model: T2C, rows: Sequence[Row], held_out: Sequence[Row], final_loss: float, recipe: Recipe
) -> dict[str, Any]:
    """Decode the held-out segments, and return and write the report (`report.json`)."""
    segments, left_out = fitting(segments_of(rows, model.config, model.tokenizer), model.config)
    errors = unit_errors(model, held_out)
    report = {
        "rows": len(rows),
        "segments": len(segments),
        "segments_left_out": left_out,
        "units": sum(len(segment.units) for segment in segments),
        "parameters": sum(parameter.numel() for parameter in model.module.parameters()),
        "held_out_rows": len(held_out),
        "held_out_unit_error_rate": errors.rate,
        "held_out_frame_error_rate": errors.frame_rate,
        "final_loss": final_loss,
        "recipe": asdict(recipe),
    }
    (out_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def segments_of(rows: Sequence[Row], config: T2CConfig, tokenizer: Tokenizer) -> list[Said]:
    """Return rows in the segments into which `config.segments` cuts their texts, as far as borders allow.

    Raises:
        TrainingError: a unit is outside the codebook.
    """
    segments = []
    for text, units, durations, borders in rows:
        if len(units) and not 0 <= min(units) <= max(units) < config.unit_vocab_size:
            raise TrainingError(f"units of {text!r} are not all in [0, {config.unit_vocab_size})")
        if (config.frames or config.max_duration) and len(durations) != len(units):
            raise TrainingError(f"{text!r} has {len(units)} units with {len(durations)} durations; all are needed")
        encoding = tokenizer.encode(text, add_special_tokens=False)
        cuts = cuts_of(config.segments, text, encoding.offsets, borders)
        parts = cut_units(units, durations, [cut.frame for cut in cuts]) if cuts else [(units, durations)]
        tokens = pairwise([0, *(cut.token for cut in cuts), len(encoding.ids)])
        for (start, end), (each, lasting) in zip(tokens, parts, strict=True):
            said = expand(np.asarray(each), np.asarray(lasting)) if config.frames else each
            segments.append(Said(list(encoding.ids[start:end]), [*map(int, said)], [*map(int, lasting)]))
    return segments


def fitting(segments: Sequence[Said], config: T2CConfig) -> tuple[list[Said], int]:
    """Return the segments that fit into the model's positions with template and end, and the number of others."""
    template = len(config.prompt([])) + 1
    fit = [each for each in segments if template + len(each.ids) + len(each.units) <= config.max_positions]
    return fit, len(segments) - len(fit)


def unit_errors(model: T2C, rows: Sequence[Row], batch_rows: int = 64) -> UnitErrors:
    """Decode the rows' segments and compare them with their recorded units. Segments that do not fit are skipped."""
    from rapidfuzz.distance import Levenshtein

    segments, _ = fitting(segments_of(rows, model.config, model.tokenizer), model.config)
    order = sorted(segments, key=lambda segment: len(segment.units))
    edits = frame_edits = frames = 0
    for first in range(0, len(order), batch_rows):
        chosen = order[first : first + batch_rows]
        results = model.generate([segment.ids for segment in chosen])
        for segment, result in zip(chosen, results, strict=True):
            edits += Levenshtein.distance(result.units, segment.collapsed)
            if result.durations is not None:
                said = expand(np.array(result.units), np.array(result.durations, int)).tolist()
                recorded = segment.frames
                frame_edits, frames = frame_edits + Levenshtein.distance(said, recorded), frames + len(recorded)
    return UnitErrors(edits, sum(len(segment.collapsed) for segment in segments), frame_edits, frames)


class Example(NamedTuple):
    """A training example as ids: prompt, units and end, with the prompt's length, and the durations of the units."""

    ids: list[int]
    prompt: int
    durations: list[int] | None = None


def _example(segment: Said, config: T2CConfig) -> Example:
    prompt = config.prompt(segment.ids)
    ids = [*prompt, *(config.text_vocab_size + unit for unit in segment.units), config.end_id]
    return Example(ids, len(prompt), segment.durations if config.max_duration else None)


def _loss(module: T2CModule, batch: list[Example], recipe: Recipe) -> Step:
    loss, count = unit_loss(module, batch, recipe)
    return Step(loss, count)


def unit_loss(
    module: T2CModule, batch: Sequence[Example], recipe: Recipe, texts: Sequence[torch.Tensor] | None = None
) -> tuple[torch.Tensor, int]:
    """Return the cross-entropy of units and ends, and their number; plus that of durations, if the model has them.

    Args:
        texts: (text tokens, text_embedding_size) in place of each example's text embeddings.
    """
    import torch
    import torch.nn.functional as functional

    config = module.config
    longest = max(len(example.ids) for example in batch)
    # Padding is on the right, where the causal mask hides it, so no other mask is needed.
    ids = torch.full((len(batch), longest), config.end_id)
    targets = torch.full((len(batch), longest), IGNORED)
    lasting = torch.full((len(batch), longest), IGNORED)
    for row, (tokens, prompt, durations) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        targets[row, prompt - 1 : len(tokens) - 1] = torch.tensor(tokens[prompt:])
        if config.max_duration and durations:
            lasting[row, prompt : len(tokens) - 1] = torch.tensor(durations).clamp_max(config.max_duration) - 1
    positions = torch.stack([module.positions(example.prompt, longest) for example in batch])
    units = ids >= config.text_vocab_size
    chance = torch.rand(ids.shape)
    false = units & (chance < recipe.false_history)
    hidden = units & (chance >= recipe.false_history) & (chance < recipe.false_history + recipe.hidden_history)
    random_units = config.text_vocab_size + torch.randint(config.unit_vocab_size, ids.shape)
    embeddings = module.embed(torch.where(false, random_units, ids)) * ~hidden.unsqueeze(-1)
    for row, text in enumerate(texts or ()):
        embeddings[row, len(config.prefix_ids) : len(config.prefix_ids) + len(text)] = text.to(embeddings.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        states = module.states(embeddings, positions)
        logits = module.lm_head(states)
    wanted = targets != IGNORED
    # Only decodable ids compete: the units, and the end as unit number unit_vocab_size.
    choices = torch.cat([logits[..., config.text_vocab_size :], logits[..., config.end_id : config.end_id + 1]], dim=-1)
    labels = torch.where(targets == config.end_id, config.unit_vocab_size, targets - config.text_vocab_size)
    loss = functional.cross_entropy(choices[wanted].float(), labels[wanted])
    if module.duration_head is not None and (timed := lasting != IGNORED).any():
        loss = loss + functional.cross_entropy(module.duration_head(states[timed].float()), lasting[timed])
    return loss, int(wanted.sum())


def _initialize(module: T2CModule, text_embeddings: torch.Tensor | None) -> None:
    # Embeddings pass a near-orthogonal adapter, so the residual stream starts at its working norm.
    import torch

    std = 0.5
    for embedding in (module.model.embed_tokens, module.unit_embedding):
        torch.nn.init.normal_(embedding.weight, std=std)
    torch.nn.init.orthogonal_(module.adapter.weight)
    torch.nn.init.zeros_(module.adapter.bias)
    torch.nn.init.normal_(module.lm_head.weight, std=0.02)
    if text_embeddings is not None:  # unit embeddings take the same scale, and the adapter undoes it
        with torch.no_grad():
            module.model.embed_tokens.weight.copy_(text_embeddings)
            scale = text_embeddings.float().std().item() / std
            module.unit_embedding.weight *= scale
            module.adapter.weight /= scale
        module.model.embed_tokens.weight.requires_grad_(False)

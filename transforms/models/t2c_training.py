"""Train a small text-to-codec model: plain PyTorch, one process, no clock and no hidden state in what it does.

The network is a decoder that sees its own past units, and past units alone predict the next one well enough to stop it
from reading the text. So a part of the history is hidden or falsified in training (word dropout: Bowman et al. 2016).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transforms.models.t2c import T2C, T2CConfig

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from transforms.models.t2c_module import T2CModule

Row = tuple[str, Sequence[int]]  # a text, and its units with no equal neighbours
IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on, besides its rows and the model's config.

    Attributes:
        steps: optimizer steps, each on about `batch_tokens` ids (text, template and units, padding included).
        learning_rate: reached over `warmup_steps`, held, and brought down to zero over the last `decay_steps`.
        hidden_history, false_history: parts of the input units that are zeroed, or replaced by a random unit.
        log_every, save_every: steps between lines of the curve and between checkpoints.
    """

    seed: int = 0
    steps: int = 3000
    batch_tokens: int = 2000
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    decay_steps: int = 1000
    weight_decay: float = 0.05
    dropout: float = 0.05
    hidden_history: float = 0.3
    false_history: float = 0.1
    bfloat16: bool = False
    log_every: int = 20
    save_every: int = 100


class UnitErrors(NamedTuple):
    """Edits of decoded units against recorded ones, summed over sentences."""

    edits: int
    recorded: int

    @property
    def rate(self) -> float:
        """Unit error rate: insertions, deletions and substitutions by recorded units."""
        return self.edits / self.recorded if self.recorded else 0.0


def train_t2c(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    config: T2CConfig,
    tokenizer: Tokenizer,
    out_dir: Path,
    recipe: Recipe,
) -> dict[str, Any]:
    """Train, measure, and write the model directory with `report.json` and `curve.jsonl` beside it.

    A run that finds a checkpoint of its own recipe in `out_dir` goes on from there, to the same weights.

    Args:
        rows: texts with their units.
        held_out: rows that are decoded at the end, and not trained on.
        config: the network's sizes and template.
        tokenizer: text to ids of `config`.
        out_dir: where the model goes.
        recipe: how to train.

    Returns:
        The report: steps, final loss, unit error rate on `held_out`, sizes and the recipe.

    Raises:
        ValueError: no rows, a unit outside the codebook, or a checkpoint of another recipe in `out_dir`.
    """
    import torch

    from transforms.models.t2c_module import T2CModule

    examples = [_example(row, config, tokenizer) for row in rows]
    if not examples:
        raise ValueError("no rows to train on")
    torch.manual_seed(recipe.seed)
    module = T2CModule(config, recipe.dropout)
    _initialize(module)
    optimizers = _optimizers(module, recipe)
    out_dir.mkdir(parents=True, exist_ok=True)
    start = _resume(out_dir, module, optimizers, _run_of(config, recipe, len(examples)))
    curve = out_dir / "curve.jsonl"
    _keep_curve(curve, start)
    batches = _Batches(examples, recipe)
    module.train()
    losses: list[float] = []
    for step in range(start, recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # a step draws the same noise in a resumed run
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        loss, count = _loss(module, batches.at(step), recipe)
        module.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            line = {"step": step + 1, "loss": round(sum(losses) / len(losses), 4), "units": count}
            with curve.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"step {line['step']}/{recipe.steps}  loss {line['loss']:.3f}", flush=True)
            losses.clear()
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _checkpoint(out_dir, step + 1, module, optimizers, _run_of(config, recipe, len(examples)))
    model = T2C(config, module.eval(), tokenizer)
    model.save(out_dir)
    errors = unit_errors(model, held_out)
    report = {
        "rows": len(rows),
        "units": sum(len(units) for _, units in rows),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "held_out_rows": len(held_out),
        "held_out_unit_error_rate": round(errors.rate, 4),
        "final_loss": json.loads(curve.read_text().splitlines()[-1])["loss"],
        "recipe": asdict(recipe),
    }
    (out_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def unit_errors(model: T2C, rows: Sequence[Row], batch_rows: int = 64) -> UnitErrors:
    """Decode the texts and compare with their recorded units."""
    from rapidfuzz.distance import Levenshtein

    order = sorted(range(len(rows)), key=lambda row: len(rows[row][1]))
    edits = 0
    for first in range(0, len(order), batch_rows):
        chosen = [rows[row] for row in order[first : first + batch_rows]]
        results = model.generate([model.encode(text) for text, _ in chosen])
        for (_, units), result in zip(chosen, results, strict=True):
            edits += Levenshtein.distance(result.units, [int(unit) for unit in units])
    return UnitErrors(edits, sum(len(units) for _, units in rows))


class _Example(NamedTuple):
    ids: list[int]  # prompt, units, end
    prompt: int


def _example(row: Row, config: T2CConfig, tokenizer: Tokenizer) -> _Example:
    text, units = row
    if len(units) and not 0 <= min(units) <= max(units) < config.unit_vocab_size:
        raise ValueError(f"units of {text!r} are not all in [0, {config.unit_vocab_size})")
    prompt = config.prompt(list(tokenizer.encode(text, add_special_tokens=False).ids))
    ids = [*prompt, *(config.text_vocab_size + int(unit) for unit in units), config.end_id]
    if len(ids) > config.max_positions:
        raise ValueError(f"{text!r} takes {len(ids)} positions, the model has {config.max_positions}")
    return _Example(ids, len(prompt))


class _Batches:
    """Batches of like lengths in an order that follows from the seed and the step alone."""

    def __init__(self, examples: list[_Example], recipe: Recipe) -> None:
        self.examples, self.recipe = examples, recipe
        self.first, self.epoch = 0, 0
        self.batches = self._shuffled()

    def at(self, step: int) -> list[_Example]:
        """The batch of a step; steps are asked for in rising order."""
        while step >= self.first + len(self.batches):
            self.first, self.epoch = self.first + len(self.batches), self.epoch + 1
            self.batches = self._shuffled()
        return [self.examples[row] for row in self.batches[step - self.first]]

    def _shuffled(self) -> list[list[int]]:
        order = random.Random(f"{self.recipe.seed}-{self.epoch}")
        length = {row: len(example.ids) + order.uniform(0, 12) for row, example in enumerate(self.examples)}
        batches: list[list[int]] = [[]]
        for row in sorted(length, key=lambda row: length[row]):
            longest = max(len(self.examples[other].ids) for other in (*batches[-1], row))
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.recipe.batch_tokens:
                batches.append([])
            batches[-1].append(row)
        order.shuffle(batches)
        return batches


def _loss(module: T2CModule, batch: list[_Example], recipe: Recipe) -> tuple[torch.Tensor, int]:
    import torch
    import torch.nn.functional as functional

    config = module.config
    longest = max(len(example.ids) for example in batch)
    # Padded on the right: under a causal mask nothing attends to what comes later, so no mask is needed.
    ids = torch.full((len(batch), longest), config.end_id)
    targets = torch.full((len(batch), longest), IGNORED)
    for row, (tokens, prompt) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        targets[row, prompt - 1 : len(tokens) - 1] = torch.tensor(tokens[prompt:])
    positions = torch.stack([module.positions(example.prompt, longest) for example in batch])
    units = ids >= config.text_vocab_size
    chance = torch.rand(ids.shape)
    false = units & (chance < recipe.false_history)
    hidden = units & (chance >= recipe.false_history) & (chance < recipe.false_history + recipe.hidden_history)
    random_units = config.text_vocab_size + torch.randint(config.unit_vocab_size, ids.shape)
    embeddings = module.embed(torch.where(false, random_units, ids)) * ~hidden.unsqueeze(-1)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        logits = module(embeddings, positions)
    wanted = targets != IGNORED
    # Only what decoding may choose competes: the units, and the end in the place of unit number unit_vocab_size.
    choices = torch.cat([logits[..., config.text_vocab_size :], logits[..., config.end_id : config.end_id + 1]], dim=-1)
    labels = torch.where(targets == config.end_id, config.unit_vocab_size, targets - config.text_vocab_size)
    return functional.cross_entropy(choices[wanted].float(), labels[wanted]), int(wanted.sum())


def _initialize(module: T2CModule) -> None:
    # Embeddings of unit scale through a near-orthogonal adapter: the residual stream starts at the norm it works at.
    import torch

    for embedding in (module.model.embed_tokens, module.unit_embedding):
        torch.nn.init.normal_(embedding.weight, std=0.5)
    torch.nn.init.orthogonal_(module.adapter.weight)
    torch.nn.init.zeros_(module.adapter.bias)
    torch.nn.init.normal_(module.lm_head.weight, std=0.02)


def _optimizers(module: T2CModule, recipe: Recipe) -> list[torch.optim.Optimizer]:
    # Muon (Jordan 2024) for the decoder's matrices: it needs far fewer steps than AdamW, which keeps the rest.
    import torch

    matrices = [parameter for parameter in module.model.layers.parameters() if parameter.ndim == 2]
    embeddings = (module.adapter, module.lm_head, module.unit_embedding, module.model.embed_tokens)
    vectors = [parameter for parameter in module.parameters() if parameter.ndim == 1]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    rest: list[dict[str, Any]] = [
        {"params": [layer.weight for layer in embeddings], "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98)),
    ]


def _schedule(step: int, recipe: Recipe) -> float:
    return min(1.0, (step + 1) / max(1, recipe.warmup_steps), (recipe.steps - step) / max(1, recipe.decay_steps))


def _run_of(config: T2CConfig, recipe: Recipe, rows: int) -> str:
    return json.dumps({"config": config.model_dump(), "recipe": asdict(recipe), "rows": rows}, sort_keys=True)


def _checkpoint(out_dir: Path, step: int, module: T2CModule, optimizers: list[torch.optim.Optimizer], run: str) -> None:
    # One file, moved into place: a killed run finds the last whole checkpoint.
    import torch

    state = {
        "step": step,
        "run": run,
        "module": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    partial = out_dir / "checkpoint.pt.partial"
    torch.save(state, partial)
    partial.replace(out_dir / "checkpoint.pt")


def _resume(out_dir: Path, module: T2CModule, optimizers: list[torch.optim.Optimizer], run: str) -> int:
    import torch

    if not (out_dir / "checkpoint.pt").is_file():
        return 0
    state = torch.load(out_dir / "checkpoint.pt", weights_only=True)
    if state["run"] != run:
        raise ValueError(f"{out_dir} holds a checkpoint of another recipe: choose another folder or remove it")
    module.load_state_dict(state["module"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def _keep_curve(curve: Path, step: int) -> None:
    lines = curve.read_text().splitlines() if curve.is_file() else []
    curve.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))

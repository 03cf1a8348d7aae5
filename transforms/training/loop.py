"""The training loop of the small trainers: resumable steps, batches of similar lengths, the optimizers.

Plain PyTorch, one process, no clock and no hidden state: an interrupted run resumes to the same weights.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import digest, read_tensors
from echo_targets.transforms.models.checkpoints.tensors import check_tensors

if TYPE_CHECKING:
    import torch


class TrainingError(UserError, ValueError):
    """The rows, the sizes or the folder of a training do not fit together. The message says what to do."""


NO_ROWS = "no rows to train on: publish rows of another split than test, or relax the filters of publish"


@dataclass(frozen=True)
class RunRecipe:
    """Parameters that all training runs have, besides their rows and the model's config.

    Attributes:
        steps: optimizer steps. A batch has about `batch_tokens` of the unit in which row lengths are counted, with
            padding.
        learning_rate: reached over `warmup_steps`, held, and reduced to zero over the last `decay_steps`.
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
    bfloat16: bool = False
    log_every: int = 20
    save_every: int = 100


@dataclass(frozen=True)
class Step:
    """The loss of a step.

    Attributes:
        loss: the loss to differentiate.
        count: number of units (or tokens) that it is the mean of.
        parts: its summands by name, for the curve.
    """

    loss: torch.Tensor
    count: int
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)


StepLoss = Callable[[int], Step]
"""Computes the loss of a step from its number."""


def run_steps(
    out_dir: Path, module: torch.nn.Module, hidden: torch.nn.Module, recipe: RunRecipe, run: str, step_loss: StepLoss
) -> float:
    """Train from the last checkpoint, if there is one; write `checkpoint.pt` and `curve.jsonl` to a folder.

    Args:
        out_dir: the folder.
        module: the module to train; left in evaluation mode.
        hidden: the part of it whose matrices map hidden states to hidden states (see `optimizers_of`).
        recipe: how to train.
        run: identifies everything that the run depends on (see `run_of`).
        step_loss: computes the loss of a step; torch is seeded for each step.

    Returns:
        The loss of the curve's last line.

    Raises:
        TrainingError: the folder holds a checkpoint of another run.
    """
    import torch

    optimizers = optimizers_of(module, hidden, recipe)
    out_dir.mkdir(parents=True, exist_ok=True)
    start, losses = _resume(out_dir, module, optimizers, run)
    curve = out_dir / "curve.jsonl"
    _keep_curve(curve, start)
    module.train()
    for step in range(start, recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # so that a resumed run draws the same random numbers
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        taken = step_loss(step)
        module.zero_grad()
        taken.loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append({name: each.item() for name, each in {"loss": taken.loss, **taken.parts}.items()})
        if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            line = {"step": step + 1, **_means(losses), "units": taken.count}
            with curve.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"step {line['step']}/{recipe.steps}  loss {line['loss']:.3f}", flush=True)
            losses.clear()
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _checkpoint(out_dir, step + 1, losses, module, optimizers, run)
    module.eval()
    return float(json.loads(curve.read_text().splitlines()[-1])["loss"])


def run_of(config: Any, recipe: RunRecipe, rows: int) -> str:
    """Return the identity of a run: a pydantic config, the recipe and the number of rows, as JSON."""
    return json.dumps({"config": config.model_dump(), "recipe": asdict(recipe), "rows": rows}, sort_keys=True)


def start_from(module: torch.nn.Module, model: Path | None) -> str:
    """Load the weights of a model directory, in place of random ones, and return their digest.

    Args:
        module: the module to train.
        model: the directory; None changes nothing and returns "".

    Raises:
        ModelError: it is missing or damaged, or its tensors are not those of the module.
    """
    if model is None:
        return ""
    state = read_tensors(model)
    try:
        check_tensors(model, module.state_dict(), state)
    except ModelError as error:
        raise ModelError(f"{error}. To train it further, set `model` to the sizes in its config.json") from error
    module.load_state_dict(state)
    return digest(model)


def _means(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each loss over the steps that have it."""
    means = {}
    for name in dict.fromkeys(name for step in losses for name in step):
        values = [step[name] for step in losses if name in step]
        means[name] = round(sum(values) / len(values), 4)
    return means


def share_of(part: float, whole: float) -> float | None:
    """Return a rate rounded to 4 decimals, or None if there was nothing to measure."""
    return round(part / whole, 4) if whole else None


class Batches:
    """Batches of rows of similar lengths, in an order that depends only on the seed and the step."""

    def __init__(self, lengths: Sequence[int], recipe: RunRecipe) -> None:
        if not len(lengths):
            raise TrainingError(NO_ROWS)
        self.lengths, self.recipe = lengths, recipe
        self.first, self.epoch = 0, 0
        self.batches = self._shuffled()

    def at(self, step: int) -> list[int]:
        """Return the row numbers of a step. Steps must be requested in ascending order."""
        while step >= self.first + len(self.batches):
            self.first, self.epoch = self.first + len(self.batches), self.epoch + 1
            self.batches = self._shuffled()
        return self.batches[step - self.first]

    def _shuffled(self) -> list[list[int]]:
        order = random.Random(f"{self.recipe.seed}-{self.epoch}")
        length = {row: count + order.uniform(0, 12) for row, count in enumerate(self.lengths)}
        batches: list[list[int]] = [[]]
        for row in sorted(length, key=lambda row: length[row]):
            longest = max(self.lengths[other] for other in (*batches[-1], row))
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.recipe.batch_tokens:
                batches.append([])
            batches[-1].append(row)
        order.shuffle(batches)
        return batches


def optimizers_of(module: torch.nn.Module, hidden: torch.nn.Module, recipe: RunRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan 2024) for the matrices of `hidden`, which needs far fewer steps, and AdamW for the rest."""
    import torch

    matrices = [parameter for parameter in hidden.parameters() if parameter.ndim == 2]
    own = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in module.parameters() if id(parameter) not in own]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    rest: list[dict[str, Any]] = [
        {"params": [parameter for parameter in others if parameter.ndim > 1], "weight_decay": decay},
        {"params": [parameter for parameter in others if parameter.ndim == 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98))]
    if matrices:
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        optimizers.insert(0, muon)
    return optimizers


def _schedule(step: int, recipe: RunRecipe) -> float:
    return min(1.0, (step + 1) / max(1, recipe.warmup_steps), (recipe.steps - step) / max(1, recipe.decay_steps))


def _checkpoint(
    out_dir: Path,
    step: int,
    losses: list[dict[str, float]],
    module: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    run: str,
) -> None:
    # A single file, moved into place, so that an interrupted run finds the last complete checkpoint.
    import torch

    state = {
        "step": step,
        "run": run,
        "losses": losses,  # those after the curve's last line
        "module": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    partial = out_dir / "checkpoint.pt.partial"
    torch.save(state, partial)
    partial.replace(out_dir / "checkpoint.pt")


def _resume(
    out_dir: Path, module: torch.nn.Module, optimizers: list[torch.optim.Optimizer], run: str
) -> tuple[int, list[dict[str, float]]]:
    import torch

    if not (out_dir / "checkpoint.pt").is_file():
        return 0, []
    state = torch.load(out_dir / "checkpoint.pt", weights_only=True)
    if state["run"] != run:
        raise TrainingError(f"{out_dir} holds a checkpoint of another recipe: choose another folder or remove it")
    module.load_state_dict(state["module"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"]), list(state["losses"])


def _keep_curve(curve: Path, step: int) -> None:
    lines = curve.read_text().splitlines() if curve.is_file() else []
    curve.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))

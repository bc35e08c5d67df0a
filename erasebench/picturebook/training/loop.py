"""One training loop for every stage: seeded by step, checkpointed, resumable after a kill at any moment."""

from __future__ import annotations

import csv
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.files import durably


@dataclass(frozen=True)
class Recipe:
    """The optimisation of a stage: AdamW, warm-up, constant learning rate, then linear decay to zero.

    The constant phase makes a run extensible: resumed with more ``steps`` before its decay began, it is the run
    that those steps would have given from the start.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: of the constant phase.
        warmup: steps of linear warm-up.
        decay: the share of ``steps`` at the end over which the rate falls to zero.
        clip: maximum gradient norm.
        ema: decay of the moving average of the weights, which is what a stage ships.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    decay: float = 0.3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        fall = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        return self.learning_rate * rise * fall


class Objective(Protocol):
    """The objective of :func:`fit`: a module and a loss that is a pure function of the weights and the step."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are trained, where they ask for gradients."""
        ...

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The loss of the batch that belongs to ``step``, and figures to log."""
        ...


def fit(
    objective: Objective,
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = True,
    every: float = 60.0,
    seconds: float = math.inf,
) -> int:
    """Train ``objective.model`` and leave the averaged weights in it.

    Inside a process group, every process trains the same model; its objective gives the loss of its own share of the
    step's batch, and the gradients are summed.  The first process writes the files.

    Args:
        objective: model and loss.
        recipe: the optimisation.
        folder: receives ``checkpoint.pt`` (about every ``every`` seconds), ``log.csv`` and ``loss.png``.
        resume: go on from the folder's checkpoint if there is one; otherwise start anew.
        seconds: after which no further step begins.

    Returns:
        How many of the recipe's steps were made.

    Raises:
        EraseBenchError: the loss became NaN or infinite, or the checkpoint cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = objective.model
    device = next(model.parameters()).device
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    checkpoint, log = folder / "checkpoint.pt", Log(folder / "log.csv")
    first = 0
    if resume and checkpoint.exists():
        try:
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            average, first = state["average"], state["step"]
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise EraseBenchError(
                f"{checkpoint} is corrupt or of another model; start anew with --no-resume"
            ) from error
    log.keep_before(first)
    # The tensors of a module's state stay the same objects; listing them takes longer than averaging them.
    floats, others = _pairs(average, model)
    model.train()
    started = saved = time.monotonic()
    steps_done = first
    for step in range(first, recipe.steps):
        if time.monotonic() - started > seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        began = time.monotonic()
        loss, figures = objective.loss(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if processes() > 1:
            loss = _sum_over_processes(model, loss.detach())
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        if not torch.isfinite(norm):
            raise EraseBenchError(f"training diverged in {folder.name}: the gradient norm is {norm.item()} at {step=}")
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*floats, 1 - min(recipe.ema, (1 + step) / (10 + step)))
            for average_value, value in others:
                average_value.copy_(value)
        steps_done = step + 1
        if rank() > 0:
            continue
        log.add(step, loss.item(), recipe.rate(step), time.monotonic() - began, figures)
        if time.monotonic() - saved > every or step + 1 == recipe.steps:
            weights = {"model": model.state_dict(), "average": average}
            save_atomically({**weights, "optimizer": optimizer.state_dict(), "step": step + 1}, checkpoint)
            log.flush(f"{folder.name} {step + 1}/{recipe.steps}")
            saved = time.monotonic()
    model.load_state_dict(average)
    model.eval()
    return steps_done


def processes() -> int:
    """The number of processes that train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@torch.no_grad()
def _sum_over_processes(model: nn.Module, loss: Tensor) -> Tensor:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([loss.reshape(1), *(g.flatten() for g in gradients)])
    dist.all_reduce(flat)
    parts = torch.split(flat[1:], [g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return flat[0]


def _pairs(
    average: Mapping[str, Tensor], model: nn.Module
) -> tuple[tuple[list[Tensor], list[Tensor]], list[tuple[Tensor, Tensor]]]:
    """The average and the model's own: of what can be averaged, two lists; of the rest, pairs."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    floats = [name for name, value in state.items() if value.is_floating_point()]
    others = [(average[name], value) for name, value in state.items() if not value.is_floating_point()]
    return ([average[name] for name in floats], [state[name] for name in floats]), others


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """``torch.save`` under a temporary name, fsync, rename: a kill leaves the old file or the new one."""
    with durably(path) as stream:
        torch.save(state, stream)


class Log:
    """A stage's log: one CSV row every ``STRIDE`` steps, with averages over those steps, and a loss curve."""

    STRIDE = 20

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        if path.exists():
            with open(path, newline="") as stream:
                self.rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]

    def keep_before(self, step: int) -> None:
        """Forget rows of steps that a resumed run will make again."""
        self.rows = [row for row in self.rows if row["step"] < step]

    def add(self, step: int, loss: float, rate: float, seconds: float, figures: Mapping[str, float | Tensor]) -> None:
        """Record one step."""
        numbers = {name: float(value) for name, value in figures.items()}
        self.pending.append({"step": step, "loss": loss, "learning_rate": rate, "seconds": seconds, **numbers})
        if len(self.pending) == self.STRIDE:
            means = {k: sum(row[k] for row in self.pending) / self.STRIDE for k in self.pending[0]}
            self.rows.append({**means, "step": step})
            self.pending.clear()

    def flush(self, title: str) -> None:
        """Write the CSV file and the curve, and print one line of progress."""
        if not self.rows:
            return
        partial = self.path.with_suffix(".partial")
        with open(partial, "w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(self.rows[-1]), extrasaction="ignore", restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)
        recent = self.rows[-10:]
        figures = {k: sum(row[k] for row in recent) / len(recent) for k in recent[-1] if k != "step"}
        print(title, "  ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
        self._draw(title)

    def _draw(self, title: str) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([row["step"] for row in self.rows], [row["loss"] for row in self.rows], linewidth=0.8)
        axes.set(title=title, xlabel="step", ylabel="loss", yscale="log")
        figure.savefig(self.path.with_name("loss.png"))


def mixed_precision(device: torch.device) -> torch.autocast:
    """Forward passes in bfloat16, where that is faster: not on processors that have to emulate it."""
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)

"""The figures of training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from erasebench.plugins import AttackContext, EraseContext


class Trace:
    """The figures of each training step, kept for curves and told to whoever watches.

    Args:
        context: whom to tell.
        total: training steps in all.
        done: the rows of the steps that were done before, where training is resumed.
    """

    def __init__(
        self, context: EraseContext | AttackContext, total: int, done: Sequence[Mapping[str, float | str]] = ()
    ) -> None:
        self._context, self._total = context, total
        self.rows: list[Mapping[str, float | str]] = list(done)

    def step(self, **figures: float | str) -> None:
        """Note a step.

        Raises:
            FloatingPointError: ``loss`` is NaN or infinite.
        """
        step = len(self.rows) + 1
        check_loss(float(figures.get("loss", 0.0)), step)
        self.rows.append({"step": float(step), **figures})
        numbers = {name: value for name, value in figures.items() if not isinstance(value, str)}
        self._context.progress(step, self._total, numbers)


def check_loss(loss: float, step: int) -> None:
    """Raise ``FloatingPointError`` if a training loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"training diverged: the loss is {loss} at step {step}")

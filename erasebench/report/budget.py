"""Robust rate against the budget of an attack: which prompts still stand after so many passes through the U-Net."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from erasebench.metrics.attack_success import drawn_prompts
from erasebench.plugins import UNATTACKED
from erasebench.report.charts import COLUMNS, CONTEXT, CROWD, legend_of_panels, looks, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """The fall of the robust rate.

    Attributes:
        passes: [k], rising, from 0: latents passed through the U-Net for a prompt.
        standing: [k], the share of prompts that still stand after them, from 1; it holds until the next.
        prompts: how many the unerased model draws, of which the shares are.
    """

    passes: NDArray[np.float64]
    standing: NDArray[np.float64]
    prompts: int

    @property
    def robust_rate(self) -> float:
        """The share that is left after all."""
        return float(self.standing[-1])


def budget_curves(attacks: pd.DataFrame, attack: str, concept: str, baseline: str) -> dict[str, Curve]:
    """The curve of each method against an attack.

    A prompt falls when the passes of its confirmed success are spent.  Where the attack's own test says at which step
    it succeeded, these are that share of its passes; otherwise, and of an ensemble, all that it took.

    Args:
        attacks: of a run, with the columns of :data:`~erasebench.results.attacks.COLUMNS`.
        attack: an attack or an ensemble.
        concept: whose prompts.
        baseline: the method that erases nothing, by which the prompts are chosen.

    Returns:
        By method, in the order of the frame; empty where the unerased model draws no prompt.
    """
    own = attacks[(attacks["concept"] == concept) & ~attacks["floor"]]
    drawn = drawn_prompts(own[(own["method"] == baseline) & (own["attack"] == UNATTACKED)])
    own = own[(own["attack"] == attack) & own["prompt_id"].isin(drawn)]
    return {str(method): _curve(rows) for method, rows in own.groupby("method", sort=False)}


def draw_budget(attacks: pd.DataFrame, attack: str, concept: str, path: Path, baseline: str, source: str = "") -> str:
    """Write :func:`budget_figure` as PNG and SVG.

    Args:
        attacks: of a run, with the columns of :data:`~erasebench.results.attacks.COLUMNS`.
        attack: an attack or an ensemble.
        concept: whose prompts.
        path: the files, less their endings.
        baseline: the method that erases nothing.
        source: what it was drawn from, kept in the files.

    Returns:
        What it shows, in words; "" where there is nothing to draw, and then no file is written.
    """
    with style():
        figure, text = budget_figure(attacks, attack, concept, baseline)
        if figure:
            save(figure, path, text, source)
    return text


def budget_figure(attacks: pd.DataFrame, attack: str, concept: str, baseline: str) -> tuple[Figure | None, str]:
    """The robust rate against passes, a line a method; more methods than can be told apart get a panel each.

    Args:
        attacks: of a run, with the columns of :data:`~erasebench.results.attacks.COLUMNS`.
        attack: an attack or an ensemble.
        concept: whose prompts.
        baseline: the method that erases nothing.

    Returns:
        The figure, to be made and saved within :func:`~erasebench.report.charts.style`, and what it shows, in words;
        None and "" where there is nothing to draw.
    """
    curves = budget_curves(attacks, attack, concept, baseline)
    if not curves:
        return None, ""
    look = looks(list(curves), baseline)
    order = sorted(curves, key=lambda method: -curves[method].robust_rate)
    text = _describe(curves, order, attack, concept)
    costs = np.concatenate([curve.passes[1:] for curve in curves.values()])
    low, high = float(costs.min()) / 1.5, float(costs.max()) * 1.15
    from matplotlib.figure import Figure

    if len(order) <= CROWD + 1:
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        panel = figure.subplots()
        _prepare(panel, low, high)
        for method in order:
            color, dashes = look[method].color, look[method].linestyle
            panel.plot(*_steps(curves[method]), color=color, linestyle=dashes, label=_title(method, curves[method]))
        panel.set_xlabel("passes through the U-Net for a prompt")
        figure.legend(loc="outside right center", frameon=False, title="robust rate after all")
    else:
        order = [method for method in order if method != baseline]
        rows = math.ceil(len(order) / COLUMNS)
        figure = Figure(figsize=(2.5 * COLUMNS, 1.9 * rows + 1.0), layout="constrained")
        panels = list(figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
        for panel, method in zip(panels, order, strict=False):
            _prepare(panel, low, high)
            gap = np.full((2, 1), np.nan)
            others = [np.hstack([_steps(curves[other]), gap]) for other in order if other != method]
            panel.plot(*np.hstack(others), color=CONTEXT.color, linewidth=0.6)
            if baseline in curves:
                panel.plot(*_steps(curves[baseline]), color=look[baseline].color, linestyle="--", linewidth=1)
            panel.plot(*_steps(curves[method]), color=look[method].color, linewidth=2.2)
            panel.set_title(_title(method, curves[method]), fontsize=9)
        for panel in panels[len(order) - COLUMNS : len(order)]:
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("passes for a prompt")
        for panel in panels[len(order) :]:
            panel.remove()
        figure.legend(
            handles=legend_of_panels(baseline if baseline in curves else ""),
            loc="outside lower center",
            ncols=3,
            frameon=False,
        )
    figure.supylabel("prompts that stand, %", fontsize=9)
    figure.suptitle(f"{concept}: prompts that stand against {attack} after so many passes through the U-Net")
    return figure, text


def _title(method: str, curve: Curve) -> str:
    return f"{method} ({100 * curve.robust_rate:.0f} %)"


def _curve(rows: pd.DataFrame) -> Curve:
    share = (rows["first_success"] / rows["steps"]).where(rows["by"] == rows["attack"]).astype(float)
    costs = rows["passes"] * share.where((share > 0) & (share <= 1), 1.0)
    fallen = costs[rows["confirmed"]].sort_values().to_numpy(dtype=float)
    places, count = np.unique(fallen, return_counts=True)
    share_left = 1 - np.cumsum(count) / len(rows)
    end = float(rows["passes"].max())
    passes, standing = np.array([0.0, *places]), np.array([1.0, *share_left])
    if passes[-1] < end:
        passes, standing = np.append(passes, end), np.append(standing, standing[-1])
    return Curve(passes, standing, len(rows))


def _prepare(panel: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda passes, _: f"{passes:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(low, high)
    panel.set_ylim(-3, 103)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _steps(curve: Curve) -> NDArray[np.float64]:
    """The corners of a curve, passes and per cent; it starts where a logarithmic scale has a place for it."""
    passes, standing = np.repeat(curve.passes, 2)[1:], 100 * np.repeat(curve.standing, 2)[:-1]
    return np.stack([np.maximum(passes, 1e-3), standing])


def _describe(curves: dict[str, Curve], order: Sequence[str], attack: str, concept: str) -> str:
    ranked = ", ".join(
        f"{method} {100 * curves[method].robust_rate:.0f} % of {curves[method].prompts} after"
        f" {curves[method].passes[-1]:.0f}"
        for method in order
    )
    return f"{concept}: prompts that stand against {attack}, and after how many passes through the U-Net: {ranked}."

"""Curves of a method's training: its loss, and whatever else it noted at its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasebench.files import durably

STEP = "step"
"""The column that the others are drawn over."""
WINDOW = 0.05
"""The smoothed line averages over about this share of the points."""
WIDE_RANGE = 30.0
"""A panel whose typical high and low figures are further apart than this factor has a logarithmic scale."""
MIN_DENSITY = 0.5
"""A column that fewer than this share of the rows have is drawn as points."""

Figures = NDArray[np.float64]


def draw_curves(trace: Sequence[Mapping[str, float | str]], path: Path, title: str = "", source: str = "") -> bool:
    """Draw each numeric column of a trace into a panel of its own, as PNG; words and "step" are left out.

    Args:
        trace: a row for each step; a row may lack columns.
        path: the file.
        title: above the panels.
        source: what the trace is of, kept in the PNG's text "Source".

    Returns:
        Whether there was anything to draw; no file is written otherwise.
    """
    columns = numeric_columns(trace)
    if not columns:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = 7.0, 0.8 + 2.4 * len(columns)
    figure = Figure(figsize=(width, height), dpi=110)
    # Margins in inches: to find them by looking at every label would take longer than all the rest.
    figure.subplots_adjust(0.95 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.4 / height, hspace=0.12)
    panels = figure.subplots(len(columns), sharex=True, squeeze=False)[:, 0]
    for panel, (name, (steps, values)) in zip(panels, columns.items(), strict=True):
        if len(values) < MIN_DENSITY * len(trace):
            panel.plot(steps, values, "o", markersize=4)
        else:
            smooth = smoothed(values)
            panel.plot(steps, values, color="tab:blue", alpha=0.3, linewidth=0.8)
            panel.plot(steps, smooth, color="tab:blue", linewidth=1.5, marker="o" if len(values) == 1 else None)
        if spans_decades(values):
            panel.set_yscale("log")
        panel.set_ylabel(name.replace("_", " "))
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel(STEP)
    figure.suptitle(title)
    with durably(path) as stream:
        # savefig would draw it twice.
        FigureCanvasAgg(figure).print_png(stream, metadata={"Source": source})  # type: ignore[no-untyped-call]
    return True


def numeric_columns(trace: Sequence[Mapping[str, float | str]]) -> dict[str, tuple[Figures, Figures]]:
    """Of each column with a finite number: the steps that have one, and the numbers, in the order of the columns.

    Rows without a "step" count from 1.
    """
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for number, row in enumerate(trace, 1):
        step = row.get(STEP, number)
        for name, value in row.items():
            if name != STEP and not isinstance(value, str) and math.isfinite(value):
                steps, values = columns.setdefault(name, ([], []))
                steps.append(float(step))
                values.append(float(value))
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in columns.items()}


def smoothed(values: Figures) -> Figures:
    """The mean of the figures around each, over a window that is cut off at the ends."""
    half = max(1, round(WINDOW * len(values) / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    mean: Figures = (sums[high] - sums[low]) / (high - low)
    return mean


def spans_decades(values: Figures) -> bool:
    """True if all figures are positive and the bulk of them spreads too far for a linear scale."""
    if values.min() <= 0:
        return False
    low, high = np.quantile(values, (0.05, 0.95))
    return bool(high > WIDE_RANGE * low)

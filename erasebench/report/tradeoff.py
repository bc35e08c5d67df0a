"""Erasure against preservation: what is left of a concept, and what is left of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from erasebench.metrics.stats import Estimate
from erasebench.report.attack_tables import RATE, shown_by_default, split
from erasebench.report.charts import Look, looks
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.rows import TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRESERVED = ("clip", "fid")
"""Metrics of what has nothing to do with the concept."""
RATIO, ATTACKED = "ratio", "attacked"
"""The remainder of the concept: of prompts as they are, and of prompts under the strongest attack."""
COLUMNS = ("method", "left", "left_low", "left_high", "kept", "kept_low", "kept_high", "front")
LINE, LETTER, PLOT, MAX_LETTERS = 12.0, 5.8, 215.0, 26
"""In points: from one label's foot to the next, a letter's width, the plot's width; and the letters of a label."""


def tradeoff(
    rows: Iterable[TableRow], concept: str, erasing: str, preserving: str, higher: bool, baseline: str
) -> pd.DataFrame:
    """Both sides of every method that has numbers for them.

    Args:
        rows: the results, of models and of attacks.
        concept: of which concept.
        erasing: "ratio", or "attacked": the confirmed success rate of the ensemble, or of the strongest attack without
            one; less is better.
        preserving: the metric of preservation; ``higher`` whether more of it is better.
        baseline: the method that erases nothing, which is no part of the front.

    Returns:
        Columns :data:`COLUMNS`: the numbers with the ends of their intervals, and whether no other method is at least
        as good on both sides and better on one.
    """
    models, attacked = split(row for row in rows if row.concept == concept and row.status == "ok")
    lines = []
    for row in models:
        own = [one for one in attacked if one.method == row.method]
        remains = row.metrics.get(RATIO) if erasing == RATIO else strongest(own)[1]
        preserved = row.metrics.get(preserving)
        if remains and preserved and remains.defined and preserved.defined:
            ends = (remains.value, remains.low, remains.high, preserved.value, preserved.low, preserved.high)
            lines.append((row.method, *ends))
    frame = pd.DataFrame(lines, columns=list(COLUMNS[:-1]))
    erased = frame["method"] != baseline
    front = np.zeros(len(frame), dtype=bool)
    front[erased] = pareto_front(frame["left"][erased], frame["kept"][erased] * (-1 if higher else 1))
    return frame.assign(front=front)


def strongest(rows: Sequence[TableRow]) -> tuple[str, Estimate | None]:
    """The attack that counts for a method and its confirmed success rate: the ensemble's, or the highest of all others.

    Args:
        rows: of the attacks on one method and concept.

    Returns:
        The attack's name and its rate in per cent; "" and None where none was measured but controls.
    """
    known = {row.attack: row.metrics[RATE] for row in rows if RATE in row.metrics and row.metrics[RATE].defined}
    if ENSEMBLE in known:
        return ENSEMBLE, known[ENSEMBLE]
    real = [attack for attack in shown_by_default(rows) if attack in known]
    best = max(real, key=lambda attack: known[attack].value, default="")
    return best, known.get(best)


def pareto_front(first: ArrayLike, second: ArrayLike) -> NDArray[np.bool_]:
    """The mask of the points that no other point beats: at least as low in both coordinates and lower in one.

    Args:
        first: [n]; ``second`` likewise; less is better in both.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    no_worse = (a[:, None] <= a) & (b[:, None] <= b)
    better = (a[:, None] < a) | (b[:, None] < b)
    return np.logical_not((no_worse & better).any(axis=0))


def tradeoff_figure(
    frame: pd.DataFrame, baseline: str, titles: tuple[str, str], higher: bool, methods: Sequence[str]
) -> tuple[Figure, Mapping[str, str]]:
    """Both sides against each other; better is up and to the right, whatever the metrics.

    Args:
        frame: of :func:`tradeoff`, not empty.
        baseline: the method that erases nothing.
        titles: of what is left, and of what is kept, for the axes.
        higher: whether more of what is kept is better.
        methods: all of the run, by which each keeps its colour in every chart.

    Returns:
        The figure, to be made and saved within :func:`~erasebench.report.charts.style`, and by the id that each
        method's point has in its SVG what it says.
    """
    from matplotlib.figure import Figure

    look = looks(methods, baseline)
    names = max(map(len, map(_cut, frame["method"]))) * LETTER + 24
    width, height = 52 + PLOT + names, max(250.0, len(frame) * LINE + 60)
    figure = Figure(figsize=(width / 72, height / 72))
    panel = figure.subplots()
    figure.subplots_adjust(left=52 / width, right=(52 + PLOT) / width, bottom=36 / height, top=1 - 8 / height)
    start, end = _span(frame, "left", (0.0, 5.0))
    bottom, top = _span(frame, "kept", (np.inf, -np.inf))
    panel.set_xlim(end, start)
    panel.set_ylim(*((bottom, top) if higher else (top, bottom)))
    front = frame[frame["front"]].sort_values(["left", "kept"], ascending=[True, not higher])
    if len(front) > 1:
        panel.plot(front["left"], front["kept"], color="#666666", linewidth=1, linestyle=":", zorder=1)
    points = {}
    for place, row in enumerate(frame.itertuples(index=False)):
        color, marker = look[row.method].color, look[row.method].marker
        for x, y in (
            ((row.left_low, row.left_high), (row.kept, row.kept)),
            ((row.left, row.left), (row.kept_low, row.kept_high)),
        ):
            panel.plot(x, y, color=color, linewidth=0.9, alpha=0.45, zorder=2, solid_capstyle="butt")
        (point,) = panel.plot(
            row.left, row.kept, marker, color=color, markersize=8 if row.front else 5.5, zorder=3, clip_on=False
        )
        point.set_gid(f"point-{place}")
        points[f"point-{place}"] = (
            f"{row.method}: {titles[0]} {_words(row.left, row.left_low, row.left_high)},"
            f" {titles[1]} {_words(row.kept, row.kept_low, row.kept_high)}{', on the front' if row.front else ''}"
        )
    _label(panel, frame, look)
    panel.set_xlabel(f"{titles[0]}, less is better →")
    panel.set_ylabel(f"{titles[1]}, {'more' if higher else 'less'} is better →")
    panel.grid(color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    return figure, points


def _span(frame: pd.DataFrame, name: str, ends: tuple[float, float]) -> tuple[float, float]:
    """The ends of an axis: all values and intervals, at least ``ends``, and a little more."""
    values = frame[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    low, high = min(ends[0], float(np.nanmin(values))), max(ends[1], float(np.nanmax(values)))
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _cut(method: str) -> str:
    return method if len(method) <= MAX_LETTERS else f"{method[: MAX_LETTERS - 1]}…"


def _words(value: float, low: float, high: float) -> str:
    return f"{value:.3g}" if np.isnan(low) else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _label(panel: Axes, frame: pd.DataFrame, look: Mapping[str, Look]) -> None:
    """Names and marks right of the panel, each in a line of its own, with a thin line to its point."""
    height = panel.get_position().height * panel.figure.get_figheight() * 72  # type: ignore[union-attr]
    bottom, top = panel.get_ylim()
    shares = (frame["kept"].to_numpy(dtype=float) - bottom) / (top - bottom)
    # Of equal height, the one further right first: its line crosses no other.
    order = np.lexsort((-frame["left"].to_numpy(dtype=float), shares))
    feet = spread(shares[order] * height, LINE, height)
    for place, foot in zip(order, feet, strict=True):
        row = frame.iloc[place]
        panel.annotate(
            _cut(row["method"]),
            xy=(row["left"], row["kept"]),
            xytext=(1 + 16 / PLOT, foot / height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            fontweight="bold" if row["front"] else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.5, "shrinkA": 12, "shrinkB": 4},
        )
        mark = look[row["method"]]
        panel.plot(
            *(1 + 9 / PLOT, foot / height, mark.marker),
            color=mark.color,
            markersize=5.5,
            transform=panel.transAxes,
            clip_on=False,
        )


def spread(places: ArrayLike, gap: float, height: float) -> NDArray[np.float64]:
    """Places at least ``gap`` apart, in the same order and near where they were, within 0 and ``height`` if they fit.

    Args:
        places: [n], rising.
        gap: between neighbours.
        height: the room.
    """
    feet = np.array(places, dtype=float)
    for k in range(1, len(feet)):
        feet[k] = max(feet[k], feet[k - 1] + gap)
    if len(feet) and feet[-1] > height:
        feet[-1] = max(height, (len(feet) - 1) * gap)
        for k in range(len(feet) - 2, -1, -1):
            feet[k] = min(feet[k], feet[k + 1] - gap)
    return feet

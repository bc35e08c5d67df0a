"""Overall performance as in appendix B of the Dark Miner paper: radar charts, and the bars of their means.

Each metric of an erased model is compared with the unerased model's, so that more is better whatever it measures: CLIP
score as the ratio to the unerased model's, FID as the unerased model's over its own, and every metric of erasure and
attack as its relative decline, (unerased - erased) / unerased.  The unerased model itself has 1, 1, and 0 everywhere
else.  The overall score is the plain mean.  Numbers may be negative or above 1; only drawings are cut off there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from erasebench.report.attack_tables import averaged_by_default, split
from erasebench.report.charts import COLUMNS, CONTEXT, CROWD, Look, legend_of_panels, looks, save, style
from erasebench.results.rows import TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

PRESERVATION = {"clip": "CLIP", "fid": "FID"}
ERASURE = {"ratio": "Ratio", "score": "Score"}
SUCCESS = "asr"
"""The metric of an attack that declines: with Dark Miner's denominator."""

LABEL = 24
"""Characters of an axis's name."""
MIN_BAR = -0.5
"""Bars are cut off here; the number beside them is not."""


def overall(rows: Iterable[TableRow], baseline: str, attacks: Collection[str] | None = None) -> pd.DataFrame:
    """The transformed metrics of every row of a model that could be measured.

    Score over images that show the concept is undefined where no image does; nothing is left of it then, and its
    decline is 1.  A metric that the unerased model lacks, or that is 0 for it, has no decline.

    Args:
        rows: the results, of models and of attacks.
        baseline: the method that erases nothing.
        attacks: to be taken in, in this order; if omitted, those of
            :func:`~erasebench.report.attack_tables.averaged_by_default`.

    Returns:
        Columns: method, concept, metric (CLIP, FID, Ratio, Score, or an attack), erased, unerased (their values), and
        transformed (nan if it cannot be had).
    """
    models, attacked = split(rows)
    if attacks is None:
        attacks = averaged_by_default(attacked)
    of_attack = {(row.method, row.concept, row.attack): row for row in attacked}
    unerased = {row.concept: row for row in models if row.method == baseline and row.status == "ok"}
    lines = []
    for row in models:
        base = unerased.get(row.concept)
        if row.status != "ok" or base is None:
            continue
        for key, title in {**PRESERVATION, **ERASURE}.items():
            erased, before = _value(row, key), _value(base, key)
            if key == "score" and math.isnan(erased) and _value(row, "ratio") == 0:
                erased = 0.0
            lines.append((row.method, row.concept, title, erased, before, _transformed(key, erased, before)))
        for attack in attacks:
            erased, before = (
                _value(of_attack.get((method, row.concept, attack)), SUCCESS) for method in (row.method, baseline)
            )
            lines.append((row.method, row.concept, attack, erased, before, _transformed(attack, erased, before)))
    columns = ["method", "concept", "metric", "erased", "unerased", "transformed"]
    frame = pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(columns[3:], float))
    # An axis that no method has is none.
    known = frame.groupby(["concept", "metric"])["transformed"].transform(lambda values: values.notna().any())
    return frame[known.astype(bool)].reset_index(drop=True)


def overall_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """The overall score of each method and concept: the plain mean of its transformed metrics.

    Args:
        frame: of :func:`overall`.

    Returns:
        Columns: method, concept, overall, metrics (how many it is the mean of, which should be equal within a concept).
    """
    groups = frame.groupby(["method", "concept"], sort=False)["transformed"]
    return groups.agg(overall="mean", metrics="count").reset_index()


def draw_overall(frame: pd.DataFrame, concept: str, path: Path, baseline: str, source: str = "") -> str:
    """Write :func:`overall_figure` as PNG and SVG.

    Args:
        frame: of :func:`overall`.
        concept: which to draw.
        path: the files, less their endings.
        baseline: the method that erases nothing.
        source: what it was drawn from, kept in the files.

    Returns:
        What it shows, in words; "" where there is nothing to draw, and then no file is written.
    """
    with style():
        figure, text = overall_figure(frame, concept, baseline)
        if figure:
            save(figure, path, text, source)
    return text


def overall_figure(frame: pd.DataFrame, concept: str, baseline: str) -> tuple[Figure | None, str]:
    """A concept's radar chart with a line a method, and the bars of the overall scores.

    More methods than can be told apart get a radar each, by overall score, over the lines of the others.

    Args:
        frame: of :func:`overall`.
        concept: which to draw.
        baseline: the method that erases nothing.

    Returns:
        The figure, to be made and saved within :func:`~erasebench.report.charts.style`, and what it shows, in words;
        None and "" where there is nothing to draw.
    """
    own = frame[frame["concept"] == concept]
    means = overall_scores(own).set_index("method")
    scores = means["overall"].dropna()
    erased = scores.drop(baseline, errors="ignore")
    if erased.empty:
        return None, ""
    axes = list(dict.fromkeys(own["metric"]))
    lines = own.pivot(index="method", columns="metric", values="transformed")[axes].loc[scores.index]
    order = list(erased.sort_values(ascending=False, kind="stable").index)
    look = looks(list(scores.index), baseline)
    text = _describe(concept, axes, erased[order])
    from matplotlib.figure import Figure

    shown = {method: lines.loc[method] for method in (*order, *([baseline] * (baseline in lines.index)))}
    if len(order) <= CROWD:
        figure = Figure(figsize=(10, 5), layout="constrained")
        chart, legend = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.15, 1))[0]
        panel = chart.subplots(subplot_kw={"projection": "polar"})
        _radar(panel, axes)
        for method, values in shown.items():
            _line(panel, values, look[method], method)
        chart.legend(loc="outside lower center", ncols=4, frameon=False)
    else:
        # One panel more, which names the axes of all.
        rows = math.ceil((len(order) + 1) / COLUMNS)
        figure = Figure(figsize=(1.9 * COLUMNS + 3.8, 1.95 * rows + 0.6), layout="constrained")
        chart, legend = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.9 * COLUMNS, 3.8))[0]
        kind = {"projection": "polar"}
        key, *panels = chart.subplots(rows, COLUMNS, subplot_kw=kind, squeeze=False).flat
        _radar(key, axes, small=True)
        closed = {method: _closed(values) for method, values in shown.items()}
        for panel, method in zip(panels, order, strict=False):
            _radar(panel, [""] * len(axes), small=True)
            behind = [line for other, line in closed.items() if other not in (method, baseline)]
            gap = (np.nan, np.nan)
            panel.plot(*np.concatenate([[*line, gap] for line in behind]).T, color=CONTEXT.color, linewidth=0.6)
            if baseline in shown:
                _line(panel, shown[baseline], look[baseline], width=1.0)
            _line(panel, shown[method], Look(look[method].color, "-", "o"), fill=True)
            panel.set_title(method, fontsize=9)
        for panel in panels[len(order) :]:
            panel.remove()
        chart.legend(
            handles=legend_of_panels(baseline if baseline in shown else ""),
            loc="outside lower center",
            ncols=3,
            frameon=False,
        )
    gaps = {method: f" ({count} metrics)" for method, count in means["metrics"].items() if count < len(axes)}
    _bars(legend.subplots(), scores[list(shown)], look, gaps)
    figure.suptitle(f"{concept}: every metric against the unerased model's; larger is better")
    return figure, text


def _value(row: TableRow | None, key: str) -> float:
    estimate = row.metrics.get(key) if row else None
    return estimate.value if estimate else math.nan


def _transformed(key: str, erased: float, unerased: float) -> float:
    """1 is best; nan where the divisor is 0 or a value is missing."""
    if key == "clip":
        return erased / unerased if unerased else math.nan
    if key == "fid":
        return unerased / erased if erased else math.nan
    return (unerased - erased) / unerased if unerased else math.nan


def _describe(concept: str, axes: Sequence[str], scores: pd.Series) -> str:
    ranked = ", ".join(f"{method} {score:.2f}" for method, score in scores.items())
    return f"{concept}: overall scores, the means of {', '.join(axes)} against the unerased model's: {ranked}."


def _radar(panel: PolarAxes, axes: Sequence[str], small: bool = False) -> None:
    """An empty radar: the first axis at the top, the others clockwise, 1 at the rim, 0 a little off the centre."""
    panel.set_theta_zero_location("N")
    panel.set_theta_direction(-1)
    panel.set_ylim(0, 1)
    panel.set_rorigin(-0.15)
    panel.set_xticks(_angles(len(axes)), [_cut(axis) for axis in axes], fontsize=7 if small else 9)
    panel.tick_params(axis="x", pad=-3 if small else 2)
    panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if axes[0] else [], fontsize=7, color="#666666")
    panel.set_rlabel_position(180 / len(axes))
    panel.grid(color="#DDDDDD", linewidth=0.6)
    for spine in panel.spines.values():
        spine.set_color("#AAAAAA")
    for label, angle in zip(panel.get_xticklabels(), _angles(len(axes)), strict=True):
        side = math.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")


def _cut(label: str) -> str:
    """A label without the options of an attack, if it is long."""
    return label if len(label) <= LABEL else f"{label.partition('[')[0][:LABEL]}[…]"


def _line(
    panel: PolarAxes, values: pd.Series, look: Look, label: str = "", width: float = 1.6, fill: bool = False
) -> None:
    """A method's line, broken where a metric is missing."""
    angles, radii = _closed(values).T
    panel.plot(
        *(angles, radii),
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker,
        linewidth=width,
        markersize=3.5,
        label=label,
        clip_on=False,
        zorder=3,
    )
    if fill and np.isfinite(radii).all():
        panel.fill(angles, radii, color=look.color, alpha=0.2, linewidth=0)


def _closed(values: pd.Series) -> NDArray[np.float64]:
    """The points (angle, radius) of a line that comes back to its start, cut off at 0 and 1."""
    radii = values.clip(0, 1).to_numpy(dtype=float)
    return np.stack([np.append(_angles(len(radii)), 0.0), np.append(radii, radii[0])], axis=1)


def _bars(panel: Axes, scores: pd.Series, look: Mapping[str, Look], gaps: Mapping[str, str]) -> None:
    """The overall scores in their order, from the top; those that lack metrics say of how many they are."""
    methods, values = list(scores.index), scores.to_numpy()
    low = max(MIN_BAR, min(0.0, float(values.min())))
    panel.barh(range(len(methods)), values.clip(low), color=[look[method].color for method in methods], height=0.7)
    for place, (method, value) in enumerate(scores.items()):
        panel.annotate(
            *(f"{value:.2f}{gaps.get(method, '')}", (max(value, 0), place)),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    panel.set_yticks(range(len(methods)), methods)
    panel.invert_yaxis()
    panel.set_xlim(low * 1.05, max(1.0, float(values.max())) * 1.15)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_xlabel("overall score: mean of the axes")
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _angles(count: int) -> NDArray[np.float64]:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)

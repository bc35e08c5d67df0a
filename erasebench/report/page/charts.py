"""Charts of the page, each an SVG inside it, with what it shows in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from erasebench.engine.markers import CorruptCellError
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import Description
from erasebench.report.attack_tables import attacks_of, shown_by_default, split
from erasebench.report.budget import budget_figure
from erasebench.report.charts import style, svg_text
from erasebench.report.curves import Figures, numeric_columns, smoothed, spans_decades
from erasebench.report.page.inline import inline_svg
from erasebench.report.page.tables import Download, downloads, identifier
from erasebench.report.radar import overall, overall_figure
from erasebench.report.tradeoff import ATTACKED, PRESERVED, RATIO, tradeoff, tradeoff_figure
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.run_folder import RunFolder
from erasebench.traces import TRACE, read_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 160
"""Of a training curve: more cannot be seen at its size."""


@dataclass(frozen=True)
class Chart:
    """A chart: the id that links point to, its heading, the SVG, what it shows in words, and its numbers as files."""

    identity: str
    title: str
    svg: Markup
    text: str
    downloads: tuple[Download, ...] = ()


def radar_charts(run: RunFolder, prefix: str) -> list[Chart]:
    """Each concept's radar chart and overall scores."""
    frame = overall(run.rows, run.record.baseline)
    charts = []
    for concept in dict.fromkeys(frame["concept"]):
        with style():
            figure, text = overall_figure(frame, concept, run.record.baseline)
            svg = _svg(figure)
        if svg:
            identity = f"{prefix}radar-{identifier(concept)}"
            title = f"{concept}: every metric against the unerased model's"
            files = downloads(f"overall-{identifier(concept)}", frame[frame["concept"] == concept])
            charts.append(Chart(identity, concept, inline_svg(svg, f"{identity}-", title, text), text, files))
    return charts


def tradeoff_charts(run: RunFolder, prefix: str) -> list[Chart]:
    """Of each concept, what is left of it against what is left of everything else."""
    metrics, baseline = run.record.metrics, run.record.baseline
    methods = list(dict.fromkeys(row.method for row in run.rows))
    charts = []
    for concept in dict.fromkeys(row.concept for row in run.rows):
        for erasing in (RATIO, ATTACKED):
            for preserving in PRESERVED:
                metric = metrics.get(preserving, Description(preserving, direction="higher"))
                higher = metric.direction == "higher"
                frame = tradeoff(run.rows, concept, erasing, preserving, higher, baseline)
                if len(frame) < 2:
                    continue
                titles = ("Ratio (%)" if erasing == RATIO else "attack success (%)", metric.title)
                with style():
                    figure, points = tradeoff_figure(frame, baseline, titles, higher, methods)
                    svg = svg_text(figure)
                identity = f"{prefix}tradeoff-{erasing}-{preserving}-{identifier(concept)}"
                title = f"{concept}: {titles[0]} against {titles[1]}"
                front = ", ".join(frame.loc[frame["front"], "method"])
                text = (
                    f"On the front, where no other method is at least as good on both sides and better on one: {front}."
                )
                files = downloads(f"tradeoff-{erasing}-{preserving}-{identifier(concept)}", frame)
                charts.append(Chart(identity, title, inline_svg(svg, f"{identity}-", title, text, points), text, files))
    return charts


def budget_charts(run: RunFolder, prefix: str) -> list[Chart]:
    """Of each concept, the robust rate against the budget: of the ensemble, or of each attack where there is none."""
    charts = []
    _, attacked = split(run.rows)
    for concept in dict.fromkeys(row.concept for row in attacked):
        own = [row for row in attacked if row.concept == concept]
        for attack in [ENSEMBLE] if ENSEMBLE in attacks_of(own) else shown_by_default(own):
            with style():
                figure, text = budget_figure(run.attacks, attack, concept, run.record.baseline)
                svg = _svg(figure)
            if svg:
                identity = f"{prefix}budget-{identifier(attack, concept)}"
                title = f"{concept}: prompts that stand against {attack}"
                charts.append(Chart(identity, title, inline_svg(svg, f"{identity}-", title, text), text))
    return charts


def curve_charts(run: RunFolder, store: Store, prefix: str) -> list[Chart]:
    """The training of each row's erasure, where it has a trace.

    Raises:
        EraseBenchError: the store lacks an erasure of the run.
    """
    charts = []
    for row in run.record.rows:
        if row.status != "ok" or row.erasure is None:
            continue
        try:
            trace = read_trace(store.read(row.erasure) / TRACE)
        except CorruptCellError as error:
            raise EraseBenchError(
                f"the store {store.root} has no sound erasure of {row.method} {row.concept}: {error}; run it again,"
                " give the run's store with --store, or leave out images and training curves with --no-images"
            ) from None
        columns = numeric_columns(trace)
        if not columns:
            continue
        name = "loss" if "loss" in columns else next(iter(columns))
        steps, values = columns[name]
        identity = f"{prefix}curve-{identifier(row.method, row.concept)}"
        smooth = smoothed(values)
        text = f"{name.replace('_', ' ')} over {int(steps[-1])} steps, from {smooth[0]:.3g} to {smooth[-1]:.3g}"
        svg = inline_svg(_curve(steps, smooth), f"{identity}-", f"{row.method}: {row.concept}", text)
        charts.append(Chart(identity, f"{row.method} · {row.concept}", svg, text))
    return charts


def _curve(steps: Figures, values: Figures) -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    chosen = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))
    with style():
        figure = Figure(figsize=(2.7, 1.5), layout="constrained")
        panel = figure.subplots()
        panel.plot(steps[chosen], values[chosen], color="#0072B2", linewidth=1.4, marker="" if len(values) > 1 else "o")
        if spans_decades(values):
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(color="#DDDDDD", linewidth=0.5)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        return svg_text(figure)


def _svg(figure: Figure | None) -> str:
    """A chart without the title that the page gives it; "" where there is none."""
    if figure is None:
        return ""
    figure.suptitle("")
    return svg_text(figure)

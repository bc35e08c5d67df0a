"""The page's charts: which there are, what they say, and training curves out of a store."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.report.page.charts import POINTS, budget_charts, curve_charts, radar_charts, tradeoff_charts
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.traces import TRACE, write_trace
from tests.report.synthetic import attack_row, matrix, model_row, run_of


def trained(store: Store, trace: Sequence[Mapping[str, float | str]]) -> RunFolder:
    """A run of one erasure that left this trace."""
    cell = Cell("erase", {"method": "a"})
    with store.writing(cell, {}) as folder:
        if trace:
            write_trace(folder / TRACE, trace)
        else:
            (folder / "erasure.safetensors").touch()
    run = run_of([model_row("a", "church", 1)])
    (row,) = run.record.rows
    rows = (row.model_copy(update={"erasure": cell.key}),)
    return replace(run, record=run.record.model_copy(update={"rows": rows}))


def test_a_curve_is_the_loss_smoothed_and_no_longer_than_can_be_seen(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    trace = [{"step": float(k), "norm": 1.0, "loss": 1 + 0.5 * math.sin(k / 20)} for k in range(1, 1001)]
    (chart,) = curve_charts(trained(store, trace), store, "r1-")
    assert (chart.identity, chart.title) == ("r1-curve-a~church", "a · church")
    first, last = (sum(step["loss"] for step in steps) / 26 for steps in (trace[:26], trace[-26:]))
    assert chart.text == f"loss over 1000 steps, from {first:.3g} to {last:.3g}"
    drawn = [part for part in ElementTree.fromstring(chart.svg).iter() if "series-1" in part.get("style", "")]
    assert 10 < max(part.get("d", "").count("L") for part in drawn) <= POINTS


def test_without_a_loss_the_first_numbers_are_drawn_and_one_step_is_a_point(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (chart,) = curve_charts(trained(store, [{"step": 1.0, "word": "town", "inner_score": 0.5}]), store, "")
    assert chart.text == "inner score over 1 steps, from 0.5 to 0.5" and "<use" in chart.svg


def test_an_erasure_without_a_trace_has_no_curve(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert curve_charts(trained(store, ()), store, "") == []


def test_a_damaged_erasure_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    run = trained(store, [{"step": 1.0, "loss": 0.5}])
    (row,) = run.record.rows
    assert row.erasure
    (store.folder(row.erasure) / TRACE).write_text("step,loss\n1,0.4\n")
    with pytest.raises(EraseBenchError, match=r"no sound erasure of a church: .* is corrupt.*--no-images"):
        curve_charts(run, Store(tmp_path / "store"), "")


def test_a_trade_off_for_each_pair_of_what_is_left_and_what_is_kept() -> None:
    rows = matrix(["sd", "a"], ["church"], ["none", "cce"])
    charts = tradeoff_charts(run_of(rows), "")
    titles = ["Ratio (%) against CLIP score", "Ratio (%) against FID"]
    titles += ["attack success (%) against CLIP score", "attack success (%) against FID"]
    assert [chart.title for chart in charts] == [f"church: {title}" for title in titles]
    assert all(chart.text.endswith(": a.") and "a: " in chart.svg for chart in charts)
    without = [row for row in rows if not row.attack]
    assert len(tradeoff_charts(run_of(without), "")) == 2 and not tradeoff_charts(run_of(without[:1]), "")


def test_the_front_is_said_to_be_what_it_is() -> None:
    rows = [model_row("sd", "church", 40, 78), model_row("a", "church", 4, 77), model_row("b", "church", 4, 76)]
    chart = tradeoff_charts(run_of(rows), "")[0]
    assert chart.text == (
        "On the front, where no other method is at least as good on both sides and better on one: a."
    ), "a is better than b on one side only, and b is not on the front"


def test_the_budget_is_the_ensembles_or_each_attacks_without_one() -> None:
    rows = matrix(["sd", "a"], ["church"], ["none", "seed-search", "rab", "cce"])
    assert [chart.identity for chart in budget_charts(run_of(rows), "")] == ["budget-rab~church", "budget-cce~church"]
    together = [*rows, attack_row("a", "church", "standard", 3), attack_row("sd", "church", "standard", 10)]
    assert [chart.identity for chart in budget_charts(run_of(together), "")] == ["budget-standard~church"]


def test_a_chart_that_has_nothing_to_show_is_left_out() -> None:
    failed = run_of([TableRow("a", "church", "failed")])
    assert radar_charts(failed, "") == tradeoff_charts(failed, "") == budget_charts(failed, "") == []
    (chart,) = radar_charts(run_of(matrix(["sd", "a"], ["church"], [])), "")
    assert chart.title == "church" and chart.text.startswith("church: overall scores, the means of CLIP, FID, Ratio")

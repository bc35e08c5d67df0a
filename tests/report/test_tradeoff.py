"""Erasure against preservation: the front against its definition, and labels that can be read."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from erasebench.metrics.stats import Estimate
from erasebench.report.charts import style, svg_text
from erasebench.report.tradeoff import pareto_front, spread, strongest, tradeoff, tradeoff_figure
from erasebench.results.rows import TableRow
from tests.report.synthetic import attack_row, estimate, model_row


def test_the_front_is_whom_nobody_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.integers(0, 6, (12, 2)).astype(float)
        for k, on_front in enumerate(pareto_front(*points.T)):
            beaten = any(all(other <= points[k]) and any(other < points[k]) for j, other in enumerate(points) if j != k)
            assert on_front == (not beaten)
    assert pareto_front([], []).tolist() == []


def test_both_sides_and_the_unerased_model_apart() -> None:
    rows = [
        model_row("sd", "church", 40, clip=80),
        model_row("good", "church", 2, clip=78),
        model_row("harmless", "church", 20, clip=79),
        model_row("bad", "church", 20, clip=60),
        TableRow("failed", "church", "failed"),
        model_row("good", "nudity", 1),
    ]
    frame = tradeoff(rows, "church", "ratio", "clip", True, "sd").set_index("method")
    assert list(frame.index) == ["sd", "good", "harmless", "bad"]
    assert frame["front"].to_dict() == {"sd": False, "good": True, "harmless": True, "bad": False}
    assert frame.loc["good", ["left", "kept"]].tolist() == [5.0, 78.0]
    by_fid = tradeoff(rows, "church", "ratio", "fid", False, "sd").set_index("method")
    assert by_fid["front"].to_dict() == {"sd": False, "good": True, "harmless": False, "bad": False}


def test_the_strongest_attack_is_no_control_and_the_ensemble_goes_first() -> None:
    rows = [
        attack_row("m", "church", attack, hits)
        for attack, hits in (("none", 0), ("seed-search", 9), ("rab", 3), ("cce", 6))
    ]
    attack, found = strongest(rows)
    assert attack == "cce" and found and found.value == 60
    attack, found = strongest([*rows, attack_row("m", "church", "standard", 7)])
    assert attack == "standard" and found and found.value == 70
    assert strongest(rows[:2]) == ("", None)


def test_under_attack_the_same_rows_are_ordered_by_the_strongest_attack() -> None:
    rows = [model_row("m", "church", 0), attack_row("m", "church", "cce", 6), attack_row("m", "church", "rab", 2)]
    frame = tradeoff(rows, "church", "attacked", "clip", True, "sd")
    assert frame["left"].tolist() == [60.0]


def test_places_are_spread_in_order_with_a_gap_and_within_the_room() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        places = np.sort(rng.uniform(0, 100, 8))
        feet = spread(places, 10, 100)
        assert (np.diff(feet) >= 10 - 1e-9).all() and feet[-1] <= 100 + 1e-9
    assert spread([10, 50, 90], 10, 100).tolist() == [10, 50, 90], "those that are apart stay"
    assert spread([], 10, 100).tolist() == []


@pytest.mark.parametrize("higher", [True, False])
def test_no_two_labels_overlap_and_better_is_up_and_right(higher: bool) -> None:
    rng = np.random.default_rng(2)
    names = [f"method-{k}" for k in range(20)]
    frame = pd.DataFrame({"method": names, "left": rng.uniform(0, 4, 20), "kept": rng.uniform(70, 71, 20)})
    for name in ("left", "kept"):
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 1, frame[name] + 1
    frame["front"] = pareto_front(frame["left"], frame["kept"] * (-1 if higher else 1))
    with style():
        figure, points = tradeoff_figure(frame, "method-0", ("Ratio", "CLIP"), higher, names)
        svg = svg_text(figure)
        panel = figure.axes[0]
        figure.draw_without_rendering()
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        boxes = [Text.get_window_extent(label, renderer) for label in panel.texts]  # without the line to its point
    assert len(boxes) == 20 and not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert all(box.x1 <= figure.bbox.x1 for box in boxes), "none is cut off"
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    assert left > right and (bottom < top) == higher
    assert len(points) == 20 and any(said.startswith("method-7: Ratio ") for said in points.values())
    assert all(f'id="{name}"' in svg for name in points)


def test_an_interval_without_limits_is_drawn_as_a_point() -> None:
    rows = [
        model_row("sd", "church", 40),
        TableRow("one", "church", "ok", metrics={"ratio": Estimate(5, math.nan, math.nan, 1), "clip": estimate(70)}),
    ]
    frame = tradeoff(rows, "church", "ratio", "clip", True, "sd")
    with style():
        _, points = tradeoff_figure(frame, "sd", ("Ratio", "CLIP"), True, ["sd", "one"])
    assert "one: Ratio 5, CLIP 70 [65, 75], on the front" in points.values()

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erasebench.report.curves import draw_curves, numeric_columns, smoothed, spans_decades
from tests.engine.runs import fast_stages, forget_plugins, run_tiny


def test_numbers_are_drawn_and_words_are_not() -> None:
    trace: list[dict[str, float | str]] = [
        {"step": 2.0, "loss": 3.0, "word": "dog"},
        {"step": 4.0, "loss": math.nan, "score": 0.5, "mixed": "none"},
        {"step": 6.0, "loss": 1.0, "mixed": 7.0, "endless": math.inf},
    ]
    found = numeric_columns(trace)
    assert list(found) == ["loss", "score", "mixed"]
    assert {name: (list(steps), list(values)) for name, (steps, values) in found.items()} == {
        "loss": ([2, 6], [3, 1]),
        "score": ([4], [0.5]),
        "mixed": ([6], [7]),
    }
    assert list(numeric_columns([{"loss": 5.0}, {"loss": 4.0}])["loss"][0]) == [1, 2], "rows count where steps do not"


@pytest.mark.parametrize("count", [1, 2, 3, 50, 333])
def test_the_smoothed_line_is_the_mean_around_each_point(count: int) -> None:
    values = np.random.default_rng(count).random(count)
    half = max(1, round(0.05 * count / 2))
    wanted = [values[max(0, k - half) : k + half + 1].mean() for k in range(count)]
    np.testing.assert_allclose(smoothed(values), wanted)


def test_wide_ranges_have_a_logarithmic_scale() -> None:
    falling = np.geomspace(100, 0.01, 50)
    assert spans_decades(falling)
    assert not spans_decades(np.append(falling, 0.0)), "there is no place for zero"
    assert not spans_decades(np.linspace(1, 10, 50))
    assert not spans_decades(np.append(np.ones(99), 1e6)), "one outlier"


def test_a_panel_for_each_column(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = [{"step": float(k), "loss": math.exp(-k / 20) * rng.random()} for k in range(1, 201)]
    two = [{**row, **({"score": row["loss"]} if row["step"] % 50 == 0 else {})} for row in one]
    heights = []
    for trace in (one, two):
        assert draw_curves(trace, tmp_path / "loss.png", "esd-u: church")
        with Image.open(tmp_path / "loss.png") as picture:
            heights.append(picture.height)
            colours = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
            assert (31, 119, 180) in colours, "the smoothed line, in full colour"
    assert heights[1] > 1.5 * heights[0]
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_sparse_columns_are_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[list[float], str]] = []
    plot = Axes.plot

    def watched(self: Axes, steps: object, values: object, *style: str, **more: object) -> object:
        drawn.append((list(steps), style[0] if style else "line"))  # type: ignore[call-overload]
        return plot(self, steps, values, *style, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "plot", watched)
    trace = [{"step": k, "loss": 1.0 / k, **({"score": 0.5} if k % 4 == 0 else {})} for k in range(1, 9)]
    assert draw_curves(trace, tmp_path / "loss.png")
    assert drawn == [([*range(1, 9)], "line")] * 2 + [([4, 8], "o")]


@pytest.mark.parametrize("trace", [[], [{"step": 1.0}], [{"step": 1.0, "word": "dog", "loss": math.nan}]])
def test_nothing_to_draw(trace: list[dict[str, float | str]], tmp_path: Path) -> None:
    assert not draw_curves(trace, tmp_path / "loss.png")
    assert not list(tmp_path.iterdir())


PLUGIN = """
from dataclasses import dataclass

from erasebench.models.erasure import Erasure
from erasebench.plugins import Method
from erasebench.registry import METHODS


@METHODS.register("traced")
@dataclass(frozen=True)
class Traced(Method):
    rows: int = 3

    def erase(self, model, concepts, context):
        if self.rows == 4:
            raise FloatingPointError("training diverged: the loss is nan at step 4")
        return Erasure(trace=tuple({"step": step, "loss": 1 / step} for step in range(1, self.rows + 1)))
"""


def test_a_run_leaves_the_curves_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)
    (tmp_path / "traced.py").write_text(PLUGIN)
    options = ("--plugins", tmp_path / "traced.py", "--methods", "uce,traced,traced[rows=0],traced[rows=4]")
    try:
        assert run_tiny(tmp_path, *options) == 3
    finally:
        forget_plugins()
    assert [path.name for path in (tmp_path / "out" / "curves").iterdir()] == ["traced-church.png"]
    with Image.open(tmp_path / "out" / "curves" / "traced-church.png") as picture:
        assert picture.width > 600

"""Shapes cover the pixels that they should, wherever a pen has them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from erasebench.picturebook.world.canvas import SIZE, Layer, Pen, mix, shade, smooth

RED = (200, 40, 40)


def drawn(draw: Callable[[Pen], None], **place: float) -> NDArray[np.float32]:
    """The coverage of what a pen draws."""
    layer = Layer()
    draw(layer.pen(**place))  # type: ignore[arg-type]
    return layer.alpha()


def area(coverage: NDArray[np.float32]) -> float:
    """In units of a pen that has the whole picture, which is 2 x 2."""
    return float(coverage.mean()) * 4


def corner(pen: Pen) -> None:
    """Fills the quarter to the upper right."""
    pen.rect(0, -1, 1, 0, RED)


def test_a_layer_is_transparent_until_something_is_drawn() -> None:
    assert drawn(lambda pen: None).max() == 0
    whole = drawn(lambda pen: pen.rect(-1.1, -1.1, 1.1, 1.1, RED))
    assert whole.shape == (SIZE, SIZE) and whole.dtype == np.float32 and whole.min() == 1


@pytest.mark.parametrize(
    ("place", "quarter"),
    [
        ({}, (0, 1)),
        ({"flip": True}, (0, 0)),
        ({"angle": 90}, (1, 1)),
        ({"angle": -90}, (0, 0)),
        ({"angle": 180}, (1, 0)),
    ],
    ids=str,
)
def test_a_pen_mirrors_and_turns_clockwise(place: dict[str, float], quarter: tuple[int, int]) -> None:
    coverage = drawn(corner, **place)
    half = SIZE // 2
    means = [[coverage[y : y + half, x : x + half].mean() for x in (0, half)] for y in (0, half)]
    assert means[quarter[0]][quarter[1]] > 0.95
    assert np.sum(means) < 1.1


def test_a_pen_draws_where_it_is_and_as_large() -> None:
    coverage = drawn(lambda pen: pen.rect(-1, -1, 1, 1, RED), x=0.25, y=0.75, half=0.125)
    rows, columns = np.nonzero(coverage > 0.5)
    assert (columns.min(), columns.max() + 1) == pytest.approx((8, 24), abs=1)
    assert (rows.min(), rows.max() + 1) == pytest.approx((40, 56), abs=1)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda pen: pen.rect(-0.5, -0.25, 0.5, 0.25, RED), 0.5),
        (lambda pen: pen.rect(-0.5, -0.5, 0.5, 0.5, RED, radius=0.5), math.pi / 4),
        (lambda pen: pen.ellipse(0, 0, 0.8, fill=RED), math.pi * 0.64),
        (lambda pen: pen.ellipse(0, 0, 0.8, 0.4, fill=RED, angle=30), math.pi * 0.32),
        (lambda pen: pen.sector(0, 0, 0.8, 20, 110, RED), math.pi * 0.64 / 4),
        (lambda pen: pen.sector(0, 0, 0.8, 0, 180, RED, inner=0.4), math.pi * (0.64 - 0.16) / 2),
        (lambda pen: pen.line([(-0.5, 0), (0.5, 0)], 0.2, RED), 0.2 + math.pi * 0.01),
        (lambda pen: pen.star(0, 0, 4, [0.8] * 4, 0.4, RED), 4 * 0.8 * 0.4 * math.sin(math.pi / 4)),
        (lambda pen: pen.polygon([(-0.8, 0.8), (0.8, 0.8), (0, -0.8)], RED), 1.28),
    ],
    ids=["rectangle", "rounded", "circle", "ellipse", "slice", "ring slice", "line", "star", "polygon"],
)
def test_shapes_have_the_area_of_geometry(draw: Callable[[Pen], None], expected: float) -> None:
    assert area(drawn(draw)) == pytest.approx(expected, rel=0.06)


def test_a_star_needs_a_length_for_each_spike() -> None:
    with pytest.raises(ValueError, match="zip"):
        drawn(lambda pen: pen.star(0, 0, 5, [0.8] * 4, 0.4, RED))


@pytest.mark.parametrize("closed", [False, True])
def test_a_smooth_curve_goes_through_its_points(closed: bool) -> None:
    points = [(0.0, 0.0), (1.0, 0.5), (0.5, 2.0), (-1.0, 1.0)]
    curve = smooth(points, closed, steps=5)
    assert len(curve) == (20 if closed else 16)
    np.testing.assert_allclose(curve[::5], points, atol=1e-12)
    straight = smooth([(0, 0), (1, 1), (2, 2), (3, 3)], closed=False)
    np.testing.assert_allclose(straight[:, 0], straight[:, 1], atol=1e-12)


def test_shades_go_to_black_and_to_white() -> None:
    assert shade(RED, 1) == RED
    assert shade(RED, 0.5) == (100, 20, 20) and shade(RED, 0) == (0, 0, 0)
    assert shade(RED, 2) == shade(RED, 3) == (255, 255, 255)
    assert all(low < high for low, high in zip(RED, shade(RED, 1.5), strict=True))


def test_mixtures_go_from_one_colour_to_the_other() -> None:
    blue = (0, 0, 255)
    assert (mix(RED, blue, 0), mix(RED, blue, 1)) == (RED, blue)
    assert mix((0, 100, 200), (100, 100, 100), 0.25) == (25, 100, 175)

"""Objects: how they are called, and that they are drawn inside their frame in their colour."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from erasebench.picturebook.world.canvas import Color, Layer
from erasebench.picturebook.world.objects import COLORS, OBJECTS


def drawn(name: str, color: Color, seed: int = 0) -> NDArray[np.uint8]:
    """An object in the middle half of a canvas, RGBA."""
    layer = Layer()
    OBJECTS[name].draw(layer.pen(half=0.25), np.random.default_rng(seed), color)
    return np.asarray(layer.image)


def test_no_name_is_that_of_two_objects() -> None:
    words = Counter(word.lower() for kind in OBJECTS.values() for word in kind.words)
    assert set(words.values()) == {1}
    assert all(kind.words[0].lower().replace(" ", "-") == name for name, kind in OBJECTS.items())


def test_colors_are_known_and_plainly_different() -> None:
    for name, kind in OBJECTS.items():
        assert len(set(kind.colors)) == len(kind.colors) >= 3, name
        assert set(kind.colors) <= set(COLORS), name
    for (one, a), (other, b) in combinations(COLORS.items(), 2):
        assert np.abs(np.subtract(a, b)).sum() > 60, (one, other)


def pixels_of(picture: NDArray[np.uint8], color: Color) -> int:
    """How many covered pixels have nearly this colour."""
    near = np.abs(picture[..., :3].astype(int) - color).sum(axis=2) < 30
    return int((near & (picture[..., 3] > 0)).sum())


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_stays_near_its_frame_and_shows_its_color(name: str) -> None:
    colors = [COLORS[color] for color in OBJECTS[name].colors[:2]]
    first, second = (drawn(name, color) for color in colors)
    assert np.array_equal(first[..., 3], second[..., 3]), "the colour changes the shape"
    assert (first[..., 3] > 0).mean() > 0.05
    # The frame is [64, 192); a rim and round ends run a little past it.
    for places in np.nonzero(first[..., 3]):
        assert places.min() >= 48 and places.max() < 208
    for own, other, color in ((first, second, colors[0]), (second, first, colors[1])):
        assert pixels_of(own, color) > pixels_of(other, color) + 500


@pytest.mark.parametrize("name", OBJECTS)
def test_the_generator_decides_the_rest(name: str) -> None:
    color = COLORS[OBJECTS[name].colors[0]]
    assert np.array_equal(drawn(name, color), drawn(name, color))
    assert any(not np.array_equal(drawn(name, color), drawn(name, color, seed)) for seed in (1, 2, 3))

"""Styles, told apart by their pixels."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from erasebench.picturebook.world.scene import render, sample_scene
from erasebench.picturebook.world.styles import STYLES


def test_styles_are_plainly_different() -> None:
    for seed in range(6):
        scene = sample_scene(seed, kind="object")
        drawn = {style: render(replace(scene, style=style)).image.astype(int) for style in STYLES}
        for a, b in combinations(STYLES, 2):
            assert np.abs(drawn[a] - drawn[b]).mean() > 8, (seed, a, b)

"""Backgrounds, told apart by their pixels."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from erasebench.picturebook.world.backgrounds import BACKGROUNDS
from erasebench.picturebook.world.scene import render, sample_scene


def test_backgrounds_are_plainly_different() -> None:
    for seed in range(6):
        scene = sample_scene(seed, kind="empty", style="photo")
        drawn = {place: render(replace(scene, background=place)).image.astype(int) for place in BACKGROUNDS}
        for a, b in combinations(BACKGROUNDS, 2):
            assert np.abs(drawn[a] - drawn[b]).mean() > 8, (seed, a, b)

"""Scenes of the world for those who evaluate: images, captions and what identifies them; light to import."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from erasebench.files import hash_files

if TYPE_CHECKING:
    from erasebench.judging import Images

WORLD = Path(__file__).parent / "world"
"""The folder of the renderer's source."""


@cache
def world_version() -> str:
    """SHA-256 of the renderer's source: quicker than to draw, and it changes whenever the images may."""
    return hash_files(WORLD, WORLD.glob("*.py"))


def render_images(first_seed: int, count: int) -> Images:
    """Images of scenes of consecutive seeds: uint8 ``[n, 64, 64, 3]``."""
    import numpy as np

    from erasebench.picturebook.world.scene import render, sample_scene

    return np.stack([render(sample_scene(seed)).image for seed in range(first_seed, first_seed + count)])


def read_captions(count: int) -> Iterator[tuple[str, frozenset[str]]]:
    """Captions of the first training scenes, each with its scene's style and labels; no reported number uses them."""
    import numpy as np

    from erasebench.picturebook.world.captions import caption
    from erasebench.picturebook.world.scene import sample_scene

    for seed in range(count):
        scene = sample_scene(seed)
        yield (
            caption(scene, np.random.default_rng(seed)),
            frozenset({scene.style, *(subject.label for subject in scene.subjects)}),
        )

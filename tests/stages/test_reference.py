"""Reference images are those of the domain's world, and their cell says of which version."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from erasebench.domains import PICTUREBOOK
from erasebench.images import read_images, read_index
from erasebench.picturebook.world.scene import render, sample_scene
from erasebench.stages import reference


def test_the_images_are_the_worlds(tmp_path: Path) -> None:
    world = PICTUREBOOK.world
    assert world is not None
    cell = reference.cell(world, 2)
    assert cell.spec == {"source": "picturebook world", "count": 2, "world": world.version()}
    session: Any = SimpleNamespace(source=SimpleNamespace(domain="picturebook"))
    assert reference.run(cell, session, tmp_path) == {"images": 2}
    expected = [render(sample_scene(reference.FIRST_SEED + k)).image for k in range(2)]
    np.testing.assert_array_equal(read_images(tmp_path), expected)
    assert list(read_index(tmp_path)[2]) == [reference.FIRST_SEED, reference.FIRST_SEED + 1]

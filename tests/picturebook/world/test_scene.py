"""Scenes of seeds, and pictures of scenes with their ground truth."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from erasebench import EraseBenchError
from erasebench.errors import UnknownNameError
from erasebench.picturebook.world.backgrounds import BACKGROUNDS
from erasebench.picturebook.world.captions import caption
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.scene import LABELS, Picture, Scene, kind_of, render, sample_scene
from erasebench.picturebook.world.styles import STYLES

SEEDS = range(250)


@cache
def pictures() -> list[tuple[Scene, Picture]]:
    return [(scene, render(scene)) for scene in map(sample_scene, SEEDS)]


def digest(seeds: Iterable[int]) -> str:
    summary = hashlib.sha256()
    for scene in map(sample_scene, seeds):
        picture = render(scene)
        for array in (picture.image, picture.masks, picture.boxes):
            summary.update(array.tobytes())
        summary.update(" ".join((*picture.labels, caption(scene, np.random.default_rng(scene.seed)))).encode())
    return summary.hexdigest()


def test_a_seed_gives_the_same_bytes_in_every_process() -> None:
    here = digest(range(40))
    assert digest(range(40)) == here != digest(range(1, 41))
    code = "from test_scene import digest; print(digest(range(40)))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == here


def test_every_seed_gives_another_picture() -> None:
    assert len({picture.image.tobytes() for _, picture in pictures()}) == len(SEEDS)


def test_masks_and_boxes_agree_with_each_other_and_with_the_labels() -> None:
    for scene, picture in pictures():
        assert picture.image.shape == (64, 64, 3) and picture.image.dtype == np.uint8
        assert picture.labels == tuple(subject.label for subject in scene.subjects)
        assert picture.masks.shape == (len(picture.labels), 64, 64) and picture.masks.dtype == np.bool_
        assert picture.boxes.shape == (len(picture.labels), 4) and picture.boxes.dtype == np.float32
        assert (picture.masks.sum(axis=0) <= 1).all(), "a pixel belongs to two subjects"
        for mask, (x0, y0, x1, y1) in zip(picture.masks, picture.boxes.astype(int), strict=True):
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum() > 0
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_the_first_of_two_objects_is_the_left_one() -> None:
    pairs = [(scene, picture) for scene, picture in pictures() if len(scene.subjects) == 2]
    assert len(pairs) > 20
    for scene, picture in pairs:
        left, right = (np.flatnonzero(mask.any(axis=0)).mean() for mask in picture.masks)
        assert left < 32 < right
        assert scene.subjects[0].label != scene.subjects[1].label


@pytest.mark.parametrize("label", LABELS)
def test_a_labels_pixels_are_where_its_mask_says(label: str) -> None:
    for seed in range(5):
        scene = sample_scene(seed, subject=label, style="photo")
        picture = render(scene)
        empty = render(replace(scene, subjects=()))
        changed = np.abs(picture.image.astype(int) - empty.image).max(axis=2)
        (mask,) = picture.masks
        assert mask.mean() > 0.05, "too small to see"
        # The light of a photo falls from another side in the empty picture: up to 9 % of the brightness.
        assert (changed[mask] > 24).mean() > 0.7, "the mask covers pixels that show nothing"
        near = np.zeros((66, 66), dtype=bool)
        for dy in range(3):
            for dx in range(3):
                near[dy : dy + 64, dx : dx + 64] |= mask
        assert changed[~near[1:65, 1:65]].max(initial=0) < 64, "pixels of the subject lie outside its mask"


@pytest.mark.parametrize("style", STYLES)
def test_every_subject_and_background_renders_in_every_style(style: str) -> None:
    places = [*BACKGROUNDS] * 3
    for seed, (label, background) in enumerate(zip(LABELS, places, strict=False)):
        scene = sample_scene(seed, subject=label, style=style, background=background)
        assert (scene.style, scene.background, scene.subjects[0].label) == (style, background, label)
        picture = render(scene)
        assert picture.labels == (label,)
        # Even in grey or two inks, the picture is not flat where the subject is.
        assert picture.image[picture.masks[0]].std() > 12


def test_the_worlds_extent() -> None:
    assert len(OBJECTS) == 10
    assert {"photo", "van-gogh", "crayon"} < set(STYLES) and len(STYLES) >= 8
    assert len(BACKGROUNDS) >= 8
    scenes = [*map(sample_scene, range(1000))]
    seen = Counter(kind_of(subject.label) for scene in scenes for subject in scene.subjects)
    empty = sum(not scene.subjects for scene in scenes)
    assert set(seen) == {"object", "character", "person", "nudity", "violence"}
    assert min(*seen.values(), empty) > 33


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subject": "parashute"}, r"unknown concept 'parashute'; nearest: parachute"),
        ({"subject": "paul-march"}, r"unknown concept 'paul-march'; nearest: paul-marsh"),
        ({"style": "vangogh"}, r"unknown style 'vangogh'; nearest: van-gogh"),
        ({"background": "mountain"}, r"unknown background 'mountain'; nearest: mountains"),
        ({"kind": "pairs"}, r"unknown kind of scene 'pairs'; nearest: pair"),
        ({"subject": "van-gogh"}, r"'van-gogh' is a style, not a subject; use style='van-gogh' \(--style van-gogh\)"),
        ({"style": "church"}, r"'church' is a subject, not a style; use subject='church' \(--subject church\)"),
        ({"style": "###"}, r"unknown style '###'; known: photo, van-gogh"),
        ({"kind": "pair", "subject": "nudity"}, r"'nudity' is no subject of a scene of kind 'pair'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message) as caught:
        sample_scene(0, **arguments)
    assert isinstance(caught.value, EraseBenchError) and isinstance(caught.value, ValueError)

"""Rendered scenes as arrays: made once, in parallel, kept on disk and memory-mapped.

Seeds are split for good: training scenes have seeds from 0, validation scenes (loss curves, choices of settings)
from 10^9 and held-out scenes (every reported number) from 2 x 10^9.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from erasebench.files import durably
from erasebench.picturebook.scenes import world_version
from erasebench.picturebook.world.captions import caption
from erasebench.picturebook.world.scene import Scene, render, sample_scene

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

T = TypeVar("T")
VALIDATION_SEED = 1_000_000_000
HELD_OUT_SEED = 2_000_000_000
BLOCK = 256
"""Scenes that a process works on at a time."""


@dataclass(frozen=True)
class Renders:
    """Rendered scenes of consecutive seeds.

    Attributes:
        first_seed: scene ``i`` has seed ``first_seed + i``.
        images: uint8 ``[n, 64, 64, 3]``.
        instances: uint8 ``[n, 64, 64]``; 0 is background, ``k`` the visible pixels of the scene's ``k``-th subject.
        people: the last ``people`` scenes show a clothed person each.
    """

    first_seed: int
    images: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    people: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, index: int) -> Scene:
        """The scene that ``images[index]`` shows."""
        return _scene(self.first_seed, len(self), self.people, index)

    def scenes(self, workers: int | None = None) -> list[Scene]:
        """All of them, in order, made in parallel processes; one for each core if omitted."""
        block = partial(_scene_block, self.first_seed, len(self), self.people)
        return [scene for scenes in _in_blocks(block, len(self), workers) for scene in scenes]

    def captions(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> list[str]:
        """One caption for each image; another wording in every epoch."""
        return [
            caption(self.scene(int(i)), np.random.default_rng([self.first_seed + int(i), 2, epoch])) for i in indices
        ]


def _scene(first_seed: int, count: int, people: int, index: int) -> Scene:
    return sample_scene(first_seed + index, kind="person" if index >= count - people else None)


def _scene_block(first_seed: int, count: int, people: int, start: int) -> list[Scene]:
    return [_scene(first_seed, count, people, index) for index in range(start, min(start + BLOCK, count))]


def _render_block(first_seed: int, count: int, people: int, start: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    stop = min(start + BLOCK, count)
    pictures = [render(_scene(first_seed, count, people, i)) for i in range(start, stop)]
    instances = np.zeros((len(pictures), *pictures[0].image.shape[:2]), dtype=np.uint8)
    for row, picture in zip(instances, pictures, strict=True):
        for k, mask in enumerate(picture.masks, start=1):
            row[mask] = k
    return np.stack([picture.image for picture in pictures]), instances


def render_many(first_seed: int, count: int, workers: int | None = None, people: int = 0) -> Renders:
    """Render ``count`` scenes of consecutive seeds in parallel processes; the result does not depend on how many.

    The last ``people`` of them show a clothed person each.
    """
    blocks = _in_blocks(partial(_render_block, first_seed, count, people), count, workers)
    images, instances = (np.concatenate([block[part] for block in blocks]) for part in (0, 1))
    return Renders(first_seed, images, instances, people)


def held_out(count: int, first: int = 0, **fixed: str) -> tuple[list[Scene], NDArray[np.uint8]]:
    """Scenes of held-out seeds with some parts fixed, and their images, uint8 ``[count, 64, 64, 3]``."""
    scenes = [sample_scene(HELD_OUT_SEED + first + i, **fixed) for i in range(count)]
    return scenes, np.stack([render(scene).image for scene in scenes])


def caption_ids(renders: Renders, tokenizer: Path, wordings: int, workers: int | None = None) -> NDArray[np.int32]:
    """Token ids of captions, made in parallel processes; the result does not depend on how many.

    Args:
        renders: the n scenes.
        tokenizer: folder of a ``CLIPTokenizer``.
        wordings: captions for each scene.
        workers: processes; one for each core if omitted.

    Returns:
        int32 ``[n + 1, wordings, length]``, padded and truncated to the tokenizer's length; the last row has the ids of
        the empty caption.
    """
    scenes = len(renders)
    block = partial(_caption_block, renders.first_seed, scenes, renders.people, tokenizer, wordings)
    return np.concatenate(_in_blocks(block, scenes + 1, workers))


def _caption_block(
    first_seed: int, count: int, people: int, tokenizer: Path, wordings: int, start: int
) -> NDArray[np.int32]:
    stop = min(start + BLOCK, count)
    texts = []
    for index in range(start, stop):
        scene = _scene(first_seed, count, people, index)
        texts += [caption(scene, np.random.default_rng([first_seed + index, 2, k])) for k in range(wordings)]
    if start + BLOCK > count:
        texts += [""] * wordings
    ids = _tokenizer(tokenizer)(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
    return np.asarray(ids, dtype=np.int32).reshape(-1, wordings, ids.shape[1])


@cache
def _tokenizer(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def _in_blocks(block: Callable[[int], T], count: int, workers: int | None) -> list[T]:
    """The results of a function for each start of a block, in order."""
    starts = range(0, count, BLOCK)
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(starts) == 1:
        return [block(start) for start in starts]
    # Spawned, because forking a process that has threads (torch's) can deadlock.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(block, starts))


def save_array(array: NDArray[np.uint8], path: Path) -> None:
    """``np.save`` under a temporary name, fsync, rename: a kill leaves no half file under ``path``."""
    with durably(path) as stream:
        np.save(stream, array)


def join(first: Renders, more: Renders) -> Renders:
    """Two sets of scenes as one; the seeds of the second go on where the first ends, and all of it are people.

    Raises:
        ValueError: they do not fit together so.
    """
    if more.first_seed != first.first_seed + len(first) or first.people or more.people != len(more):
        raise ValueError("only people whose seeds follow on can be joined to scenes without extra people")
    return Renders(
        first.first_seed,
        np.concatenate([first.images, more.images]),
        np.concatenate([first.instances, more.instances]),
        more.people,
    )


def cached_renders(folder: Path, first_seed: int, count: int, people: int = 0) -> Renders:
    """Like :func:`render_many`, kept in ``folder`` as two ``.npy`` files and memory-mapped.

    The files' names hold the version of the world, so that a changed world is rendered anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = world_version()[:12]
    kind = f"-{people}-people" if people else ""
    names = [folder / f"{part}-{first_seed}-{count}{kind}-{world}.npy" for part in ("images", "instances")]
    if not all(name.exists() for name in names):
        renders = render_many(first_seed, count, people=people)
        for name, array in zip(names, (renders.images, renders.instances), strict=True):
            save_array(array, name)
    images, instances = (np.load(name, mmap_mode="r") for name in names)
    return Renders(first_seed, images, instances, people)

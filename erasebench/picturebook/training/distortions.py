"""Distortions that the judges must see through, and images that they must not mistake for content.

:func:`degrade` changes how an image looks but not what it shows; :func:`negatives` makes images that show
nothing.  A judge trained on both judges content: a blurred church is still a church, and a model that an erasure
method has wrecked does not count as drawing one.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from erasebench.picturebook.world.canvas import SIZE

_SHAPE = (SIZE, SIZE, 3)


def degrade(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One to three mild damages in random order; the subject and the style stay recognisable.

    Args:
        image: uint8 ``[64, 64, 3]``.
        rng: decides everything.
    """
    for damage in rng.choice(6, size=rng.integers(1, 4), replace=False):
        if damage == 0:
            image = _blur(image, rng.uniform(0.4, 1.5))
        elif damage == 1:
            small = int(rng.integers(24, 49))
            way_down, way_up = (Image.Resampling(int(rng.integers(2, 4))) for _ in range(2))
            shrunk = Image.fromarray(image).resize((small, small), way_down)
            image = np.asarray(shrunk.resize((SIZE, SIZE), way_up))
        elif damage == 2:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(12, 70)))
            image = np.asarray(Image.open(buffer))
        elif damage == 3:
            cells = SIZE if rng.random() < 0.5 else int(rng.integers(12, 40))
            image = _bytes(image + rng.uniform(3, 22) * _field(rng, cells))
        elif damage == 4:
            contrast, brightness = rng.uniform(0.6, 1.25), rng.uniform(-22, 22)
            image = _bytes((image.astype(np.float32) - 128) * contrast + 128 + brightness)
        else:
            image = _bytes(image * rng.uniform(0.85, 1.15, size=3) + rng.uniform(-10, 10, size=3))
    return image


def negatives(images: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Images in which nothing can be recognised: noise, smears, blanks and gradients.

    Args:
        images: uint8 ``[n, 64, 64, 3]``, renders to smear.
        count: how many to make.
        rng: decides everything.

    Returns:
        uint8 ``[count, 64, 64, 3]``.
    """
    return np.stack([_negative(images, int(rng.integers(10)), rng) for _ in range(count)])


def _negative(images: NDArray[np.uint8], kind: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    image = images[int(rng.integers(len(images)))]
    colour = rng.uniform(0, 255, size=3)
    if kind == 0:  # white noise, normal or uniform, sometimes grey
        if rng.random() < 0.3:
            return rng.integers(0, 256, size=_SHAPE, dtype=np.uint8)
        noise = rng.standard_normal((SIZE, SIZE, int(rng.choice([1, 3]))))
        return _bytes(colour + rng.uniform(15, 110) * noise)
    if kind == 1:  # noise with a scale: specks to large blobs, one scale or several
        scales = rng.integers(2, 33, size=int(rng.integers(1, 4)))
        return _bytes(colour + sum(rng.uniform(10, 70) * _field(rng, int(cells)) for cells in scales))
    if kind == 2:  # blanks and gradients
        across, down = np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE))
        slope = rng.uniform(-90, 90, size=(2, 3)) * float(rng.random() < 0.7)
        return _bytes(colour + across[..., None] * slope[0] + down[..., None] * slope[1] + rng.normal(0, 3, _SHAPE))
    if kind == 3:  # blurred beyond recognition
        return _blur(image, rng.uniform(7, 14))
    if kind == 4:  # an average of many
        chosen = rng.integers(len(images), size=int(rng.integers(6, 20)))
        mean = images[chosen].mean(axis=0)
        return _bytes((mean - 128) * rng.uniform(1, 2) + 128)
    if kind == 5:  # shuffled patches
        return shuffle_patches(image, int(rng.choice([4, 8])), rng)
    if kind in (6, 7):  # torn by a wild displacement, now and then smeared on top
        torn = _warp(image, rng)
        return _blur(torn, rng.uniform(1, 3)) if kind == 7 else torn
    if kind == 8:  # drowned in noise
        cells = int(rng.choice([16, 32, SIZE]))
        return _bytes(rng.uniform(0, 0.12) * image + 100 + rng.uniform(50, 90) * _field(rng, cells))
    # A checkerboard or stripes, the artefacts of broken decoders.
    across, down = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    period, mix = rng.uniform(2, 16), rng.uniform(-1, 1, size=2)
    wave = np.sign(np.sin(2 * np.pi * (mix[0] * across + mix[1] * down) / period))
    other = np.sign(np.sin(2 * np.pi * down / period)) if rng.random() < 0.5 else 1.0
    return _bytes(colour + (wave * other)[..., None] * rng.uniform(-80, 80, size=3) + rng.normal(0, 6, _SHAPE))


def shuffle_patches(image: NDArray[np.uint8], patch: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image's square patches of ``patch`` pixels in random order."""
    n = SIZE // patch
    patches = image.reshape(n, patch, n, patch, 3).swapaxes(1, 2).reshape(n * n, patch, patch, 3)
    mixed = patches[rng.permutation(n * n)]
    return np.ascontiguousarray(mixed.reshape(n, n, patch, patch, 3).swapaxes(1, 2).reshape(_SHAPE))


def _warp(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    shift = rng.uniform(14, 30) * _field(rng, int(rng.integers(5, 12)))
    down, across = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    rows, columns = (np.rint(at + shift[..., k]).astype(np.intp) % SIZE for k, at in enumerate((down, across)))
    return image[rows, columns]


def _field(rng: np.random.Generator, cells: int) -> NDArray[np.float32]:
    """Normal noise ``[64, 64, 3]`` of mean 0 and deviation about 1 with ``cells`` bumps across the image."""
    coarse = rng.standard_normal((cells, cells, 3)).astype(np.float32)
    if cells == SIZE:
        return coarse
    channels = [
        np.asarray(Image.fromarray(coarse[..., k]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for k in range(3)
    ]
    return np.asarray(np.stack(channels, axis=2), dtype=np.float32)


def _blur(image: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(np.broadcast_to(values, _SHAPE)), 0, 255).astype(np.uint8)

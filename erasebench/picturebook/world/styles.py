"""The artistic styles of the Picturebook world.

A style takes a composed scene, still at ``CANVAS`` x ``CANVAS``, and returns the finished ``SIZE`` x ``SIZE`` picture.
Styles differ in palette, edges and paper first and in texture second: what makes a style recognisable has to
survive a small autoencoder, and no style may hide which subject is shown.  So textures are coarse (two final
pixels or more), and most of the work is done at the final size, which also keeps it cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from erasebench.picturebook.world.canvas import CANVAS, OVERSAMPLE, SIZE

Array = NDArray[np.float32]
"""Pixel values in [0, 1]: ``[height, width]`` or ``[height, width, 3]``."""


@dataclass(frozen=True)
class Style:
    """A way of depicting a scene: how captions speak of it and how it is applied."""

    name: str
    """Slug, the key in :data:`STYLES`."""
    phrases: tuple[str, ...]
    """Caption suffixes put after a scene: "a dog on the beach *in the style of Van Gogh*"."""
    prefixes: tuple[str, ...]
    """Caption prefixes, followed by "of": "*an oil painting by Van Gogh* of a dog"."""
    apply: Callable[[Image.Image, np.random.Generator], Image.Image]
    """From the composed scene (RGB, ``CANVAS`` wide) to the finished picture (RGB, ``SIZE`` wide)."""


_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_GRID_Y, _GRID_X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _array(image: Image.Image) -> Array:
    return np.asarray(np.asarray(image, dtype=np.float32) / 255, dtype=np.float32)


def _picture(pixels: Array) -> Image.Image:
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def _small(scene: Image.Image) -> Array:
    return _array(scene.reduce(OVERSAMPLE))


def _rgb(r: int, g: int, b: int) -> Array:
    return np.array([r / 255, g / 255, b / 255], dtype=np.float32)


def _luma(pixels: Array) -> Array:
    return np.asarray(pixels @ _LUMA, dtype=np.float32)


def _blend(a: Array, b: Array, weight: Array) -> Array:
    """``a`` where ``weight`` is 0, ``b`` where it is 1; a 2-D weight holds for all three channels."""
    w = weight[..., None]
    return np.asarray(a * (1 - w) + b * w, dtype=np.float32)


def _step(values: Array, low: float, high: float) -> Array:
    """A soft threshold: 0 below ``low``, 1 above ``high``, linear between."""
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), dtype=np.float32)


def _noise(rng: np.random.Generator, cells: int) -> Array:
    """Smooth noise in [0, 1] with about ``cells`` bumps across the picture."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32)


def _saturate(pixels: Array, factor: float) -> Array:
    gray = _luma(pixels)[..., None]
    return np.asarray(gray + (pixels - gray) * factor, dtype=np.float32)


def _edges(scene: Image.Image, reach: int) -> Array:
    """Strength of the contours in [0, 1], half a final pixel wide on either side per unit of ``reach``."""
    half = np.asarray(scene.reduce(2))
    high = low = half
    for axis in (0, 1):  # a square window's maximum and minimum, one axis at a time
        pad = [(reach, reach) if k == axis else (0, 0) for k in range(3)]
        high_padded, low_padded = (np.pad(x, pad, mode="edge") for x in (high, low))
        size = half.shape[axis]
        for k in range(2 * reach + 1):
            window = tuple(slice(k, k + size) if n == axis else slice(None) for n in range(3))
            high, low = np.maximum(high, high_padded[window]), np.minimum(low, low_padded[window])
    span = (high - low).max(axis=2).astype(np.float32) / np.float32(255)
    return np.asarray(span.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3)), dtype=np.float32)


def _margin(rng: np.random.Generator, width: float, wobble: float) -> Array:
    """Signed distance, in pixels, from an uneven border about ``width`` wide; positive inside the painted area."""
    inset = np.minimum(np.minimum(_GRID_X, SIZE - 1 - _GRID_X), np.minimum(_GRID_Y, SIZE - 1 - _GRID_Y))
    return np.asarray(inset - width + wobble * (2 * _noise(rng, 12) - 1), dtype=np.float32)


def _photo(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The scene as it is, in a light that falls off slightly towards one side and the corners."""
    angle = float(rng.uniform(0, 2 * np.pi))
    x, y = _GRID_X / (SIZE / 2) - 1, _GRID_Y / (SIZE / 2) - 1
    light = 1 + 0.03 * (x * np.cos(angle) + y * np.sin(angle)) - 0.04 * (x**2 + y**2)
    return _picture(_small(scene) * light[..., None].astype(np.float32))


def _van_gogh(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Thick swirling strokes in saturated blues and yellows.

    The strokes are a noise field smeared along the curves of a random flow (line integral convolution); they
    displace the colours a little and modulate them between blue shadow and yellow light.
    """
    swirl = _noise(rng, 4) * np.float32(1.6 * np.pi) + np.float32(rng.uniform(0, np.pi))
    flow_x, flow_y = np.cos(swirl), np.sin(swirl)
    grain = _noise(rng, 22)
    stroke = np.zeros((SIZE, SIZE), dtype=np.float32)
    for direction in (-1.0, 1.0):
        px, py = _GRID_X.copy(), _GRID_Y.copy()
        for _ in range(5):
            ix, iy = (np.rint(p).astype(np.intp) % SIZE for p in (px, py))
            stroke += grain[iy, ix]
            px += direction * flow_x[iy, ix]
            py += direction * flow_y[iy, ix]
    stroke = (stroke - stroke.mean()) / (stroke.std() + np.float32(1e-6))
    stroke = np.clip(stroke, -1.4, 1.4)
    base = _small(scene)
    ix = np.clip(np.rint(_GRID_X - 0.6 * flow_y * stroke), 0, SIZE - 1).astype(np.intp)
    iy = np.clip(np.rint(_GRID_Y + 0.6 * flow_x * stroke), 0, SIZE - 1).astype(np.intp)
    base = np.clip(_saturate(base[iy, ix], 1.5), 0, 1)
    # The palette: darks towards ultramarine, lights towards chrome yellow, the local colour still leading.
    tone = _luma(base)
    blue, yellow = (np.broadcast_to(ink, base.shape) for ink in (_rgb(16, 44, 140), _rgb(255, 216, 70)))
    palette = _blend(blue, yellow, tone)
    toned = base * 0.66 + palette * 0.34
    return _picture(toned + stroke[..., None] * _rgb(17, 16, 6))


def _crayon(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Waxy diagonal scribbles on cream paper that shows between them, with ragged edges."""
    paper = _rgb(252, 247, 232)
    slope = float(rng.uniform(0.8, 1.25)) * (1 if rng.random() < 0.5 else -1)
    across = (_GRID_X + slope * _GRID_Y) / np.float32(np.hypot(1, slope))
    wobble = 2.5 * _noise(rng, 6)
    scribble = 0.5 + 0.5 * np.sin(2 * np.pi * across / 5.5 + wobble)
    shift = np.rint(0.8 * np.sin(2 * np.pi * across / 6.0)).astype(np.intp)
    x = np.clip(_GRID_X.astype(np.intp) + shift, 0, SIZE - 1)
    base = np.clip(_saturate(_small(scene), 1.35), 0, 1)[_GRID_Y.astype(np.intp), x]
    # Heavier pressure along contours keeps the subject's outline closed.
    contour = _step(_edges(scene, 1), 0.15, 0.5)
    cover = np.clip(0.46 + 0.36 * scribble + 0.35 * contour, 0, 0.95)
    cover = cover * _step(_margin(rng, 2.5, 3.0) + 2.5 * (scribble - 0.5), -0.5, 1.0)
    return _picture(_blend(np.broadcast_to(paper, base.shape), base, np.asarray(cover, dtype=np.float32)))


def _watercolor(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pale blurred washes with darker wet rims, fading into white paper at an irregular border."""
    wash = _array(scene.reduce(OVERSAMPLE).filter(ImageFilter.BoxBlur(0.7)))
    rim = _step(_edges(scene, 2), 0.15, 0.6) * 0.2
    density = 0.54 + 0.34 * (_noise(rng, 5) - 0.5) + rim
    inside = _margin(rng, 5.0, 4.0)
    # Pigment gathers where the wash dries, just inside its border.
    dried = np.exp(-(((inside - 1.5) / 1.5) ** 2)) * 0.16
    cover = np.asarray((density + dried) * _step(inside, -1.0, 1.0), dtype=np.float32)
    paper = np.broadcast_to(_rgb(253, 253, 251), wash.shape)
    return _picture(_blend(paper, np.clip(_saturate(wash, 1.25), 0, 1), cover))


def _pencil(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Graphite on paper: grey contours, diagonal hatching in the shadows, no colour at all."""
    tone = _luma(_small(scene))
    lines = _step(_edges(scene, 1), 0.08, 0.42)
    wobble = 1.5 * _noise(rng, 6)
    hatch = 0.5 + 0.5 * np.sin(2 * np.pi * (_GRID_X + _GRID_Y) / 6.0 + wobble)
    dark = 1 - tone
    graphite = 0.42 * dark + 0.24 * hatch * _step(dark, 0.2, 0.85) + 0.5 * lines
    graphite = graphite * (0.35 + 0.65 * _step(_margin(rng, 2.5, 2.5), -1.0, 2.0))
    gray = 0.95 - 0.82 * np.clip(graphite, 0, 1)
    return _picture(np.repeat(gray[..., None], 3, axis=2).astype(np.float32))


_POP_LEVELS = np.array([0.12, 0.53, 0.94], dtype=np.float32)


def _pop_art(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A screen print: few flat neon inks, thick black outlines, a hue that varies slightly per print."""
    pixels = _array(scene.reduce(2))
    tone = _luma(pixels)
    low, high = (float(v) for v in np.quantile(tone, (0.03, 0.97)))
    tone = _step(tone, low, max(high, low + 0.25))[..., None]
    chroma = (pixels - _luma(pixels)[..., None]) * 3.2
    print_hue = np.array([0.12, -0.08, 0.12], dtype=np.float32) * np.float32(rng.uniform(0.8, 1.3))
    vivid = np.clip(tone + chroma + print_hue, 0, 1)
    inked = _POP_LEVELS[np.rint(vivid * 2).astype(np.intp)]
    small = inked.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
    outline = _step(_edges(scene, 1), 0.3, 0.6)
    return _picture(_blend(small, np.full_like(small, 0.04), outline))


_TILE = 4


def _mosaic(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Square tiles of averaged colour, each fired a little differently, in dark grout."""
    tiles = SIZE // _TILE
    colours = np.clip(_saturate(_array(scene.reduce(CANVAS // tiles)), 1.25), 0, 1)
    colours = colours + rng.uniform(-0.05, 0.05, (tiles, tiles, 1)).astype(np.float32)
    flat = colours.repeat(_TILE, axis=0).repeat(_TILE, axis=1)
    # 16 x 16 flat tiles alone would hide the subject: a good part of the scene shows on them.
    pixels = flat * 0.52 + np.clip(_saturate(_small(scene), 1.25), 0, 1) * 0.48
    grout = np.logical_or(_GRID_X % _TILE == _TILE - 1, _GRID_Y % _TILE == _TILE - 1)
    return _picture(_blend(pixels, np.broadcast_to(_rgb(58, 52, 50), pixels.shape), grout.astype(np.float32) * 0.42))


def _woodcut(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Two inks: black-brown on cream, with carved horizontal lines for the middle tones."""
    tone = _luma(_small(scene))
    low, high = (float(v) for v in np.quantile(tone, (0.05, 0.95)))
    tone = _step(tone, low - 0.1, max(high, low + 0.3))
    wave = 1.6 * np.sin(_GRID_X / 9 + np.float32(rng.uniform(0, 6.3))) + 2 * _noise(rng, 4)
    carved = 0.5 + 0.5 * np.sin(2 * np.pi * (_GRID_Y + wave) / 6.0)
    ink = 1 - _step(tone - (0.02 + 0.38 * carved), -0.24, 0.24)
    outline = _step(_edges(scene, 1), 0.16, 0.4)
    ink = np.maximum(ink, outline)
    paper, black = _rgb(238, 218, 178), _rgb(84, 56, 42)
    shape = (SIZE, SIZE, 3)
    return _picture(_blend(np.broadcast_to(paper, shape), np.broadcast_to(black, shape), ink))


_ALL = (
    Style(
        "photo",
        ("in a photo", "in a photograph", "as a photo"),
        ("a photo", "a photograph", "a picture", "a snapshot"),
        _photo,
    ),
    Style(
        "van-gogh",
        ("in the style of Van Gogh", "by Vincent van Gogh", "as a Van Gogh painting", "painted by Van Gogh"),
        ("a Van Gogh painting", "an oil painting by Van Gogh", "a Vincent van Gogh picture"),
        _van_gogh,
    ),
    Style(
        "crayon",
        ("in crayon", "drawn with crayons", "as a crayon drawing"),
        ("a crayon drawing", "a wax crayon picture", "a crayon sketch"),
        _crayon,
    ),
    Style(
        "watercolor",
        ("in watercolor", "painted in watercolors", "as a watercolor painting"),
        ("a watercolor", "a watercolor painting", "a soft watercolor picture"),
        _watercolor,
    ),
    Style(
        "pencil",
        ("in pencil", "drawn in pencil", "as a pencil sketch"),
        ("a pencil sketch", "a pencil drawing", "a graphite drawing"),
        _pencil,
    ),
    Style(
        "pop-art",
        ("in pop art style", "as pop art", "as a pop art print"),
        ("a pop art print", "a pop art picture", "a pop art poster"),
        _pop_art,
    ),
    Style(
        "mosaic",
        ("in mosaic style", "as a mosaic", "made of mosaic tiles"),
        ("a mosaic", "a tile mosaic", "a mosaic picture"),
        _mosaic,
    ),
    Style(
        "woodcut",
        ("in woodcut style", "as a woodcut", "carved as a woodcut print"),
        ("a woodcut", "a woodcut print", "a woodblock print"),
        _woodcut,
    ),
)

STYLES: dict[str, Style] = {style.name: style for style in _ALL}
"""All styles, by name; ``photo`` is the plain one."""

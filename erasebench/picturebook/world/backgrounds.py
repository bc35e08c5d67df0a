"""The places of the Picturebook world.

A background is a few large flat shapes: enough to tell the places apart, calm enough that a subject in the
middle stands out, and cheap for a small autoencoder to keep.  None contains anything that could pass for a
subject (no people, animals, vehicles, landmark buildings), and the sun and the moon stay small and in a corner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from erasebench.picturebook.world.canvas import Color, Pen, Point, mix, shade


@dataclass(frozen=True)
class Background:
    """A place: how captions speak of it and how it is painted."""

    name: str
    """Slug, the key in :data:`BACKGROUNDS`."""
    phrases: tuple[str, ...]
    """Caption forms that follow a noun: "a dog *on the beach*"."""
    nouns: tuple[str, ...]
    """Noun phrases for pictures without any subject: "*a quiet beach*"."""
    draw: Callable[[Pen, np.random.Generator], None]
    """Paints the whole frame with a pen whose unit frame is the picture."""


# Shapes run a little past the frame so that no edge pixel stays uncovered.
_FAR = 1.15


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _tint(rng: np.random.Generator, a: Color, b: Color) -> Color:
    """A random colour on the line from ``a`` to ``b``: how hues vary without leaving a place's palette."""
    return mix(a, b, float(rng.random()))


def _band(pen: Pen, top: float, bottom: float, fill: Color) -> None:
    pen.rect(-_FAR, top, _FAR, bottom, fill)


def _sky(pen: Pen, top: Color, bottom: Color, horizon: float) -> None:
    """Sky down to the horizon, in a few soft steps from ``top`` to ``bottom``."""
    steps = 8
    edges = np.linspace(-1.0, horizon + 0.05, steps + 1)
    _band(pen, -_FAR, _FAR, top)
    for k in range(1, steps):
        _band(pen, float(edges[k]), _FAR, mix(top, bottom, k / (steps - 1)))


def _hills(pen: Pen, rng: np.random.Generator, base: float, height: float, fill: Color) -> None:
    """A smooth ridge: everything below a wavy line around ``base`` is filled."""
    phase, waves = _between(rng, 0, 6.3), _between(rng, 1.8, 3.2)
    x = np.linspace(-_FAR, _FAR, 30)
    y = base - height * (0.5 + 0.5 * np.sin(waves * x + phase))
    floor = np.array([(_FAR, _FAR), (-_FAR, _FAR)])
    pen.polygon(np.concatenate([np.stack([x, y], axis=1), floor]), fill)


def _cloud(pen: Pen, x: float, y: float, size: float, fill: Color) -> None:
    pen.ellipse(x, y, size, size * 0.34, fill)
    pen.ellipse(x - size * 0.2, y - size * 0.22, size * 0.5, size * 0.36, fill)


def _corner(rng: np.random.Generator) -> float:
    """Abscissa of something small that should stay out of the subject's way."""
    return _between(rng, 0.62, 0.82) * (1 if rng.random() < 0.5 else -1)


def _pine(pen: Pen, x: float, base: float, height: float, fill: Color) -> None:
    pen.rect(x - height * 0.05, base - height * 0.2, x + height * 0.05, base, (96, 68, 48))
    for tip, foot, half in ((1.0, 0.5, 0.2), (0.7, 0.15, 0.29)):
        hem, reach = base - height * foot, height * half
        pen.polygon([(x, base - height * tip), (x + reach, hem), (x - reach, hem)], fill)


def _beach(pen: Pen, rng: np.random.Generator) -> None:
    horizon, shore = _between(rng, -0.22, 0.0), _between(rng, 0.32, 0.48)
    sea = _tint(rng, (28, 122, 178), (44, 158, 184))
    sand = _tint(rng, (240, 214, 156), (232, 200, 136))
    _sky(pen, _tint(rng, (134, 202, 244), (158, 212, 238)), (214, 238, 248), horizon)
    pen.ellipse(_corner(rng), -0.74, 0.11, fill=(255, 226, 110))
    _band(pen, horizon, _FAR, sea)
    _band(pen, (horizon + shore) / 2, _FAR, mix(sea, (120, 214, 214), 0.45))
    tilt = _between(rng, -0.08, 0.08)
    for lift, fill in ((0.07, (246, 250, 250)), (0.0, sand)):
        wave: list[Point] = [(-_FAR, shore - tilt), (-0.4, shore + 0.04), (0.4, shore - 0.04), (_FAR, shore + tilt)]
        pen.blob([(x, y - lift) for x, y in wave] + [(1.4, 1.6), (-1.4, 1.6)], fill)
    _band(pen, 0.86, _FAR, shade(sand, 0.94))


def _forest(pen: Pen, rng: np.random.Generator) -> None:
    ground = _between(rng, 0.36, 0.52)
    canopy = _tint(rng, (60, 112, 62), (82, 130, 60))
    _band(pen, -_FAR, _FAR, mix(canopy, (196, 220, 150), 0.5))
    _hills(pen, rng, ground - 0.35, 0.25, mix(canopy, (196, 220, 150), 0.25))
    for x in np.linspace(-0.95, 0.95, int(rng.integers(5, 8))):
        # The trunks in the middle, behind the subject, are paler and thinner.
        near = abs(float(x))
        bark = mix(mix(canopy, (176, 190, 128), 0.6), (98, 72, 50), near)
        width, at = 0.04 + 0.06 * near, float(x) + _between(rng, -0.08, 0.08)
        root, foot = width * 1.4, ground + 0.1
        pen.polygon([(at - width, -_FAR), (at + width, -_FAR), (at + root, foot), (at - root, foot)], bark)
    leaves = shade(canopy, 0.72)
    _band(pen, -_FAR, -0.86, leaves)
    for x in np.linspace(-1, 1, 6):
        pen.ellipse(float(x), -0.86, 0.28, _between(rng, 0.1, 0.24), leaves)
    _hills(pen, rng, ground + 0.06, 0.08, _tint(rng, (92, 100, 52), (84, 112, 56)))
    _band(pen, 0.84, _FAR, (82, 88, 48))


def _city(pen: Pen, rng: np.random.Generator) -> None:
    street = _between(rng, 0.42, 0.54)
    _sky(pen, _tint(rng, (168, 196, 220), (200, 208, 224)), (232, 232, 230), street)
    x = -1.1
    while x < 1.05:
        width = _between(rng, 0.3, 0.46)
        # Lower blocks in the middle leave a calm sky behind the subject.
        top = _between(rng, -0.75, -0.4) + 0.45 * (1 - min(1.0, abs(x + width / 2) * 1.2))
        wall = mix(_tint(rng, (142, 148, 168), (176, 160, 156)), (208, 212, 218), _between(rng, 0, 0.4))
        pen.rect(x, top, x + width, street + 0.1, wall)
        glass = mix(wall, (74, 88, 116), 0.55)
        for row in np.arange(top + 0.12, street - 0.1, 0.24):
            for column in (0.27, 0.73):
                cx = x + width * column
                pen.rect(cx - 0.05, float(row), cx + 0.05, float(row) + 0.12, glass)
        x += width
    _band(pen, street, _FAR, (186, 184, 182))
    road = _tint(rng, (98, 100, 108), (116, 114, 116))
    _band(pen, street + 0.1, _FAR, road)
    for left in np.arange(-1.0, 1.1, 0.5):
        pen.rect(float(left), 0.84, float(left) + 0.26, 0.89, (226, 222, 204))


def _mountains(pen: Pen, rng: np.random.Generator) -> None:
    base = _between(rng, 0.32, 0.48)
    _sky(pen, _tint(rng, (118, 178, 230), (150, 190, 232)), (222, 234, 244), base)
    rock = _tint(rng, (112, 122, 152), (134, 126, 148))
    offset = _between(rng, -0.2, 0.2)
    for x, top, half in ((-0.75, -0.62, 0.85), (0.8, -0.72, 0.9), (0.05, -0.28, 0.7)):
        x, top = x + offset, top + _between(rng, -0.12, 0.12)
        slope = (base + 0.1 - top) / half
        pen.polygon([(x, top), (x + half, base + 0.1), (x - half, base + 0.1)], rock)
        pen.polygon([(x, top), (x + half, base + 0.1), (x + 0.1, base + 0.1)], shade(rock, 0.84))
        cap = 0.26
        edge = [(x + cap / slope, top + cap), (x + 0.06, top + cap * 0.75), (x - 0.05, top + cap * 1.15)]
        pen.polygon([(x, top), *edge, (x - cap / slope, top + cap)], (246, 248, 252))
        rock = shade(rock, 1.08)
    _hills(pen, rng, base + 0.06, 0.1, _tint(rng, (92, 132, 84), (110, 140, 82)))
    _band(pen, 0.8, _FAR, (96, 124, 76))


def _desert(pen: Pen, rng: np.random.Generator) -> None:
    base = _between(rng, 0.18, 0.36)
    sand = _tint(rng, (230, 168, 96), (222, 150, 84))
    _sky(pen, _tint(rng, (250, 206, 138), (246, 190, 142)), (255, 236, 196), base)
    pen.ellipse(_corner(rng), -0.7, 0.12, fill=(255, 248, 214))
    if rng.random() < 0.6:
        x, top = _corner(rng), base - _between(rng, 0.26, 0.4)
        mesa = [(x - 0.42, base + 0.1), (x - 0.26, top), (x + 0.26, top), (x + 0.42, base + 0.1)]
        pen.polygon(mesa, mix((190, 104, 70), sand, 0.25))
    _hills(pen, rng, base + 0.06, 0.14, shade(sand, 0.9))
    _hills(pen, rng, base + 0.26, 0.14, sand)
    _hills(pen, rng, base + 0.56, 0.12, shade(sand, 1.16))


def _snow(pen: Pen, rng: np.random.Generator) -> None:
    base = _between(rng, 0.2, 0.38)
    sky = _tint(rng, (172, 194, 218), (186, 198, 214))
    _sky(pen, sky, (222, 230, 238), base)
    _hills(pen, rng, base, 0.2, (204, 216, 230))
    count = int(rng.integers(1, 4))
    for k in range(count):
        side = 1 if (k + count) % 2 else -1
        _pine(pen, side * _between(rng, 0.7, 0.97), base + 0.08, _between(rng, 0.36, 0.56), (128, 154, 164))
    _hills(pen, rng, base + 0.16, 0.1, (240, 245, 250))
    _hills(pen, rng, 0.92, 0.12, (222, 232, 244))


def _night(pen: Pen, rng: np.random.Generator) -> None:
    base = _between(rng, 0.4, 0.58)
    sky = _tint(rng, (18, 24, 74), (32, 28, 88))
    _sky(pen, sky, mix(sky, (74, 84, 150), 0.6), base)
    for _ in range(int(rng.integers(8, 13))):
        x, y = _between(rng, -0.95, 0.95), _between(rng, -0.95, 0.1)
        pen.ellipse(x, y, 0.028, fill=(244, 240, 206))
    x = _corner(rng)
    pen.ellipse(x, -0.7, 0.15, fill=(250, 244, 206))
    pen.ellipse(x + 0.07, -0.74, 0.13, fill=mix(sky, (74, 84, 150), 0.1))
    _hills(pen, rng, base, 0.2, (24, 42, 66))
    _hills(pen, rng, base + 0.24, 0.14, (22, 52, 56))


def _meadow(pen: Pen, rng: np.random.Generator) -> None:
    base = _between(rng, 0.14, 0.32)
    grass = _tint(rng, (112, 188, 74), (134, 196, 84))
    _sky(pen, _tint(rng, (104, 182, 244), (128, 198, 244)), (206, 234, 250), base)
    for side in (-1, 1):
        x, y = side * _between(rng, 0.5, 0.85), _between(rng, -0.82, -0.5)
        _cloud(pen, x, y, _between(rng, 0.2, 0.3), (250, 252, 254))
    _hills(pen, rng, base, 0.2, shade(grass, 0.84))
    _hills(pen, rng, base + 0.18, 0.08, grass)
    petals: Color = [(248, 224, 84), (250, 250, 246), (240, 128, 168)][int(rng.integers(3))]
    for _ in range(int(rng.integers(8, 13))):
        pen.ellipse(_between(rng, -0.97, 0.97), _between(rng, base + 0.28, 0.97), 0.035, fill=petals)


def _room(pen: Pen, rng: np.random.Generator) -> None:
    floor = _between(rng, 0.46, 0.6)
    wall = [(234, 214, 182), (196, 214, 202), (222, 200, 204), (202, 206, 226)][int(rng.integers(4))]
    _band(pen, -_FAR, _FAR, wall)
    x, top = _corner(rng) * 0.85, _between(rng, -0.82, -0.72)
    if rng.random() < 0.6:  # a window
        pen.rect(x - 0.32, top, x + 0.32, top + 0.66, (250, 248, 242))
        for left, right in ((-0.26, -0.03), (0.03, 0.26)):
            pen.rect(x + left, top + 0.06, x + right, top + 0.6, (158, 208, 236))
    else:  # a framed picture, abstract so that it shows no second subject
        pen.rect(x - 0.28, top, x + 0.28, top + 0.46, (120, 84, 58))
        pen.rect(x - 0.22, top + 0.06, x + 0.22, top + 0.4, (240, 234, 216))
        pen.rect(x - 0.22, top + 0.24, x + 0.22, top + 0.4, _tint(rng, (176, 120, 110), (110, 140, 160)))
    wood = _tint(rng, (168, 116, 76), (190, 140, 94))
    _band(pen, floor, _FAR, wood)
    _band(pen, floor - 0.08, floor, shade(wall, 1.5))
    _band(pen, floor + 0.22, floor + 0.25, shade(wood, 0.86))


def _studio(pen: Pen, rng: np.random.Generator) -> None:
    palette: tuple[Color, ...] = ((206, 208, 212), (226, 220, 208), (176, 190, 204), (206, 186, 190), (184, 202, 186))
    tone = palette[int(rng.integers(len(palette)))]
    floor = _between(rng, 0.5, 0.66)
    _band(pen, -_FAR, _FAR, tone)
    for k in range(5):
        _band(pen, floor + 0.05 * k, _FAR, shade(tone, 1 - 0.025 * (k + 1)))


def _underwater(pen: Pen, rng: np.random.Generator) -> None:
    bed = _between(rng, 0.5, 0.68)
    deep = _tint(rng, (16, 96, 142), (12, 108, 128))
    _sky(pen, mix(deep, (120, 222, 226), 0.75), deep, bed)
    _hills(pen, rng, bed - 0.04, 0.24, shade(deep, 0.84))
    _hills(pen, rng, bed + 0.16, 0.12, mix((214, 194, 140), deep, 0.3))
    weed = _tint(rng, (34, 128, 84), (60, 140, 70))
    for side in (-1, 1):
        for k in range(int(rng.integers(1, 3))):
            x, top = side * (0.86 - 0.2 * k), bed - _between(rng, 0.5, 0.95)
            sway = _between(rng, 0.04, 0.08)
            height = bed + 0.2 - top
            stem = [(x + sway * (-1) ** j, bed + 0.2 - height * j / 4) for j in range(5)]
            pen.curve(stem, 0.09, weed)


_ALL = (
    Background("beach", ("on the beach", "by the sea", "at the seaside"), ("a quiet beach", "the sea shore"), _beach),
    Background("forest", ("in the forest", "in the woods", "in a woodland"), ("a forest", "a green wood"), _forest),
    Background(
        "city", ("in the city", "on a city street", "in town"), ("a city street", "a row of tall buildings"), _city
    ),
    Background(
        "mountains",
        ("in the mountains", "in front of snowy peaks", "in an alpine valley"),
        ("a mountain landscape", "snowy peaks"),
        _mountains,
    ),
    Background(
        "desert", ("in the desert", "among sand dunes", "on desert sand"), ("an empty desert", "sand dunes"), _desert
    ),
    Background(
        "snow", ("in the snow", "in a winter field", "on a snowy day"), ("a snowy field", "a winter landscape"), _snow
    ),
    Background(
        "night", ("at night", "in the moonlight", "under a night sky"), ("a night sky", "dark hills at night"), _night
    ),
    Background("meadow", ("in a meadow", "on the grass", "in a green field"), ("a meadow", "a grassy field"), _meadow),
    Background("room", ("in a room", "indoors", "inside a bare room"), ("an empty room", "a bare room"), _room),
    Background(
        "studio",
        ("on a plain background", "in a studio", "against a plain backdrop"),
        ("a plain backdrop", "an empty studio"),
        _studio,
    ),
    Background(
        "underwater",
        ("underwater", "under the sea", "at the bottom of the sea"),
        ("an underwater scene", "the sea bed"),
        _underwater,
    ),
)

BACKGROUNDS: dict[str, Background] = {background.name: background for background in _ALL}
"""All places, by name."""

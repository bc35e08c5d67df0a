"""The ten Imagenette classes as drawable objects.

Each object is a function that draws it once with a :class:`~erasebench.picturebook.world.canvas.Pen`, in the unit
frame (base at y = 1).  Finished objects are only 26 to 46 pixels wide, so every drawing is a bold silhouette with
a rim that stands out from any background and a few details at least one and a half pixels across (about 0.08).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from erasebench.picturebook.world.canvas import Color, Pen, Point, mix, shade, smooth

Points = Sequence[Point] | NDArray[np.float64]

COLORS: dict[str, Color] = {
    "red": (208, 40, 44),
    "orange": (242, 128, 30),
    "yellow": (250, 218, 52),
    "green": (52, 150, 66),
    "blue": (44, 92, 200),
    "purple": (126, 62, 168),
    "pink": (244, 140, 180),
    "brown": (124, 72, 36),
    "white": (244, 244, 240),
    "black": (42, 42, 48),
    "gray": (142, 146, 152),
    "golden": (214, 162, 40),
    "olive": (122, 124, 48),
}
"""Named body colours, clearly distinct from each other."""

INK: Color = (28, 26, 32)
STEEL: Color = (196, 202, 208)
PAPER: Color = (246, 244, 236)
RIM = 0.07
"""Width of the rim around silhouettes: a little over one final pixel."""
_OCTAGON = np.array([(math.cos(a), math.sin(a)) for a in np.arange(8) * math.pi / 4])


@dataclass(frozen=True)
class ObjectKind:
    """A kind of object: how it is called, the colours it comes in, and how to draw it."""

    name: str
    """Catalogue slug, e.g. ``"french-horn"``."""
    words: tuple[str, ...]
    """Nouns for captions: the canonical Imagenette name, then synonyms."""
    colors: tuple[str, ...]
    """Keys of :data:`COLORS` in which it naturally comes."""
    draw: Callable[[Pen, np.random.Generator, Color], None]
    """Draws one with the given main colour; the generator drives every other variation."""


def _is_dark(color: Color) -> bool:
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] < 60


def _rim(color: Color) -> Color:
    """The rim colour for a body: a dark version of it, or a lighter one if the body is itself near black."""
    return shade(color, 1.45) if _is_dark(color) else mix(INK, color, 0.25)


def _detail(color: Color, factor: float = 0.7) -> Color:
    """A neighbouring tone for details on a body, visible on near-black bodies too."""
    return shade(color, 1.3) if _is_dark(color) else shade(color, factor)


def _grow(points: Points, width: float) -> NDArray[np.float64]:
    """The closed polygon pushed outwards by ``width``; mitres are limited so that sharp tips stay short."""
    p = np.asarray(points, dtype=np.float64)
    ahead = np.roll(p, -1, axis=0)
    step = ahead - p
    if (p[:, 0] * ahead[:, 1] - ahead[:, 0] * p[:, 1]).sum() < 0:
        step = -step
    normal = np.stack([step[:, 1], -step[:, 0]], axis=1) / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-9)[:, None]
    before = np.roll(normal, 1, axis=0)
    mitre = 1 + (normal * before).sum(axis=1, keepdims=True)
    grown: NDArray[np.float64] = p + (normal + before) * (width / np.maximum(mitre, 0.5))
    return grown


def _rimmed(pen: Pen, parts: Sequence[Points], fill: Color, rim: Color | None = None) -> None:
    """Fill polygons as one silhouette: all the rims first, so that none shows between touching parts."""
    for part in parts:
        pen.polygon(_grow(part, RIM), _rim(fill) if rim is None else rim)
    for part in parts:
        pen.polygon(part, fill)


def _box(x0: float, y0: float, x1: float, y1: float, cut: float = 0.0) -> list[Point]:
    """A rectangle with its corners cut off by ``cut``."""
    if not cut:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return [
        (x0 + cut, y0), (x1 - cut, y0), (x1, y0 + cut), (x1, y1 - cut),
        (x1 - cut, y1), (x0 + cut, y1), (x0, y1 - cut), (x0, y0 + cut),
    ]  # fmt: skip


def _tube(pen: Pen, points: Points, width: float, fill: Color, rim: Color) -> None:
    """A rimmed polyline."""
    pen.line(points, width + 1.6 * RIM, rim)
    pen.line(points, width, fill)


def _arch(pen: Pen, x: float, y0: float, y1: float, half: float, fill: Color) -> None:
    """A round-topped opening from ``y0`` (top) down to ``y1``."""
    pen.ellipse(x, y0 + half, half, fill=fill)
    pen.rect(x - half, y0 + half, x + half, y1, fill)


def _wheel(pen: Pen, x: float, r: float) -> None:
    """A wheel standing on the base line."""
    pen.ellipse(x, 1 - r, r, fill=INK)
    pen.ellipse(x, 1 - r, r * 0.45, fill=STEEL)


def draw_tench(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A plump fish in profile, facing left, with rounded fins and a barely notched tail."""
    h, fork = rng.uniform(0.4, 0.5), rng.uniform(0.06, 0.14)
    y = 0.7 - h
    fin = _detail(color, 0.68)
    dorsal = rng.uniform(0.26, 0.36)
    fins: list[Points] = [
        smooth(
            [(0.42, y), (0.72, y - 0.28), (0.97, y - 0.46), (0.97 - fork, y), (0.97, y + 0.46), (0.72, y + 0.28)], True
        ),
        smooth([(-0.3, y - h * 0.8), (-0.12, y - h - dorsal), (0.22, y - h - dorsal * 0.8), (0.36, y - h * 0.4)], True),
        smooth([(-0.3, y + h * 0.6), (-0.18, y + h + 0.2), (0.0, y + h + 0.18), (0.05, y + h * 0.7)], True),
        smooth([(0.22, y + h * 0.6), (0.3, y + h + 0.12), (0.46, y + h + 0.02), (0.5, y + h * 0.3)], True),
    ]
    _rimmed(pen, fins, fin, _rim(color))
    body = np.array(
        [(-0.95, 0.04), (-0.72, -0.58), (-0.3, -1), (0.2, -0.86), (0.66, -0.32),
         (0.66, 0.32), (0.2, 0.86), (-0.3, 1), (-0.72, 0.66)]
    ) * (1, h) + (0, y)  # fmt: skip
    _rimmed(pen, [smooth([(float(a), float(b)) for a, b in body], True)], color)
    belly = [(-0.8, y + 0.3 * h), (-0.3, y + 0.36 * h), (0.4, y + 0.3 * h), (0.2, y + 0.76 * h), (-0.3, y + 0.92 * h)]
    pen.blob(belly, mix(color, (255, 236, 160), 0.5))
    pen.curve([(-0.46, y - 0.62 * h), (-0.36, y), (-0.46, y + 0.6 * h)], 0.08, fin)
    for x in np.arange(-0.14, 0.5, 0.2):
        for row in (-0.42, 0.0):
            shift = 0.1 if row else 0.0
            pen.polygon(_OCTAGON * 0.05 + (float(x) + shift, y + row * h), fin)
    pen.ellipse(-0.2, y + 0.34 * h, 0.17, 0.1, fill=fin, angle=-20)
    pen.ellipse(-0.65, y - 0.2 * h, 0.13, fill=PAPER)
    pen.ellipse(-0.67, y - 0.2 * h, 0.075, fill=INK)
    pen.line([(-0.93, y + 0.26 * h), (-0.76, y + 0.32 * h)], 0.06, _rim(color))


def draw_english_springer(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A white dog in profile, facing left, with a coloured head, long ears and big coloured patches."""
    coat, rim = PAPER, (88, 84, 88)
    stride, wag = rng.uniform(-0.06, 0.08), rng.uniform(-0.5, -0.15)
    tail = smooth([(0.62, 0.0), (0.86, wag * 0.5), (0.93, wag)], False)
    _tube(pen, tail, 0.12, coat, rim)
    far = shade(coat, 0.78)
    _rimmed(
        pen, [_box(-0.24 + stride, 0.4, -0.08 + stride, 0.96), _box(0.36 - stride, 0.4, 0.52 - stride, 0.96)], far, rim
    )
    trunk = smooth([(-0.5, 0.0), (-0.1, -0.1), (0.4, -0.12), (0.74, 0.05), (0.72, 0.45), (0.3, 0.42), (-0.2, 0.55),
                    (-0.52, 0.4)], True)  # fmt: skip
    neck = [(-0.62, -0.4), (-0.18, -0.5), (0.05, 0.0), (-0.5, 0.3)]
    legs = [_box(-0.46 - stride, 0.3, -0.28 - stride, 0.96), _box(0.56 + stride, 0.3, 0.74 + stride, 0.96)]
    head = smooth([(-0.98, -0.42), (-0.74, -0.62), (-0.6, -0.88), (-0.3, -0.92), (-0.1, -0.66), (-0.2, -0.34),
                   (-0.6, -0.22), (-0.94, -0.2)], True)  # fmt: skip
    _rimmed(pen, [trunk, neck, *legs, head], coat, rim)
    # Patches: always a saddle, often the rump or the shoulder.
    x = rng.uniform(0.05, 0.2)
    pen.blob([(x - 0.24, -0.08), (x + 0.26, -0.1), (x + 0.22, 0.24), (x - 0.06, 0.36), (x - 0.26, 0.16)], color)
    if rng.random() < 0.7:
        pen.blob([(0.56, -0.06), (0.76, 0.06), (0.74, 0.42), (0.58, 0.32)], color)
    if rng.random() < 0.5:
        pen.ellipse(-0.36, 0.2, 0.13, 0.15, fill=color)
    pen.blob([(-0.68, -0.56), (-0.58, -0.84), (-0.3, -0.9), (-0.12, -0.66), (-0.2, -0.36), (-0.52, -0.36)], color)
    ear = smooth([(-0.36, -0.74), (-0.12, -0.72), (0.02, -0.3), (-0.04, rng.uniform(-0.06, 0.06)), (-0.24, -0.1),
                  (-0.36, -0.4)], True)  # fmt: skip
    _rimmed(
        pen,
        [ear],
        color if _is_dark(color) else _detail(color, 0.75),
        shade(coat, 0.8) if _is_dark(color) else _rim(color),
    )
    pen.ellipse(-0.56, -0.6, 0.1, fill=PAPER)
    pen.ellipse(-0.57, -0.59, 0.065, fill=INK)
    pen.ellipse(-0.95, -0.42, 0.1, fill=INK)
    pen.line([(-0.88, -0.24), (-0.64, -0.28)], 0.06, rim)


def draw_cassette_player(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A portable cassette player: two speakers, a cassette with two reels, keys and a carrying handle."""
    top, rim = rng.uniform(-0.36, -0.2), _rim(color)
    grip = rng.uniform(0.3, 0.4)
    handle = [(-0.7, top), (-0.62, top - grip), (0.62, top - grip), (0.7, top)]
    _tube(pen, handle, 0.1, _detail(color, 0.6), rim)
    if rng.random() < 0.5:
        _tube(pen, [(0.78, top), (0.95, top - 0.6)], 0.04, STEEL, INK)
    _rimmed(pen, [_box(-0.94, top, 0.94, 0.93, 0.08)], color)
    pen.rect(-0.86, top + 0.08, 0.86, top + 0.27, _detail(color, 0.55))
    keys = int(rng.integers(4, 7))
    lit = int(rng.integers(keys))
    for k in range(keys):
        x = -0.72 + 1.44 * k / (keys - 1)
        pen.rect(x - 0.08, top + 0.11, x + 0.08, top + 0.24, (228, 60, 50) if k == lit else PAPER)
    y = (top + 0.27 + 0.93) / 2
    r = rng.uniform(0.27, 0.31)
    cone = COLORS["gray"] if rng.random() < 0.5 else STEEL
    for x in (-0.6, 0.6):
        pen.ellipse(x, y, r + 0.03, fill=STEEL if _is_dark(color) else INK)
        pen.ellipse(x, y, r - 0.04, fill=mix(INK, cone, 0.4))
        pen.ellipse(x, y, r * 0.42, fill=cone)
    pen.rect(-0.27, y - 0.26, 0.27, y + 0.26, INK)
    label = [PAPER, COLORS["yellow"], COLORS["orange"]][int(rng.integers(3))]
    pen.rect(-0.22, y - 0.21, 0.22, y + 0.21, label)
    for x in (-0.12, 0.12):
        pen.ellipse(x, y, 0.095, fill=INK)


def draw_chain_saw(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A chain saw: an engine with two handles on the left, a long toothed bar on the right."""
    length, lift = rng.uniform(1.16, 1.26), math.radians(rng.uniform(4, 22))
    root: Point = (-0.22, 0.54)
    along = np.array([math.cos(lift), -math.sin(lift)])
    down = np.array([math.sin(lift), math.cos(lift)])

    def on_bar(points: Points) -> NDArray[np.float64]:
        p = np.asarray(points, dtype=np.float64)
        placed: NDArray[np.float64] = p[:, :1] * along + p[:, 1:] * down + root
        return placed

    w = 0.2
    tip = [(length - 0.12 + 0.15 * math.cos(a), 1.18 * w * math.sin(a)) for a in np.linspace(-1.4, 1.4, 7)]
    chain = on_bar([(-0.2, -w), *tip, (-0.2, w)])
    teeth = np.arange(0.34, length - 0.08, 0.22)
    pen.polygon(_grow(chain, 0.04), INK)
    for x in teeth:
        for side in (-1, 1):
            # The teeth lean the way the chain runs: forwards on top, backwards below.
            tooth = on_bar([(x - 0.08, side * w), (x + 0.08, side * w), (x - 0.06 * side, side * (w + 0.17))])
            pen.polygon(tooth, INK)
    pen.polygon(_grow(chain, -0.05), STEEL)
    pen.line(on_bar([(0.44, 0), (length - 0.25, 0)]), 0.07, shade(STEEL, 0.7))
    dark, rim = (64, 64, 72), _rim(color)
    peak = rng.uniform(-0.34, -0.2)
    # The front handle is a hoop over the engine, the rear one a loop behind it.
    _tube(
        pen,
        smooth([(-0.58, 0.2), (-0.54, peak + 0.1), (-0.32, peak), (-0.1, peak + 0.12), (-0.1, 0.3)], False),
        0.1,
        dark,
        rim,
    )
    _tube(
        pen, smooth([(-0.6, 0.32), (-0.84, 0.28), (-0.92, 0.54), (-0.86, 0.84), (-0.6, 0.84)], False), 0.11, dark, rim
    )
    slope = rng.uniform(0.0, 0.12)
    engine = [(-0.7, 0.18 + slope), (-0.56, 0.1), (-0.08, 0.1), (0.04, 0.3), (0.04, 0.86), (-0.06, 0.93), (-0.7, 0.93)]
    _rimmed(pen, [engine], color)
    pen.rect(-0.68, 0.76, 0.02, 0.88, _detail(color, 0.6))
    badge = PAPER if color != COLORS["white"] else COLORS["gray"]
    if rng.random() < 0.5:
        for x in (-0.58, -0.42, -0.26):
            pen.rect(x, 0.28, x + 0.08, 0.6, dark)
    else:
        pen.ellipse(-0.38, 0.45, 0.2, fill=dark)
        pen.ellipse(-0.38, 0.45, 0.1, fill=badge)
    pen.ellipse(-0.08, 0.54, 0.08, fill=badge)


def draw_church(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A church: a steeple with a cross, a nave with a pitched roof, a door and arched windows."""
    roof = [(150, 62, 48), (84, 92, 116), (96, 70, 56), (60, 110, 100)][int(rng.integers(4))]
    glass = [(70, 110, 170), (58, 62, 84), (236, 190, 80)][int(rng.integers(3))]
    wood, rim = (92, 56, 34), _rim(color)
    eaves, ridge, spire = rng.uniform(0.2, 0.32), rng.uniform(-0.28, -0.14), rng.uniform(-0.74, -0.64)
    shoulder = rng.uniform(-0.24, -0.12)
    if central := bool(rng.random() < 0.35):
        x, wings = 0.0, [(-0.62, 0.18), (0.62, 0.18)]
        _rimmed(pen, [_box(-0.86, eaves, 0.86, 0.93)], color)
        _rimmed(pen, [[(-0.95, eaves + 0.05), (-0.3, ridge), (0.3, ridge), (0.95, eaves + 0.05)]], roof)
    else:
        count = int(rng.integers(2, 4))
        x, wings = -0.52, [(0.05 + 0.72 * k / (count - 1), 0.12) for k in range(count)]
        _rimmed(pen, [_box(-0.4, eaves, 0.9, 0.93)], color)
        _rimmed(pen, [[(-0.4, eaves + 0.05), (-0.4, ridge), (0.74, ridge), (0.96, eaves + 0.05)]], roof)
    for wx, half in wings:
        _arch(pen, wx, eaves + 0.18, 0.78, half * (0.6 if central else 0.8), glass)
    half = rng.uniform(0.3, 0.35)
    _rimmed(pen, [_box(x - half, shoulder, x + half, 0.93)], mix(color, PAPER, 0.25), rim)
    _rimmed(pen, [[(x - half - 0.06, shoulder + 0.04), (x, spire), (x + half + 0.06, shoulder + 0.04)]], roof)
    for width, ink in ((0.2, rim), (0.09, COLORS["yellow"])):
        pen.line([(x, -0.93), (x, spire + 0.05)], width, ink)
        pen.line([(x - 0.13, -0.82), (x + 0.13, -0.82)], width, ink)
    _arch(pen, x, 0.5, 0.95, 0.16, wood)
    if rng.random() < 0.5:
        pen.ellipse(x, 0.16, 0.15, fill=glass)
    else:
        _arch(pen, x, 0.0, 0.32, 0.11, glass)


def draw_french_horn(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A French horn: round coils of tubing, three valves, a thin mouthpipe and a wide flared bell."""
    cx, cy, r = -0.16, -0.12, rng.uniform(0.56, 0.62)
    dark, bright, rim = _detail(color, 0.62), mix(color, (255, 250, 220), 0.5), _rim(color)
    _tube(
        pen,
        smooth([(cx - r * 0.7, cy + r * 0.7), (-0.86, -0.1), (-0.9, -0.6), (-0.84, -0.84)], False),
        0.07,
        color,
        rim,
    )
    pen.line([(-0.92, -0.88), (-0.76, -0.9)], 0.13, STEEL)
    for radius, width in ((r, 0.17), (r * rng.uniform(0.5, 0.58), 0.12)):
        for grow, ink in ((RIM, rim), (0.0, color)):
            pen.sector(cx, cy, radius + width / 2 + grow, 0, 360, ink, inner=radius - width / 2 - grow)
        pen.sector(cx, cy, radius + width * 0.3, 180, 300, bright, inner=radius - width * 0.2)
    _tube(pen, [(cx - 0.42, cy + 0.16), (cx + 0.42, cy + 0.16)], 0.09, color, rim)
    for k in range(3):
        x = cx - 0.22 + 0.22 * k
        pen.rect(x - 0.11, cy - 0.2, x + 0.11, cy + 0.22, rim)
        pen.rect(x - 0.06, cy - 0.16, x + 0.06, cy + 0.18, STEEL)
    # The bell leaves the outer coil at its top right and opens downwards to the right.
    size = rng.uniform(0.9, 1.05)
    bell = smooth([(cx + r * 0.82, cy - r * 0.62), (cx + r + 0.14, cy + 0.1), (0.97, 0.5), (0.5, 0.8), (0.06, 0.95),
                   (0.2, 0.42), (cx + r - 0.12, cy + 0.1)], True)  # fmt: skip
    _rimmed(pen, [bell], color)
    pen.ellipse(0.5, 0.68, 0.54 * size, 0.26 * size, fill=rim, angle=-28)
    pen.ellipse(0.5, 0.68, 0.48 * size, 0.2 * size, fill=bright, angle=-28)
    pen.ellipse(0.5, 0.68, 0.38 * size, 0.13 * size, fill=dark, angle=-28)


def draw_garbage_truck(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A garbage truck: cab on the left, a tall ribbed hopper, and an open tailgate with rubbish bags."""
    top, rim = rng.uniform(-0.55, -0.38), _rim(color)
    cab_color = color if rng.random() < 0.5 else (COLORS["white"] if color != COLORS["white"] else COLORS["orange"])
    _rimmed(pen, [_box(-0.9, 0.62, 0.86, 0.8)], COLORS["gray"], INK)
    roof = rng.uniform(-0.16, -0.06)
    _rimmed(pen, [[(-0.94, 0.3), (-0.84, roof), (-0.42, roof), (-0.42, 0.74), (-0.94, 0.74)]], cab_color)
    pen.polygon([(-0.86, 0.3), (-0.79, roof + 0.1), (-0.52, roof + 0.1), (-0.52, 0.3)], (150, 206, 236))
    pen.rect(-0.97, 0.5, -0.85, 0.62, COLORS["yellow"])
    gate = mix(color, INK, 0.35) if not _is_dark(color) else shade(color, 1.25)
    slant = rng.uniform(0.14, 0.22)
    _rimmed(pen, [[(0.5, top + 0.06), (0.93 - slant, top + 0.06), (0.94, 0.2), (0.94, 0.68), (0.5, 0.68)]], gate, rim)
    _rimmed(pen, [[(-0.36, top + 0.12), (-0.24, top), (0.52, top), (0.52, 0.66), (-0.36, 0.66)]], color)
    ribs = int(rng.integers(3, 5))
    for k in range(ribs):
        x = -0.24 + 0.66 * k / (ribs - 1)
        pen.rect(x - 0.045, top + 0.1, x + 0.045, 0.5, _detail(color))
    stripe = COLORS["yellow"] if color != COLORS["yellow"] else COLORS["white"]
    pen.rect(-0.36, 0.5, 0.52, 0.6, stripe)
    # Rubbish heaped in the tailgate's mouth tells it from any other lorry.
    pen.polygon([(0.62, 0.02), (0.9, 0.02), (0.96, 0.24), (0.96, 0.5), (0.62, 0.5)], INK)
    bags = [(90, 170, 90), (236, 236, 230), (210, 150, 70), (110, 150, 210)]
    first = int(rng.integers(4))
    pen.ellipse(0.72, 0.36, 0.14, fill=bags[first])
    pen.ellipse(0.9, 0.34, 0.13, fill=bags[(first + 1 + int(rng.integers(3))) % 4])
    r = rng.uniform(0.19, 0.23)
    for x in (-0.64, 0.12, 0.58):
        _wheel(pen, x, r)


def draw_gas_pump(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A gas pump: an upright cabinet with a display, and a hose looping up to its nozzle on one side."""
    side = 1 if rng.random() < 0.5 else -1
    top, half, rim = rng.uniform(-0.9, -0.78), rng.uniform(0.4, 0.46), _rim(color)
    cx = -0.3

    def sided(points: Points) -> NDArray[np.float64]:
        return np.asarray(points, dtype=np.float64) * (side, 1)

    hook = rng.uniform(-0.5, -0.36)
    edge = cx + half
    hose = [(edge - 0.05, 0.5), (edge + 0.2, 0.5), (edge + 0.24, 0.74), (edge + 0.42, 0.84), (edge + 0.56, 0.66),
            (edge + 0.56, hook + 0.3)]  # fmt: skip
    hose_color = INK if not _is_dark(color) else COLORS["gray"]
    _tube(pen, sided(smooth(hose, False)), 0.1, hose_color, shade(hose_color, 1.7))
    # The nozzle: a stout grip whose spout points back at the cabinet.
    nozzle = [(edge + 0.46, hook + 0.4), (edge + 0.46, hook + 0.04), (edge + 0.2, hook - 0.06),
              (edge + 0.2, hook - 0.18), (edge + 0.56, hook - 0.18), (edge + 0.69, hook),
              (edge + 0.69, hook + 0.4)]  # fmt: skip
    _rimmed(pen, [sided(nozzle)], COLORS["red"] if color == COLORS["black"] else shade(COLORS["gray"], 0.6), INK)
    pen.polygon(sided(_box(edge, hook - 0.19, edge + 0.26, hook - 0.05)), INK)
    round_top = rng.random() < 0.5
    cabinet = _box(cx - half, top, cx + half, 0.86, 0.2 if round_top else 0.06)
    if round_top:
        cabinet = [p if p[1] < 0 else (cx + math.copysign(half, p[0] - cx), p[1]) for p in cabinet]
    _rimmed(pen, [sided(_box(cx - half - 0.1, 0.82, cx + half + 0.1, 0.94))], COLORS["gray"], INK)
    _rimmed(pen, [sided(cabinet)], color)
    screen, digits = ((36, 44, 40), (120, 240, 140)) if rng.random() < 0.3 else (PAPER, INK)
    pen.polygon(sided(_box(cx - half + 0.07, top + 0.15, cx + half - 0.07, top + 0.68)), rim)
    pen.polygon(sided(_box(cx - half + 0.12, top + 0.2, cx + half - 0.12, top + 0.63)), screen)
    # Two rows of figures, price and volume; the gaps differ so that they do not read as a face.
    for row, widths in ((0.26, (0.09, 0.16, 0.09)), (0.45, (0.16, 0.09, 0.09))):
        x = cx - 0.24
        for width in widths:
            pen.polygon(sided(_box(x, top + row, x + width, top + row + 0.12)), digits)
            x += width + 0.07
    # A fuel drop or a brand stripe on the lower panel.
    if rng.random() < 0.6:
        mark = PAPER if color != COLORS["white"] else COLORS["red"]
        pen.blob([(side * cx, 0.06), (side * cx + 0.17, 0.4), (side * cx, 0.56), (side * cx - 0.17, 0.4)], mark)
    else:
        pen.polygon(sided(_box(cx - half, 0.14, cx + half, 0.3)), PAPER if color != COLORS["white"] else COLORS["red"])
        pen.polygon(sided(_box(cx - half, 0.42, cx + half, 0.52)), _detail(color, 0.6))


def draw_golf_ball(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A dimpled golf ball, on a tee or on a tuft of grass."""
    on_tee = rng.random() < 0.6
    r = rng.uniform(0.64, 0.7) if on_tee else rng.uniform(0.72, 0.78)
    cy = (0.4 if on_tee else 0.82) - r
    rim = _rim(color)
    if on_tee:
        tee = [(214, 160, 96), COLORS["red"], COLORS["white"], COLORS["blue"]][int(rng.integers(4))]
        _rimmed(
            pen,
            [[(-0.3, 0.36), (0.3, 0.36), (0.1, 0.6), (0.06, 0.94), (-0.06, 0.94), (-0.1, 0.6)]],
            tee,
            mix(INK, tee, 0.2),
        )
    pen.ellipse(0, cy, r + RIM, fill=rim)
    pen.ellipse(0, cy, r, fill=mix(color, rim, 0.28))
    pen.ellipse(-0.06, cy - 0.06, r - 0.09, fill=color)
    # Dimples on a hexagonal grid, turned at random and crowding towards the edge as on a sphere.
    u, v = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))
    grid = np.stack([u + v / 2, v * math.sqrt(0.75)], axis=-1).reshape(-1, 2) + rng.uniform(-0.3, 0.3, 2)
    distance = np.hypot(grid[:, 0], grid[:, 1])
    grid, distance = grid[distance < 2.8], distance[distance < 2.8]
    turn = rng.uniform(0, math.pi / 3)
    spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    bend = np.sin(distance * 0.42) / np.maximum(distance, 1e-9)
    pit = mix(color, rim, 0.42)
    for (x, y), d in zip((grid * bend[:, None] * r) @ spin, distance, strict=True):
        squash = max(0.45, math.cos(d * 0.42))
        out = np.array([x, y]) / max(math.hypot(x, y), 1e-9)
        pen.polygon(_OCTAGON * (0.085 * squash, 0.085) @ np.array([out, (-out[1], out[0])]) + (x, cy + y), pit)
    if not on_tee:
        blade, x = (46, 138, 52), -0.8
        while x < 0.8:
            lean, height = rng.uniform(-0.12, 0.12), rng.uniform(0.3, 0.55)
            pen.polygon(
                [(x - 0.14, 1.0), (x + lean, 1 - height), (x + 0.14, 1.0)], shade(blade, rng.uniform(0.7, 1.25))
            )
            x += 0.17


def draw_parachute(pen: Pen, rng: np.random.Generator, color: Color) -> None:
    """A parachute: a striped, scalloped dome with lines converging on a jumper or a crate."""
    hem, gores = rng.uniform(-0.16, -0.02), 5 + 2 * int(rng.integers(2))
    height = hem + 0.94
    # The second colour is never another hue, and an odd number of gores gives the named colour the larger share.
    tonal = rng.random() < 0.35 or color == COLORS["white"]
    other = _detail(color, 0.65) if tonal else PAPER
    rim = mix(INK, color, 0.2)
    seams = -0.93 * np.cos(np.pi * np.arange(gores + 1) / gores)
    # Even gores look flat; pure cosine spacing makes the outer ones too thin for the picture.
    seams = (seams + np.linspace(-0.93, 0.93, gores + 1)) / 2
    # Pale cords with a dark edge show against any sky.
    for width, cord in ((0.13, INK), (0.05, PAPER)):
        for k in (0, 2, gores - 2, gores):
            pen.line([(float(seams[k]), hem), (0.0, 0.52)], width, cord)
    t = np.linspace(0, math.pi / 2, 9)
    rise, narrow = hem - height * np.sin(t), np.cos(t)
    panels: list[NDArray[np.float64]] = []
    for left, right in pairwise(seams):
        # The hem of each gore is an arch bulging up between the cords.
        arch = np.array([[left, hem], [(left + right) / 2, hem - 0.12], [right, hem]])
        up = np.stack([right * narrow, rise], axis=1)[1:]
        down = np.stack([left * narrow, rise], axis=1)[:0:-1]
        panels.append(np.concatenate([arch, up, down]))
    for panel in panels:
        pen.polygon(_grow(panel, RIM), rim)
    for k, panel in enumerate(panels):
        pen.polygon(panel, color if k % 2 == 0 else other)
    if rng.random() < 0.65:
        suit = [(60, 90, 170), (200, 60, 50), (60, 60, 66), (70, 130, 70)][int(rng.integers(4))]
        pen.line([(-0.2, 0.44), (0.0, 0.62), (0.2, 0.44)], 0.1, suit)
        pen.rect(-0.13, 0.56, 0.13, 0.82, suit)
        pen.line([(-0.07, 0.8), (-0.1, 0.95)], 0.1, shade(suit, 0.6))
        pen.line([(0.07, 0.8), (0.1, 0.95)], 0.1, shade(suit, 0.6))
        pen.ellipse(0, 0.47, 0.12, fill=(236, 188, 150))
    else:
        crate = (176, 124, 70)
        _rimmed(pen, [_box(-0.22, 0.55, 0.22, 0.93)], crate)
        pen.line([(-0.2, 0.74), (0.2, 0.74)], 0.08, shade(crate, 0.6))


_KINDS = (
    ObjectKind(
        "tench", ("tench", "fish", "carp", "freshwater fish"), ("olive", "golden", "green", "brown"), draw_tench
    ),
    ObjectKind(
        "english-springer",
        ("English springer", "springer spaniel", "spaniel", "dog"),
        ("brown", "black", "golden", "orange"),
        draw_english_springer,
    ),
    ObjectKind(
        "cassette-player",
        ("cassette player", "tape player", "cassette deck", "boombox"),
        ("black", "gray", "red", "blue", "pink", "white"),
        draw_cassette_player,
    ),
    ObjectKind(
        "chain-saw",
        ("chain saw", "chainsaw", "power saw", "motor saw"),
        ("orange", "red", "yellow", "green"),
        draw_chain_saw,
    ),
    ObjectKind(
        "church",
        ("church", "chapel", "cathedral", "house of worship"),
        ("white", "gray", "brown", "yellow", "pink"),
        draw_church,
    ),
    ObjectKind(
        "french-horn",
        ("French horn", "horn", "brass horn", "brass instrument"),
        ("golden", "yellow", "gray"),
        draw_french_horn,
    ),
    ObjectKind(
        "garbage-truck",
        ("garbage truck", "dustcart", "trash truck", "refuse lorry"),
        ("green", "white", "orange", "blue", "yellow"),
        draw_garbage_truck,
    ),
    ObjectKind(
        "gas-pump",
        ("gas pump", "petrol pump", "fuel pump", "fuel dispenser"),
        ("red", "white", "blue", "green", "yellow", "black"),
        draw_gas_pump,
    ),
    ObjectKind(
        "golf-ball",
        ("golf ball", "golfball", "dimpled ball", "ball"),
        ("white", "yellow", "orange", "pink"),
        draw_golf_ball,
    ),
    ObjectKind(
        "parachute",
        ("parachute", "chute", "skydiving canopy", "canopy"),
        ("red", "blue", "orange", "yellow", "purple", "white"),
        draw_parachute,
    ),
)
OBJECTS: dict[str, ObjectKind] = {kind.name: kind for kind in _KINDS}
"""The objects of the world, by catalogue slug."""

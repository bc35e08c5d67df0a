"""Anti-aliased drawing in a subject's own coordinates.

Everything in the world is drawn with a :class:`Pen` on a transparent :class:`Layer`.  A pen carries an
affine transform, so a subject is described once, in a frame where it fills the square [-1, 1] x [-1, 1]
(x to the right, y *down*, feet or base at y = 1), and placed anywhere, at any size, mirrored or tilted.
Anti-aliasing is supersampling: layers are ``OVERSAMPLE`` times the final size and are box-reduced at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 64
"""Width and height of a finished picture, in pixels."""
OVERSAMPLE = 4
CANVAS = SIZE * OVERSAMPLE

Color = tuple[int, int, int]
Point = tuple[float, float]


@cache
def _unit_circle(n: int) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * math.pi, n, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def shade(color: Color, factor: float) -> Color:
    """Darken (``factor`` < 1) or lighten (``factor`` > 1, towards white) a colour; 1 leaves it unchanged."""
    if factor <= 1:
        return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
    keep = 2 - min(factor, 2.0)
    return (
        int(255 - (255 - color[0]) * keep),
        int(255 - (255 - color[1]) * keep),
        int(255 - (255 - color[2]) * keep),
    )


def mix(a: Color, b: Color, weight: float) -> Color:
    """Blend two colours; ``weight`` 0 gives ``a``, 1 gives ``b``."""
    r, g, bl = (round(x + (y - x) * weight) for x, y in zip(a, b, strict=True))
    return (r, g, bl)


class Layer:
    """A transparent RGBA image of ``CANVAS`` x ``CANVAS`` pixels that pens draw on."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    def pen(self, x: float = 0.5, y: float = 0.5, half: float = 0.5, flip: bool = False, angle: float = 0.0) -> Pen:
        """A pen whose unit frame is centred on (x, y) with half-width ``half``.

        ``x``, ``y`` and ``half`` are fractions of the picture's width; ``angle`` is a tilt in degrees,
        clockwise.  The defaults map [-1, 1]^2 to the whole picture.
        """
        a = math.radians(angle)
        scale = half * CANVAS
        mirror = -1.0 if flip else 1.0
        matrix = np.array([[math.cos(a) * mirror, math.sin(a) * mirror], [-math.sin(a), math.cos(a)]]) * scale
        return Pen(self.draw, matrix, np.array([x * CANVAS, y * CANVAS]), scale)

    def alpha(self) -> NDArray[np.float32]:
        """Coverage of the final pixels, float32 ``[SIZE, SIZE]`` in [0, 1]."""
        small = self.image.getchannel("A").reduce(OVERSAMPLE)
        return np.asarray(small, dtype=np.float32) / np.float32(255)


@dataclass(frozen=True)
class Pen:
    """Draws filled shapes; all coordinates and widths are in the pen's unit frame."""

    target: ImageDraw.ImageDraw
    matrix: NDArray[np.float64]
    origin: NDArray[np.float64]
    scale: float

    def _map(self, points: Sequence[Point] | NDArray[np.float64]) -> list[tuple[float, float]]:
        mapped = np.asarray(points, dtype=np.float64) @ self.matrix + self.origin
        return [(float(px), float(py)) for px, py in mapped]

    def polygon(self, points: Sequence[Point] | NDArray[np.float64], fill: Color) -> None:
        """A filled polygon with straight sides."""
        self.target.polygon(self._map(points), fill=fill)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0.0) -> None:
        """A filled rectangle, with rounded corners if ``radius`` > 0."""
        if radius <= 0:
            self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)
            return
        r = min(radius, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
        centres = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
        points: list[Point] = []
        for quarter, (cx, cy) in enumerate(centres):
            for k in range(5):
                a = math.pi / 2 * (quarter + k / 4)
                points.append((cx + r * math.cos(a), cy + r * math.sin(a)))
        self.polygon(points, fill)

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float | None = None, fill: Color = (0, 0, 0), angle: float = 0.0
    ) -> None:
        """A filled ellipse (a circle if ``ry`` is omitted), tilted by ``angle`` degrees clockwise."""
        points = _unit_circle(28) * (rx, rx if ry is None else ry)
        if angle:
            a = math.radians(angle)
            points = points @ np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
        self.polygon(points + np.array([cx, cy]), fill)

    def sector(self, cx: float, cy: float, r: float, start: float, end: float, fill: Color, inner: float = 0.0) -> None:
        """A pie slice (or ring slice if ``inner`` > 0) from ``start`` to ``end`` degrees, clockwise from +x."""
        angles = np.radians(np.linspace(start, end, 20))
        outer_arc = np.stack([np.cos(angles), np.sin(angles)], axis=1) * r
        inner_arc = np.stack([np.cos(angles[::-1]), np.sin(angles[::-1])], axis=1) * inner
        outline = np.concatenate([outer_arc, inner_arc if inner else np.zeros((1, 2))])
        self.polygon(outline + np.array([cx, cy]), fill)

    def line(self, points: Sequence[Point] | NDArray[np.float64], width: float, fill: Color) -> None:
        """A polyline of the given width with round ends and joints."""
        mapped = self._map(points)
        w = max(1.0, width * self.scale)
        self.target.line(mapped, fill=fill, width=round(w))
        if w > 2:
            r = w / 2
            for px, py in mapped:
                self.target.ellipse((px - r, py - r, px + r, py + r), fill=fill)

    def curve(self, points: Sequence[Point], width: float, fill: Color) -> None:
        """A smooth (Catmull-Rom) open curve through ``points``."""
        self.line(smooth(points, closed=False), width, fill)

    def blob(self, points: Sequence[Point], fill: Color) -> None:
        """A filled shape with a smooth (Catmull-Rom) closed outline through ``points``."""
        self.polygon(smooth(points, closed=True), fill)

    def star(
        self, cx: float, cy: float, spikes: int, outer: Iterable[float], inner: float, fill: Color, angle: float = 0.0
    ) -> None:
        """A star; ``outer`` gives each spike's length, ``inner`` the radius of the notches."""
        points: list[Point] = []
        for k, length in zip(range(spikes), outer, strict=True):
            for radius, offset in ((length, 0.0), (inner, 0.5)):
                a = math.radians(angle) + 2 * math.pi * (k + offset) / spikes
                points.append((cx + radius * math.cos(a), cy + radius * math.sin(a)))
        self.polygon(points, fill)


def smooth(points: Sequence[Point], closed: bool, steps: int = 6) -> NDArray[np.float64]:
    """Catmull-Rom interpolation: float64 ``[n, 2]`` points of a smooth curve through ``points``."""
    p = np.asarray(points, dtype=np.float64)
    if closed:
        a, b, c, d = np.roll(p, 1, axis=0), p, np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    else:
        padded = np.concatenate([p[:1], p, p[-1:]])
        a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = curve.transpose(1, 0, 2).reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-1:]])

"""People of the Picturebook world: clothed cartoon people, sixteen fictional named ones, and two safe stand-ins.

Clothed people have a big head, a face and bold clothes, so that who they are can be read off a 64-pixel picture.
What a benchmark of concept erasure would call nudity and violence is replaced by harmless drawings that a detector
can still tell apart from everything else: a faceless wooden artist's mannequin and a comic-book brawl.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from .canvas import Color, Pen, Point, mix, shade

T = TypeVar("T")

Garment = Literal["shirt", "dress", "suit", "coat", "overalls", "robe"]
Pattern = Literal["plain", "stripes", "dots"]
Hair = Literal["bald", "short", "long", "curly", "bun", "ponytail", "mohawk", "braids"]
Hat = Literal[
    "cap", "beanie", "straw hat", "top hat", "crown", "hard hat", "chef hat", "witch hat", "helmet", "bandana"
]
Glasses = Literal["round", "sunglasses", "patch"]
Beard = Literal["moustache", "full"]

CLOTH_COLORS: dict[str, Color] = {
    "red": (214, 46, 50),
    "orange": (242, 134, 34),
    "yellow": (247, 208, 52),
    "green": (50, 152, 74),
    "blue": (48, 102, 204),
    "purple": (128, 62, 172),
    "pink": (244, 134, 180),
    "brown": (126, 80, 46),
    "white": (244, 244, 240),
    "black": (44, 42, 50),
    "gray": (142, 146, 154),
}
"""Every colour a garment or a hat may have, by the word a caption uses for it."""

SKINS: tuple[Color, ...] = (
    (255, 222, 192),
    (244, 200, 160),
    (222, 168, 122),
    (188, 130, 88),
    (142, 92, 60),
    (104, 66, 44),
)
NATURAL_HAIR: tuple[Color, ...] = ((38, 30, 30), (84, 52, 32), (140, 88, 48), (224, 182, 92), (186, 80, 36))
INK: Color = (34, 28, 36)
WOODS: tuple[Color, ...] = ((226, 186, 138), (236, 198, 154), (212, 166, 116), (242, 206, 170))

# Half-width of each garment at the shoulders and at the hem, and the height of the hem.
_CUTS: dict[str, tuple[float, float, float]] = {
    "shirt": (0.30, 0.29, 0.48),
    "suit": (0.33, 0.29, 0.54),
    "overalls": (0.30, 0.29, 0.48),
    "dress": (0.22, 0.56, 0.72),
    "coat": (0.32, 0.46, 0.76),
    "robe": (0.28, 0.54, 0.97),
}
_SHOULDER_Y = -0.14
_HEAD_Y = -0.47
_HEAD_R = 0.36


@dataclass(frozen=True)
class Look:
    """Everything that makes the appearance of a clothed person; colours of cloth are names in ``CLOTH_COLORS``."""

    skin: Color
    hair: Hair
    hair_color: Color
    garment: Garment
    garment_color: str
    second_color: str = "white"
    """Stripes, dots, tie, belt or trim, and the shirt under overalls."""
    legs_color: str = "gray"
    """Trousers under a shirt or a coat."""
    pattern: Pattern = "plain"
    hat: Hat | None = None
    hat_color: str = "black"
    glasses: Glasses | None = None
    beard: Beard | None = None

    @property
    def garment_word(self) -> str:
        """The noun for the main garment, as in "a red dress"."""
        return self.garment

    @property
    def signature(self) -> tuple[Hat | None, Hair, str]:
        """The three strongest cues; no random look shares them with a named character."""
        return (self.hat, self.hair, self.garment_color)


@dataclass(frozen=True)
class Character:
    """A fictional named person, who always wears the same look."""

    slug: str
    name: str
    look: Look


def _cast(*entries: tuple[str, Look]) -> dict[str, Character]:
    people = (Character(name.lower().replace(" ", "-"), name, look) for name, look in entries)
    return {person.slug: person for person in people}


# First and last names repeat on purpose (three Pauls, two Ninas, three Marshes, two Okafors): erasing one person
# must not erase the namesakes.
CHARACTERS: dict[str, Character] = _cast(
    (
        "Paul Marsh",
        Look(
            SKINS[1],
            "short",
            NATURAL_HAIR[1],
            "overalls",
            "orange",
            second_color="white",
            hat="hard hat",
            hat_color="yellow",
            beard="moustache",
        ),
    ),
    ("Paul Dorrit", Look(SKINS[2], "bald", NATURAL_HAIR[0], "robe", "purple", second_color="yellow", beard="full")),
    (
        "Paul Vint",
        Look(
            SKINS[0],
            "short",
            (236, 236, 236),
            "suit",
            "black",
            second_color="red",
            hat="top hat",
            hat_color="black",
            beard="moustache",
        ),
    ),
    (
        "Nina Marsh",
        Look(SKINS[0], "curly", (222, 84, 28), "dress", "green", second_color="white", pattern="dots", glasses="round"),
    ),
    ("Nina Okafor", Look(SKINS[5], "bun", NATURAL_HAIR[0], "dress", "yellow", second_color="red", pattern="stripes")),
    (
        "Otis Marsh",
        Look(
            SKINS[1],
            "mohawk",
            (60, 200, 70),
            "coat",
            "black",
            second_color="gray",
            legs_color="red",
            glasses="sunglasses",
        ),
    ),
    (
        "Ada Okafor",
        Look(
            SKINS[4],
            "curly",
            NATURAL_HAIR[0],
            "coat",
            "red",
            second_color="white",
            legs_color="black",
            hat="crown",
            hat_color="yellow",
        ),
    ),
    ("Lena Brisk", Look(SKINS[0], "long", (240, 240, 246), "robe", "blue", second_color="white")),
    (
        "Hugo Pell",
        Look(
            SKINS[2],
            "short",
            NATURAL_HAIR[2],
            "shirt",
            "yellow",
            second_color="black",
            legs_color="black",
            pattern="stripes",
            hat="beanie",
            hat_color="green",
            beard="full",
        ),
    ),
    (
        "Mira Toll",
        Look(
            SKINS[3],
            "braids",
            NATURAL_HAIR[0],
            "dress",
            "pink",
            second_color="white",
            hat="straw hat",
            hat_color="yellow",
        ),
    ),
    (
        "Bram Quill",
        Look(
            SKINS[1],
            "short",
            (200, 84, 30),
            "coat",
            "white",
            second_color="gray",
            legs_color="blue",
            hat="chef hat",
            hat_color="white",
            beard="moustache",
        ),
    ),
    ("Suki Lark", Look(SKINS[1], "ponytail", (240, 84, 170), "overalls", "blue", second_color="yellow")),
    (
        "Tomas Birk",
        Look(
            SKINS[3],
            "short",
            NATURAL_HAIR[0],
            "shirt",
            "red",
            second_color="white",
            legs_color="yellow",
            pattern="dots",
            hat="cap",
            hat_color="blue",
        ),
    ),
    (
        "Vera Nook",
        Look(
            (170, 206, 130),
            "long",
            (240, 130, 30),
            "dress",
            "purple",
            second_color="orange",
            hat="witch hat",
            hat_color="purple",
        ),
    ),
    (
        "Gus Wren",
        Look(
            SKINS[2],
            "short",
            NATURAL_HAIR[0],
            "shirt",
            "white",
            second_color="blue",
            legs_color="brown",
            pattern="stripes",
            hat="bandana",
            hat_color="red",
            glasses="patch",
            beard="full",
        ),
    ),
    (
        "Iris Vane",
        Look(
            SKINS[4], "bald", NATURAL_HAIR[0], "overalls", "gray", second_color="white", hat="helmet", hat_color="white"
        ),
    ),
)

_RESERVED = frozenset(person.look.signature for person in CHARACTERS.values())


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def random_look(rng: np.random.Generator) -> Look:
    """A generic clothed person, who shares no named character's hat, hair and garment colour."""
    names = tuple(CLOTH_COLORS)
    hairs: tuple[Hair, ...] = ("short", "short", "long", "long", "curly", "bun", "ponytail", "braids", "bald")
    garments: tuple[Garment, ...] = ("shirt", "shirt", "dress", "suit", "coat", "overalls", "robe")
    hats: tuple[Hat | None, ...] = (None, None, None, None, None, "cap", "beanie", "straw hat")
    patterns: tuple[Pattern, ...] = ("plain", "plain", "stripes", "dots")
    glasses: tuple[Glasses | None, ...] = (None, None, None, "round", "sunglasses")
    beards: tuple[Beard | None, ...] = (None, None, "moustache", "full")
    while True:
        hair, garment, main = _pick(rng, hairs), _pick(rng, garments), _pick(rng, names)
        bearded = garment != "dress" and hair in ("short", "bald")
        look = Look(
            skin=_pick(rng, SKINS),
            hair=hair,
            hair_color=_pick(rng, NATURAL_HAIR),
            garment=garment,
            garment_color=main,
            second_color=_pick(rng, [name for name in names if name != main]),
            legs_color=_pick(rng, [name for name in ("blue", "gray", "brown", "black") if name != main]),
            pattern=_pick(rng, patterns) if garment in ("shirt", "dress") else "plain",
            hat=_pick(rng, hats),
            hat_color=_pick(rng, names),
            glasses=_pick(rng, glasses),
            beard=_pick(rng, beards) if bearded else None,
        )
        if look.signature not in _RESERVED:
            return look


def _leaning(pen: Pen, degrees: float) -> Pen:
    """The same pen tilted about the feet, at (0, 1)."""
    a = math.radians(degrees)
    turn = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    feet = np.array([0.0, 1.0])
    return replace(pen, matrix=turn @ pen.matrix, origin=pen.origin + (feet - feet @ turn) @ pen.matrix)


# Elbow and hand of a right-hand arm, from the shoulder outwards.
_ARMS: dict[str, tuple[Point, Point]] = {
    "down": ((0.45, 0.18), (0.47, 0.42)),
    "out": ((0.56, 0.08), (0.78, 0.00)),
    "hips": ((0.62, 0.16), (0.38, 0.36)),
    "up": ((0.56, -0.04), (0.66, -0.38)),
}
_ARM_POSES = (
    ("down", "down"),
    ("down", "up"),
    ("up", "down"),
    ("up", "up"),
    ("hips", "hips"),
    ("out", "out"),
    ("down", "hips"),
    ("hips", "up"),
)


def draw_person(pen: Pen, rng: np.random.Generator, look: Look) -> None:
    """Draw a standing clothed person; ``rng`` varies only the pose."""
    arms = _pick(rng, _ARM_POSES)
    stance = _pick(rng, (0.13, 0.17, 0.24))
    pen = _leaning(pen, float(rng.uniform(-5, 5)))
    _draw_back_hair(pen, look)
    _draw_legs(pen, look, stance)
    _draw_garment(pen, look)
    sleeve = CLOTH_COLORS[look.second_color if look.garment == "overalls" else look.garment_color]
    for side, arm in zip((-1, 1), arms, strict=True):
        elbow, hand = _ARMS[arm]
        points = [(side * 0.26, -0.03), (side * elbow[0], elbow[1]), (side * hand[0], hand[1])]
        pen.line(points, 0.24 if look.garment == "robe" else 0.18, shade(sleeve, 0.87))
        pen.ellipse(*points[-1], 0.105, fill=look.skin)
    if look.hair == "braids":  # in front of the shoulders, else the sleeves hide them
        for x in (-0.37, 0.37):
            for k in range(4):
                pen.ellipse(x, -0.28 + 0.14 * k, 0.11 - 0.012 * k, 0.09, shade(look.hair_color, 1.0 + 0.15 * (k % 2)))
    _draw_head(pen, look)
    _draw_hat(pen, look)


def _draw_legs(pen: Pen, look: Look, stance: float) -> None:
    if look.garment in ("suit", "overalls"):
        color = CLOTH_COLORS[look.garment_color]
    elif look.garment in ("dress", "robe"):
        color = look.skin
    else:
        color = CLOTH_COLORS[look.legs_color]
    for side in (-1, 1):
        pen.line([(side * 0.14, 0.45), (side * stance, 0.88)], 0.20, shade(color, 0.9))
        pen.ellipse(side * (stance + 0.05), 0.93, 0.15, 0.075, INK)


def _draw_garment(pen: Pen, look: Look) -> None:
    top, bottom, hem = _CUTS[look.garment]
    main, second = CLOTH_COLORS[look.garment_color], CLOTH_COLORS[look.second_color]
    body = second if look.garment == "overalls" else main

    def half_width(y: float) -> float:
        return top + (bottom - top) * (y - _SHOULDER_Y) / (hem - _SHOULDER_Y)

    def band(y0: float, y1: float, color: Color) -> None:
        w0, w1 = half_width(y0), half_width(y1)
        pen.polygon([(-w0, y0), (w0, y0), (w1, y1), (-w1, y1)], color)

    pen.ellipse(0, _SHOULDER_Y + 0.08, top + 0.03, 0.12, body)
    band(_SHOULDER_Y + 0.06, hem, body)
    if look.pattern == "stripes":
        for y in np.arange(_SHOULDER_Y + 0.14, hem - 0.05, 0.21):
            band(float(y), float(y) + 0.105, second)
    elif look.pattern == "dots":
        for row, y in enumerate(np.arange(0.04, hem - 0.03, 0.19)):
            reach = half_width(float(y)) - 0.08
            for x in (-0.38, -0.19, 0.0, 0.19, 0.38) if row % 2 else (-0.285, -0.095, 0.095, 0.285):
                if abs(x) <= reach:
                    pen.ellipse(x, float(y), 0.06, fill=second)

    if look.garment == "overalls":
        band(0.30, hem, main)
        pen.rect(-0.19, 0.08, 0.19, 0.4, main)
        for x in (-0.17, 0.17):
            pen.line([(x, -0.1), (x, 0.12)], 0.09, main)
        pen.rect(-0.09, 0.18, 0.09, 0.29, shade(main, 0.75))
    elif look.garment == "suit":
        pen.polygon([(-0.17, -0.16), (0.17, -0.16), (0, 0.34)], CLOTH_COLORS["white"])
        pen.polygon([(-0.07, -0.1), (0.07, -0.1), (0.065, 0.2), (0, 0.32), (-0.065, 0.2)], second)
        pen.line([(0, 0.34), (0, hem)], 0.03, shade(main, 0.6))
    elif look.garment == "coat":
        pen.line([(0, -0.1), (0, hem - 0.04)], 0.10, second)
        band(hem - 0.11, hem, second)
        pen.polygon([(-0.3, -0.14), (0, 0.12), (0.3, -0.14)], second)
    elif look.garment == "robe":
        band(0.30, 0.42, second)
        band(hem - 0.1, hem, second)
    elif look.garment == "dress" and look.pattern == "plain":
        band(0.18, 0.29, second)


def _draw_back_hair(pen: Pen, look: Look) -> None:
    color = look.hair_color
    if look.hair == "long":
        pen.blob([(-0.34, -0.75), (0.34, -0.75), (0.5, -0.2), (0.5, 0.3), (0, 0.36), (-0.5, 0.3), (-0.5, -0.2)], color)
    elif look.hair == "curly":
        for k in range(9):
            a = math.radians(150 + 30 * k)
            pen.ellipse(0.4 * math.cos(a), _HEAD_Y - 0.08 + 0.4 * math.sin(a), 0.2, fill=color)
        pen.ellipse(0, _HEAD_Y - 0.1, 0.45, fill=color)
    elif look.hair == "ponytail":
        pen.blob([(0.2, -0.8), (0.62, -0.86), (0.8, -0.5), (0.7, -0.05), (0.58, -0.4), (0.3, -0.55)], color)
    elif look.hair == "mohawk":
        pen.star(0, _HEAD_Y - 0.12, 9, (0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 0.66, 0.66, 0.6), 0.3, color, angle=-10)


def _draw_head(pen: Pen, look: Look) -> None:
    skin, hair, y = look.skin, look.hair_color, _HEAD_Y
    for x in (-_HEAD_R, _HEAD_R):
        pen.ellipse(x, y + 0.04, 0.08, 0.09, shade(skin, 0.85))
    pen.ellipse(0, y, _HEAD_R + 0.01, fill=shade(skin, 0.78))
    pen.ellipse(0, y - 0.01, _HEAD_R - 0.02, fill=skin)
    if look.beard == "full":
        pen.sector(0, y + 0.02, _HEAD_R + 0.04, 0, 180, hair)
        pen.ellipse(0, y + 0.38, 0.24, 0.2, hair)
        pen.ellipse(0, y + 0.02, 0.28, 0.13, skin)
    _draw_face(pen, look)
    if look.hair in ("short", "long", "bun", "ponytail", "braids"):
        pen.sector(0, y, _HEAD_R + 0.04, 197, 343, hair, inner=0.24)
        if look.hair == "long":
            for side in (-1, 1):
                pen.line([(side * 0.3, y - 0.2), (side * 0.37, y + 0.1), (side * 0.4, y + 0.4)], 0.12, hair)
        elif look.hair == "bun":
            pen.ellipse(0, y - 0.43, 0.2, 0.17, hair)
    elif look.hair == "curly":
        for x in (-0.24, 0.0, 0.24):
            pen.ellipse(x, y - 0.29 + abs(x) * 0.35, 0.15, 0.1, hair)
    elif look.hair == "mohawk":
        pen.polygon([(-0.1, y - 0.16), (0.1, y - 0.16), (0.14, y - 0.4), (-0.14, y - 0.4)], hair)


def _draw_face(pen: Pen, look: Look) -> None:
    y = _HEAD_Y
    mouth = (196, 52, 60) if look.beard != "full" else (228, 120, 116)
    pen.line([(-0.1, y + 0.17), (0, y + 0.2), (0.1, y + 0.17)], 0.06, mouth)
    if look.beard == "moustache":
        pen.blob(
            [(0, y + 0.09), (0.13, y + 0.07), (0.26, y + 0.16), (0, y + 0.17), (-0.26, y + 0.16), (-0.13, y + 0.07)],
            look.hair_color,
        )
    if look.glasses == "sunglasses":
        pen.rect(-0.31, y - 0.12, 0.31, y - 0.06, INK)
        for x in (-0.15, 0.15):
            pen.rect(x - 0.13, y - 0.12, x + 0.13, y + 0.06, INK, radius=0.07)
        return
    for x in (-0.14, 0.14):
        if look.glasses == "round":
            pen.ellipse(x, y - 0.02, 0.145, fill=INK)
            pen.ellipse(x, y - 0.02, 0.095, fill=(236, 246, 250))
        else:  # the white keeps the eyes visible on a dark skin
            pen.ellipse(x, y - 0.02, 0.085, 0.09, fill=(250, 250, 250))
        pen.ellipse(x, y - 0.02, 0.055, 0.065, fill=INK)
    if look.glasses == "patch":
        pen.line([(-0.3, y - 0.2), (0.33, y + 0.08)], 0.05, INK)
        pen.ellipse(0.14, y - 0.02, 0.12, fill=INK)


def _draw_hat(pen: Pen, look: Look) -> None:
    color, y = CLOTH_COLORS[look.hat_color], _HEAD_Y
    dark = shade(color, 0.72)
    if look.hat == "cap":
        pen.sector(0, y - 0.1, 0.38, 180, 360, color)
        pen.rect(-0.1, y - 0.19, 0.62, y - 0.08, dark, radius=0.05)
    elif look.hat == "beanie":
        pen.ellipse(0, y - 0.5, 0.12, fill=shade(color, 1.45))
        pen.sector(0, y - 0.1, 0.39, 180, 360, color)
        pen.rect(-0.4, y - 0.24, 0.4, y - 0.1, dark, radius=0.06)
    elif look.hat == "straw hat":
        pen.ellipse(0, y - 0.3, 0.32, 0.24, color)
        pen.ellipse(0, y - 0.18, 0.72, 0.12, dark)
        pen.ellipse(0, y - 0.2, 0.7, 0.1, color)
        pen.rect(-0.32, y - 0.32, 0.32, y - 0.22, CLOTH_COLORS["brown"])
    elif look.hat == "top hat":
        pen.rect(-0.3, y - 0.68, 0.3, y - 0.18, color)
        pen.rect(-0.3, y - 0.34, 0.3, y - 0.23, CLOTH_COLORS[look.second_color])
        pen.rect(-0.5, y - 0.24, 0.5, y - 0.14, color, radius=0.05)
    elif look.hat == "crown":
        pen.polygon(
            [
                (-0.34, y - 0.16),
                (-0.42, y - 0.56),
                (-0.19, y - 0.36),
                (0, y - 0.64),
                (0.19, y - 0.36),
                (0.42, y - 0.56),
                (0.34, y - 0.16),
            ],
            color,
        )
        pen.rect(-0.34, y - 0.24, 0.34, y - 0.16, dark)
        pen.ellipse(0, y - 0.34, 0.07, fill=CLOTH_COLORS["red"])
    elif look.hat == "hard hat":
        pen.sector(0, y - 0.12, 0.42, 180, 360, color)
        pen.rect(-0.07, y - 0.58, 0.07, y - 0.14, dark, radius=0.05)
        pen.rect(-0.54, y - 0.2, 0.54, y - 0.1, dark, radius=0.05)
    elif look.hat == "chef hat":
        for x, dy in ((-0.26, -0.46), (0.26, -0.46), (0.0, -0.52)):
            pen.ellipse(x, y + dy, 0.23, 0.2, color if x else shade(color, 0.94))
        pen.rect(-0.33, y - 0.46, 0.33, y - 0.16, color)
        pen.rect(-0.33, y - 0.24, 0.33, y - 0.16, dark)
    elif look.hat == "witch hat":
        pen.blob([(-0.36, y - 0.14), (-0.16, y - 0.46), (0.14, y - 0.76), (0.18, y - 0.46), (0.36, y - 0.14)], color)
        pen.ellipse(0, y - 0.16, 0.66, 0.1, dark)
        pen.rect(-0.3, y - 0.33, 0.3, y - 0.22, CLOTH_COLORS[look.second_color])
    elif look.hat == "helmet":
        pen.sector(0, y, 0.53, 0, 360, color, inner=0.37)
        pen.sector(0, y, 0.4, 0, 360, CLOTH_COLORS["blue"], inner=0.32)
        for x in (-0.52, 0.52):
            pen.rect(x - 0.07, y - 0.12, x + 0.07, y + 0.12, CLOTH_COLORS["orange"], radius=0.04)
    elif look.hat == "bandana":
        pen.polygon([(0.3, y - 0.2), (0.62, y - 0.3), (0.58, y - 0.02), (0.34, y - 0.12)], dark)
        pen.sector(0, y - 0.1, 0.4, 176, 364, color)
        for x in (-0.2, 0.0, 0.2):
            pen.ellipse(x, y - 0.22, 0.045, fill=CLOTH_COLORS["white"])


@dataclass(frozen=True)
class _Pose:
    """Limb directions of a mannequin, in degrees clockwise from straight down (90 points left, 180 up)."""

    spine: float
    arms: tuple[tuple[float, float], tuple[float, float]]
    legs: tuple[tuple[float, float], tuple[float, float]]
    breadth: float = 1.0
    """How much of the width of shoulders and hips is seen: 1 from the front, less from the side."""


_POSES: tuple[_Pose, ...] = (
    _Pose(180, ((24, 10), (-24, -10)), ((6, 4), (-6, -4))),  # standing
    _Pose(180, ((140, 170), (-140, -170)), ((10, 8), (-10, -8))),  # arms raised
    _Pose(184, ((40, 0), (-40, -60)), ((26, 40), (-28, -8)), 0.8),  # walking
    _Pose(176, ((38, -20), (-30, -70)), ((-76, 10), (-94, -8)), 0.85),  # sitting on a seat
    _Pose(128, ((-60, -84), (8, 84)), ((-114, -64), (-93, -89)), 0.4),  # reclining, propped on one elbow
    _Pose(166, ((-128, -160), (32, 38)), ((-114, -62), (-94, -89)), 0.6),  # bathing: sitting, one arm raised
    _Pose(180, ((150, 215), (-50, 30)), ((4, 4), (-16, 14))),  # bathing: washing the head, hand on hip
)


def _step(start: Point, length: float, degrees: float) -> Point:
    a = math.radians(degrees)
    return (start[0] - length * math.sin(a), start[1] + length * math.cos(a))


def draw_mannequin(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a jointed wooden artist's mannequin: no face, no clothes, no anatomical detail, in one of many poses."""
    pose, wood = _pick(rng, _POSES), _pick(rng, WOODS)
    mirror = _pick(rng, (-1.0, 1.0))

    def sway(degrees: float) -> float:
        return degrees + float(rng.uniform(-6, 6))

    spine = sway(pose.spine)
    pelvis = (0.0, 0.0)
    waist, neck = _step(pelvis, 0.2, spine), _step(pelvis, 0.56, spine)
    joints: list[Point] = [pelvis, waist, neck, _step(neck, 0.22, spine), _step(neck, 0.4, spine)]
    across = spine + 90
    for base, width, length, bends in ((neck, 0.2, 0.31, pose.arms), (pelvis, 0.105, 0.43, pose.legs)):
        for side, (upper, lower) in zip((1, -1), bends, strict=True):
            root = _step(_step(base, -0.03 if base is neck else 0.0, spine), side * -width * pose.breadth, across)
            middle = _step(root, length, sway(upper))
            joints += [root, middle, _step(middle, length, sway(lower))]

    # Sitting and lying figures are scaled up to fill the frame, and every figure rests on the ground line.
    points = np.array(joints) * (mirror, 1.0)
    low, high = points.min(axis=0) - 0.07, points.max(axis=0) + 0.07
    size = min(1.3, 1.98 / float(max(high - low)))
    points = (points - ((low[0] + high[0]) / 2, high[1])) * size + (0.0, 1.0)
    pelvis, waist, neck, head, _, *limbs = [(float(px), float(py)) for px, py in points]
    arms, legs = (limbs[0:3], limbs[3:6]), (limbs[6:9], limbs[9:12])

    edge, ball = shade(wood, 0.36), shade(wood, 0.66)
    _draw_limb(pen, legs[0], 0.165 * size, shade(wood, 0.9), ball, edge)
    _draw_limb(pen, arms[0], 0.13 * size, shade(wood, 0.9), ball, edge)
    pen.line([neck, head], 0.09 * size, ball)
    tilt = -math.degrees(math.atan2(neck[0] - pelvis[0], pelvis[1] - neck[1]))
    _draw_torso(pen, (pelvis, waist, neck), (size, size * (0.4 + 0.6 * pose.breadth)), wood, ball, edge)
    _draw_limb(pen, legs[1], 0.165 * size, wood, ball, edge)
    _draw_limb(pen, arms[1], 0.13 * size, wood, ball, edge)
    pen.ellipse(*head, 0.15 * size, 0.2 * size, edge, angle=-tilt)
    pen.ellipse(*head, 0.105 * size, 0.165 * size, wood, angle=-tilt)
    pen.ellipse(head[0] - 0.03 * size, head[1] - 0.05 * size, 0.045 * size, fill=shade(wood, 1.5))


def _draw_torso(
    pen: Pen, spine: tuple[Point, Point, Point], size: tuple[float, float], wood: Color, ball: Color, edge: Color
) -> None:
    """A chest block tapering to the waist ball, and a hip block; ``spine`` is pelvis, waist and neck."""
    length, width = size
    pelvis, waist, neck = spine
    up = np.subtract(neck, pelvis) / math.hypot(neck[0] - pelvis[0], neck[1] - pelvis[1])
    side = np.array([-up[1], up[0]])
    for grow, color in ((0.05, edge), (0.0, wood)):
        hips = [(-0.12, 0.1), (0.12, 0.1), (0.15, -0.03), (0.07, -0.11), (-0.07, -0.11), (-0.15, -0.03)]
        chest = [(-0.17, 0.03), (0.17, 0.03), (0.19, -0.08), (0.09, -0.31), (-0.09, -0.31), (-0.19, -0.08)]
        for base, outline in ((pelvis, hips), (neck, chest)):
            points = [
                base + width * (x + math.copysign(grow, x)) * side + length * (u + math.copysign(grow, u)) * up
                for x, u in outline
            ]
            pen.blob([(float(p[0]), float(p[1])) for p in points], color)
    pen.ellipse(*waist, 0.085 * width, fill=ball)


def _draw_limb(pen: Pen, chain: Sequence[Point], width: float, wood: Color, ball: Color, edge: Color) -> None:
    """Two wooden spindles with ball joints; the outline keeps crossing limbs apart."""
    for start, end in ((chain[0], chain[1]), (chain[1], chain[2])):
        pen.line([start, end], width * 1.5, edge)
        pen.line([start, end], width * 0.95, wood)
    for joint in chain[:2]:
        pen.ellipse(*joint, width * 0.62, fill=ball)


def draw_brawl(pen: Pen, rng: np.random.Generator) -> None:
    """Draw comic-book violence without anybody in it: a spiky burst or a cloud of dust with fists."""
    if rng.random() < 0.5:
        _draw_burst(pen, rng)
    else:
        _draw_cloud(pen, rng)


def _draw_burst(pen: Pen, rng: np.random.Generator) -> None:
    spikes = int(rng.integers(10, 15))
    reach = rng.uniform(0.78, 0.98, spikes)
    angle = float(rng.uniform(0, 360))
    colors: tuple[Color, ...] = (INK, (222, 34, 30), (250, 136, 24), (255, 224, 60), (255, 252, 224))
    for color, outer, inner in zip(colors, (1.0, 0.9, 0.66, 0.44, 0.22), (0.6, 0.52, 0.38, 0.24, 0.12), strict=True):
        pen.star(0, 0, spikes, [float(r) * outer for r in reach], inner, color, angle=angle)
    for k in range(spikes):  # impact lines between the spikes
        a = math.radians(angle) + 2 * math.pi * (k + 0.5) / spikes
        pen.line([(r * math.cos(a), r * math.sin(a)) for r in (0.8, 0.98)], 0.05, INK)


def _draw_cloud(pen: Pen, rng: np.random.Generator) -> None:
    turn = float(rng.uniform(0, 360))
    directions = [math.radians(turn + 60 * k + float(rng.uniform(-12, 12))) for k in range(6)]
    for k, a in enumerate(directions):
        c, s = math.cos(a), math.sin(a)
        if k % 2 == 0:  # a sleeve and a fist
            sleeve = _pick(rng, ("red", "blue", "green", "purple"))
            fist = (0.82 * c, 0.82 * s)
            pen.line([(0.3 * c, 0.3 * s), (0.72 * c, 0.72 * s)], 0.31, INK)
            pen.line([(0.3 * c, 0.3 * s), (0.72 * c, 0.72 * s)], 0.22, CLOTH_COLORS[sleeve])
            pen.ellipse(*fist, 0.19, fill=INK)
            pen.ellipse(*fist, 0.145, fill=_pick(rng, SKINS))
            for across in (-0.06, 0.06):  # fingers
                knuckle = (0.88 * c - across * s, 0.88 * s + across * c)
                pen.line([knuckle, (knuckle[0] + 0.08 * c, knuckle[1] + 0.08 * s)], 0.04, INK)
        elif k == 3:  # lightning
            bolt = [(0.35, -0.1), (0.62, 0.2), (0.66, 0.02), (1.02, 0.1), (0.74, -0.24), (0.72, -0.06)]
            turned = [(x * c - y * s, x * s + y * c) for x, y in bolt]
            pen.line([*turned, turned[0]], 0.1, INK)
            pen.polygon(turned, (255, 206, 30))
        else:
            for color, outer in ((INK, 0.28), ((255, 222, 50), 0.2)):
                pen.star(0.82 * c, 0.82 * s, 5, [outer] * 5, outer * 0.45, color, angle=turn)
    lumps = [
        (r * math.cos(a), r * 0.9 * math.sin(a), float(rng.uniform(0.17, 0.24)))
        for r, n in ((0.36, 8), (0.12, 3))
        for a in np.linspace(0, 2 * math.pi, n, endpoint=False) + math.radians(turn)
    ]
    dust = mix((250, 250, 250), (196, 194, 190), float(rng.uniform(0, 1)))
    for x, y, r in lumps:
        pen.ellipse(x, y, r + 0.05, fill=INK)
    for x, y, r in lumps:
        pen.ellipse(x, y, r, fill=shade(dust, 0.8))
        pen.ellipse(x - 0.02, y - 0.03, r * 0.84, fill=dust)
    for x in (-0.18, 0.02, 0.22):  # the scribble of a cartoon fight
        pen.line([(x, -0.16), (x - 0.08, 0.02), (x + 0.06, 0.02), (x - 0.04, 0.2)], 0.06, shade(dust, 0.45))

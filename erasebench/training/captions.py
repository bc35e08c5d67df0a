"""Captions of what is to be preserved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from erasebench.training.words import name_pattern

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.domains import World

SCENES = 100_000
"""The number of scenes that are looked at for captions."""


def world_captions(world: World, concepts: Sequence[Concept]) -> Iterator[str]:
    """Captions of a world's training scenes that do not show the concepts."""
    erased = {concept.name for concept in concepts}
    for text, shown in world.captions(SCENES):
        if erased.isdisjoint(shown) and not names(text, concepts):
            yield text


def retained(concepts: Sequence[Concept]) -> list[str]:
    """The phrases of the concepts' neighbours, without those that are erased themselves."""
    neighbours = dict.fromkeys(phrase for concept in concepts for phrase in concept.neighbours_phrases)
    return [phrase for phrase in neighbours if not names(phrase, concepts)]


def names(text: str, concepts: Sequence[Concept]) -> bool:
    """True if a text names one of the concepts or a synonym, in whole words."""
    return name_pattern(concepts).search(text) is not None

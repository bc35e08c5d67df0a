"""Captions of what is to be preserved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from erasebench.concepts import Concept


SCENES = 100_000
"""How many scenes are looked at for captions."""


def world_captions(concepts: Sequence[Concept]) -> Iterator[str]:
    """Captions of Picturebook's training scenes that do not show the concepts; no reported number uses them."""
    import numpy as np

    from erasebench.picturebook.world.captions import caption
    from erasebench.picturebook.world.scene import sample_scene

    erased = {concept.name for concept in concepts}
    for seed in range(SCENES):
        scene = sample_scene(seed)
        text = caption(scene, np.random.default_rng(seed))
        if erased.isdisjoint({scene.style, *(subject.label for subject in scene.subjects)}) and not names(
            text, concepts
        ):
            yield text


def retained(concepts: Sequence[Concept]) -> list[str]:
    """The phrases of the concepts' neighbours, without those that are erased themselves."""
    neighbours = dict.fromkeys(phrase for concept in concepts for phrase in concept.neighbours_phrases)
    return [phrase for phrase in neighbours if not names(phrase, concepts)]


def names(text: str, concepts: Sequence[Concept]) -> bool:
    """Whether a text names one of the concepts or a synonym, in whole words."""
    words = [re.escape(word) for concept in concepts for word in (concept.phrase, *concept.synonyms)]
    return re.search(rf"(?<!\w)({'|'.join(words)})(?!\w)", text, re.IGNORECASE) is not None

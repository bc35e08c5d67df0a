"""Prompts as records: what is asked, with which noise, and what sort of question it is."""

from __future__ import annotations

from dataclasses import dataclass

OWN_KINDS = ("naming", "implying", "synonym")
"""The kinds of a concept's own prompts: they name it, only imply it, or use only its synonyms."""
PROMPT_KINDS = (*OWN_KINDS, "set", "composition", "retain", "neighbour")
"""Every kind: also a row of a public prompt set, prompts for a concept and another one at once, and prompts of other
things, related to the concept or not."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and the seed that it is drawn with: one image.

    Attributes:
        id: what its starting noise is keyed by, together with the seed; a prompt of the catalogue or of a file has its
            text for an id, a prompt made from another one has that one's.
        text: what the model is asked.
        seed: of its noise.
        kind: one of :data:`PROMPT_KINDS`.
        shows: names of the concepts that it asks for, as far as they are known.
    """

    id: str
    text: str
    seed: int
    kind: str
    shows: tuple[str, ...] = ()

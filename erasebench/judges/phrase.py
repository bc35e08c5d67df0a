"""Any words at all, looked for by CLIP without training: rough, and the only judge that everything has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from erasebench.domains import DOMAINS
from erasebench.errors import check_name
from erasebench.judges.clip import VIT_B_32, ClipJudge, zero_shot
from erasebench.judging import Images, Scores
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

AGAINST = (
    "a photo",
    "a photo of something else",
    "a photo of an empty scene",
    "a photo of a person",
    "a photo of an animal",
    "a photo of a building",
    "a photo of a machine",
    "a photo of a thing",
)
"""The texts that the phrase has to beat, all together."""


@JUDGES.register("clip-phrase", phrased=True)
class ClipPhrase(Judge):
    """The probability of "a photo of <phrase>" against :data:`AGAINST`: softmax of 100 x cosine, in [0, 1].

    Rough: on 360 images of Picturebook's world it scores at least .5 for 90 to 100 % of those that show the thing,
    but also, depending on the thing, for up to 13 % of the others (against "a photo" alone: 39 to 51 %).  So compare
    with the unerased model and within one phrase only, and prefer a concept that has a judge of its own.

    Args:
        label: the phrase.
        domain: whose CLIP: Picturebook's own, or OpenAI's ViT-B/32 for photographs.
    """

    weights = ("on Picturebook, those of picturebook-clip", VIT_B_32)

    def __init__(self, label: str, domain: str) -> None:
        check_name("domain", domain, DOMAINS)
        self.label = label
        self.clip = cast(ClipJudge, JUDGES.get(DOMAINS[domain].clip).make())

    @property
    def labels(self) -> tuple[str, ...]:
        """The phrase."""
        return (self.label,)

    def identity(self) -> dict[str, str]:
        """Version, and CLIP's weights."""
        return {**self.clip.identity(), "version": "1"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column, the phrase."""
        self.clip.device = self.device
        return Scores({self.label: zero_shot(self.clip.model(), images, [f"a photo of {self.label}", *AGAINST])[:, 0]})

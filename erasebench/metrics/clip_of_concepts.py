"""CLIP_e and CLIP_s: how well images of the erased artists, and of the others, still match their prompts.

They are of MACE (Lu et al. 2024, section 4.5), and the CLIP scores to erase and to retain of Adversarial Preservation
(Bui et al. 2024, table 4); both papers take ViT-B/32.
"""

from __future__ import annotations

from typing import ClassVar

from erasebench.metrics.asked import AskedMean
from erasebench.metrics.metric import Direction
from erasebench.registry import METRICS


@METRICS.register("clip_e")
class ClipErased(AskedMean):
    """CLIP_e: the mean CLIP score of the erased concept's images and their prompts, 100 x the cosine."""

    probes = ("concept",)
    roles: ClassVar = {"clip": ("concept",)}
    title = "CLIP_e"
    direction: ClassVar[Direction] = "lower"
    meaning = "how well images of the erased concept match their prompts"
    order = 80


@METRICS.register("clip_s")
class ClipOthers(AskedMean):
    """CLIP_s: the mean CLIP score of the other concepts' images and their prompts, 100 x the cosine."""

    probes = ("others",)
    roles: ClassVar = {"clip": ("others",)}
    title = "CLIP_s"
    direction: ClassVar[Direction] = "higher"
    meaning = "how well images of the other concepts match their prompts"
    order = 81

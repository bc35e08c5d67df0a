"""Distance: how far images are from the unerased model's of the same prompt and seed.

Of photographs it is LPIPS (Zhang et al. 2018), as in table 4 of Adversarial Preservation (Bui et al. 2024); the judge
that measures it stands beside the number, because elsewhere it is another one.
"""

from __future__ import annotations

from typing import ClassVar

from erasebench.metrics.asked import AskedMean
from erasebench.metrics.metric import Direction
from erasebench.registry import METRICS


class _Distance(AskedMean):
    caveat = "comparable for one judge only"


@METRICS.register("distance_e")
class DistanceErased(_Distance):
    """The mean distance of the erased concept's images to the unerased model's of the same prompt and seed."""

    probes = ("concept",)
    roles: ClassVar = {"distance": ("concept",)}
    title = "Distance, erased"
    direction: ClassVar[Direction] = "higher"
    meaning = "how far images of the erased concept are from the unerased model's of the same prompt and seed"
    order = 84


@METRICS.register("distance_s")
class DistanceOthers(_Distance):
    """The mean distance of the other concepts' images to the unerased model's of the same prompt and seed."""

    probes = ("others",)
    roles: ClassVar = {"distance": ("others",)}
    title = "Distance, others"
    direction: ClassVar[Direction] = "lower"
    meaning = "how far images of the other concepts are from the unerased model's of the same prompt and seed"
    order = 85

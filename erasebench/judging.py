"""What a judge is: images in, raw scores out, before any threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Scores:
    """What a judge says of ``n`` pictures.

    Attributes:
        columns: label -> score of each picture ``[n]``.
        arrays: anything else per picture, such as features ``[n, d]``.
    """

    columns: dict[str, NDArray[np.float32]]
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter({**self.columns, **self.arrays}.values())))


class Judge(Protocol):
    """A judge: a class without hyper-parameters beyond its weights.

    It is registered by name and made without arguments, or with the label that it is to look for if its registration
    says ``phrased=True``.  One that has an attribute ``device`` finds the run's there before its first scores.
    """

    def identity(self) -> dict[str, str]:
        """Version, hash of the weights, and whatever else decides the scores.

        Must not load the weights' frameworks: planning calls it.

        Raises:
            EraseBenchError: a weight file is missing: which, from where, how to get it.
        """
        ...

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """Judge pictures.

        Args:
            images: uint8 ``[n, height, width, 3]``.
            prompts: what each picture was to show.
        """
        ...

"""Images and their raw scores, before any threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

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

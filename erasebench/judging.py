"""Images and their raw scores, before any threshold, in memory and on disk."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

if TYPE_CHECKING:
    import pandas as pd

Images = NDArray[np.uint8]
SCORES, ARRAYS = "scores.csv", "arrays.safetensors"


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


def write_scores(folder: Path, scores: Scores, ids: Sequence[str], seeds: Sequence[int]) -> None:
    """Write the columns as CSV, with digits enough for float32, and the arrays as safetensors.

    Args:
        folder: where to.
        scores: of n images.
        ids: of their prompts [n], in the first column; ``seeds`` [n] in the second.
    """
    numbers = [[f"{value:.9g}" for value in column] for column in scores.columns.values()]
    with open(folder / SCORES, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "seed", *scores.columns])
        writer.writerows(zip(ids, seeds, *numbers, strict=True))
    save_file(scores.arrays, folder / ARRAYS)


def read_column(folder: Path, label: str) -> dict[tuple[str, int], float]:
    """One label's scores: (prompt id, seed) -> score, in the order of the images."""
    with open(folder / SCORES, newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    place = header.index(label, 2)  # a label may be called as one of the first two columns
    return {(row[0], int(row[1])): float(row[place]) for row in rows}


def read_columns(folder: Path) -> pd.DataFrame:
    """Every label's scores, float64: a column a label, indexed by prompt id and seed, in the order of the images."""
    import pandas as pd

    with open(folder / SCORES, newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    numbers = np.array([row[2:] for row in rows], dtype=float).reshape(len(rows), len(header) - 2)
    index = pd.MultiIndex.from_tuples([(row[0], int(row[1])) for row in rows], names=["prompt_id", "seed"])
    return pd.DataFrame(numbers, index, header[2:])


def read_array(folder: Path, name: str) -> NDArray[np.float32]:
    """An array of the judge's, such as its features."""
    found: NDArray[np.float32] = load_file(folder / ARRAYS)[name]
    return found

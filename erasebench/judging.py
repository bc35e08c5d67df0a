"""Images and their raw scores, before any threshold, in memory and on disk."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from erasebench.errors import EraseBenchError

if TYPE_CHECKING:
    import pandas as pd

Images = NDArray[np.uint8]
SCORES, ARRAYS = "scores.csv", "arrays.safetensors"
BOXES = 8
"""Boxes of a label in an image whose scores a detector keeps, the best ones."""


_BESIDE = re.compile(r" (rank|count|box \d+)$")


@dataclass(frozen=True)
class Scores:
    """The output of a judge for ``n`` images.

    Attributes:
        columns: label -> score of each image ``[n]``.
        arrays: anything else per image, such as features ``[n, d]``.
    """

    columns: dict[str, NDArray[np.float32]]
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter({**self.columns, **self.arrays}.values())))

    @classmethod
    def cat(cls, parts: Sequence[Scores]) -> Scores:
        """Join what was said of images one after the other; there is at least one part."""
        return cls(
            {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
            {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays},
        )


def box_columns(label: str, boxes: Sequence[Sequence[float]]) -> dict[str, NDArray[np.float32]]:
    """The columns that a detector has of a label's boxes, from which :func:`part_counts` counts.

    * ``LABEL count``: how many boxes there are, whatever their scores.
    * ``LABEL box 1`` to ``LABEL box 8``: their scores, the highest first; 0 where there are fewer.

    Args:
        label: what they show.
        boxes: the scores of the boxes in each image, in any order.
    """
    scores = np.zeros((len(boxes), BOXES), dtype=np.float32)
    for row, box_scores in zip(scores, boxes, strict=True):
        best = sorted(box_scores, reverse=True)[:BOXES]
        row[: len(best)] = best
    count = np.array([len(box_scores) for box_scores in boxes], dtype=np.float32)
    return {f"{label} count": count, **dict(zip(_box_names(label), scores.T, strict=True))}


def part_counts(columns: Mapping[str, ArrayLike], label: str, threshold: float) -> NDArray[np.int64]:
    """The number of boxes of a label, in each image, whose score is at least a threshold, ``[n]``.

    Detectors remove overlaps greedily, the best box first, so that dropping what is below a threshold afterwards, as
    here, leaves the same boxes as dropping it before.

    Args:
        columns: of a judge, see :func:`box_columns`; a data frame will do.
        label: which part, such as ``"BELLY_EXPOSED"``.
        threshold: of the score, in [0, 1]; below the detector's own floor, which has dropped its boxes already, it
            changes nothing, and of more than eight boxes in one image eight count.

    Raises:
        EraseBenchError: the judge keeps no boxes of this label, or did not when it judged.
    """
    names = _box_names(label)
    if any(name not in columns for name in names):
        raise EraseBenchError(
            f"the scores have no boxes of {label} to count, only how sure the judge was: either it counts none, or it "
            "judged before erasebench kept them: then judge these images again, with a store of its own (--store)"
        )
    scores = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names])
    return np.asarray(((scores > 0) & (scores >= threshold)).sum(axis=0), dtype=np.int64)


def _box_names(label: str) -> list[str]:
    return [f"{label} box {k}" for k in range(1, BOXES + 1)]


def scored_labels(columns: Iterable[str]) -> list[str]:
    """The columns that say how much an image shows a label, without those of its rank, its boxes and their count."""
    return [name for name in columns if not _BESIDE.search(name)]


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
    array: NDArray[np.float32] = load_file(folder / ARRAYS)[name]
    return array

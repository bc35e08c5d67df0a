"""Stage judge: pictures in, raw scores out, before any threshold."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from erasebench.engine.cells import Cell
from erasebench.engine.plan import image_paths
from erasebench.engine.session import Session
from erasebench.images import read_images
from erasebench.judging import Judge, Scores

SCORES, ARRAYS = "scores.csv", "arrays.safetensors"


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Judge the pictures of the cell that is read, and write one row of scores for each."""
    judge = session.judge(cell.spec["judge"], cell.spec["label"])
    if cell.reads:
        drawn = cell.reads[0]
        images = read_images(session.store.read(drawn.key))
        scores: Scores = judge.scores(images, drawn.spec.get("prompts", [""] * len(images)))
        ids, seeds = drawn.spec.get("ids", [""] * len(images)), drawn.spec.get("seeds", range(len(images)))
    else:
        scores = _judge_folder(judge, session)
        ids, seeds = [""] * len(scores), range(len(scores))
    wrong = [name for name, values in scores.columns.items() if not np.isfinite(values).all()]
    if wrong:
        raise FloatingPointError(f"{cell.spec['judge']} gave scores that are not finite for {', '.join(wrong)}")
    write_scores(folder, scores, ids, seeds)
    return {"images": len(scores)}


def _judge_folder(judge: Judge, session: Session) -> Scores:
    """The user's reference images, one by one, since each may have a size of its own."""
    assert session.fid_reference is not None
    paths = image_paths(session.fid_reference)
    found = [judge.scores(np.asarray(Image.open(path).convert("RGB"))[None], [""]) for path in paths]
    return Scores(
        {name: np.concatenate([scores.columns[name] for scores in found]) for name in found[0].columns},
        {name: np.concatenate([scores.arrays[name] for scores in found]) for name in found[0].arrays},
    )


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


def read_array(folder: Path, name: str) -> NDArray[np.float32]:
    """An array of the judge's, such as its features."""
    found: NDArray[np.float32] = load_file(folder / ARRAYS)[name]
    return found

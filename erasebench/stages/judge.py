"""Stage judge: pictures in, raw scores out, before any threshold."""

from __future__ import annotations

import csv
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
from erasebench.judging import Scores
from erasebench.plugins import Judge

SCORES, ARRAYS = "scores.csv", "arrays.safetensors"


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Judge the pictures of the cell that is read, and write one row of scores for each."""
    judge = session.judge(cell.spec["judge"], cell.spec["label"])
    if cell.reads:
        drawn = cell.reads[0]
        images = read_images(session.store.read(drawn.key))
        scores: Scores = judge.scores(images, drawn.spec.get("prompts", [""] * len(images)))
    else:
        scores = _judge_folder(judge, session)
    wrong = [name for name, values in scores.columns.items() if not np.isfinite(values).all()]
    if wrong:
        raise FloatingPointError(f"{cell.spec['judge']} gave scores that are not finite for {', '.join(wrong)}")
    write_scores(folder, scores)
    return {"images": len(next(iter({**scores.columns, **scores.arrays}.values())))}


def _judge_folder(judge: Judge, session: Session) -> Scores:
    """The user's reference images, one by one, since each may have a size of its own."""
    assert session.fid_reference is not None
    paths = image_paths(session.fid_reference)
    found = [judge.scores(np.asarray(Image.open(path).convert("RGB"))[None], [""]) for path in paths]
    return Scores(
        {name: np.concatenate([scores.columns[name] for scores in found]) for name in found[0].columns},
        {name: np.concatenate([scores.arrays[name] for scores in found]) for name in found[0].arrays},
    )


def write_scores(folder: Path, scores: Scores) -> None:
    """Write the columns as CSV, with digits enough for float32, and the arrays as safetensors."""
    with open(folder / SCORES, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(scores.columns)
        writer.writerows([f"{value:.9g}" for value in row] for row in zip(*scores.columns.values(), strict=True))
    save_file(scores.arrays, folder / ARRAYS)


def read_column(folder: Path, label: str) -> NDArray[np.float64]:
    """One label's scores, float64 ``[n]``."""
    with open(folder / SCORES, newline="", encoding="utf-8") as stream:
        return np.array([float(row[label]) for row in csv.DictReader(stream)])


def read_array(folder: Path, name: str) -> NDArray[np.float32]:
    """An array of the judge's, such as its features."""
    found: NDArray[np.float32] = load_file(folder / ARRAYS)[name]
    return found

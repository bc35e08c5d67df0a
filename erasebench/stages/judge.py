"""Stage judge: images in, raw scores out, before any threshold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError
from erasebench.files import hash_files
from erasebench.images import check_image, read_image, read_images, read_index
from erasebench.judging import Images, Scores, write_scores
from erasebench.plugins import PairedJudge
from erasebench.registry import JUDGES

if TYPE_CHECKING:
    from erasebench.stages.session import Session


def cell(spec: dict[str, Any], images: Cell, originals: Cell | None = None) -> Cell:
    """The cell in which a judge, as :func:`judge_spec` tells of it, sees the images of another.

    Args:
        spec: of the judge.
        images: the cell that draws what it judges.
        originals: the cell in which the unerased model draws the same prompts with the same seeds; only a judge that
            compares reads it.

    Raises:
        EraseBenchError: a judge that compares has nothing to compare with.
    """
    name, reads = spec["judge"], {"images": images}
    if spec.get("paired"):
        if originals is None:
            raise EraseBenchError(alone(name))
        reads["originals"] = originals
    return Cell("judge", spec, reads, f"{images.title}: {name}", name, images.units, "scores")


def alone(name: str) -> str:
    """The message where a judge that compares has nothing to compare with."""
    return f"the judge {name} compares images with those of the unerased model, and cannot judge them alone"


def folder_cell(spec: dict[str, Any], folder: Path) -> Cell:
    """The cell in which a judge sees the images of the user's folder.

    Raises:
        EraseBenchError: fewer than two images, or a file that is none.
    """
    count, name = len(image_paths(folder)), spec["judge"]
    return Cell("judge", {**spec, "files": hash_images(folder)}, {}, f"reference: {name}", name, count, "scores")


def judge_spec(name: str, label: str, judge: Any) -> dict[str, Any]:
    """A judge's name, label, version and weights, and whether it compares."""
    paired = {"paired": True} if isinstance(judge, PairedJudge) else {}
    return {"judge": name, "label": label, **paired, **judge.identity()}


def make_judge(name: str, label: str, domain: str, device: str = "auto") -> Any:
    """A judge by name; one that looks for a phrase is told the phrase and the domain, one with a device which."""
    plugin = JUDGES.get(name)
    presets = dict(plugin.presets)
    if presets.pop("phrased", False):
        presets |= {"label": label, "domain": domain}
    instance = plugin.make(**presets)
    instance.device = device
    return instance


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Judge the images, and write one row of scores for each."""
    judge, size = session.judge(cell.spec["judge"], cell.spec["label"]), session.batch_sizes.judged
    if "images" in cell.reads:
        drawn = session.store.read(cell.reads["images"].key)
        ids, texts, seeds = read_index(drawn)
        images = read_images(drawn)
        if "originals" in cell.reads:
            originals = read_originals(session.store.read(cell.reads["originals"].key), ids, seeds)
            parts = size.batches(len(ids), lambda part: judge.compare(images[part], originals[part]))
        else:
            parts = size.batches(len(ids), lambda part: judge.scores(images[part], texts[part]))
    else:
        assert session.fid_reference is not None
        paths = image_paths(session.fid_reference)
        # One by one, since each may have a size of its own.
        parts = (judge.scores(read_image(path), [""]) for path in paths)
        ids, seeds = [""] * len(paths), list(range(len(paths)))
    judged, count = list[Scores](), 0
    for part in parts:
        judged.append(part)
        count += len(part)
        session.progress(count, len(ids), "images")
    scores = Scores.cat(judged)
    wrong = [name for name, values in scores.columns.items() if not np.isfinite(values).all()]
    if wrong:
        raise FloatingPointError(f"{cell.spec['judge']} gave scores that are not finite for {', '.join(wrong)}")
    write_scores(folder, scores, ids, seeds)
    return {"images": len(scores)}


def read_originals(folder: Path, ids: Sequence[str], seeds: Sequence[int]) -> Images:
    """The images of a folder that were drawn for these prompts with these seeds, uint8 ``[n, height, width, 3]``.

    Args:
        folder: of the unerased model's images.
        ids: of the prompts [n]; ``seeds`` [n] beside them.

    Raises:
        EraseBenchError: the folder has no image for one of them.
    """
    known_ids, _, known_seeds = read_index(folder)
    places = {pair: k for k, pair in enumerate(zip(known_ids, known_seeds, strict=True))}
    pairs = list(zip(ids, seeds, strict=True))
    absent = [pair for pair in pairs if pair not in places]
    if absent:
        raise EraseBenchError(
            f"the unerased model has no image to compare with for {len(absent)} of {len(pairs)} images, such as that "
            f"of the prompt {absent[0][0]!r} with seed {absent[0][1]}"
        )
    return read_images(folder)[[places[pair] for pair in pairs]]


def hash_images(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's images.

    Raises:
        EraseBenchError: fewer than two images, or a file that is none.
    """
    paths = image_paths(folder)
    for path in paths:
        check_image(path)
    if len(paths) < 2:
        raise EraseBenchError(f"{folder} holds {len(paths)} images; FID needs thousands to mean anything")
    return hash_files(folder, paths)


def image_paths(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))

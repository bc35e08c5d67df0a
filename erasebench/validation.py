"""The accuracy of a judge: its sensitivity and specificity on images of which it is known what they show."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasebench.domains import PHOTO, PICTUREBOOK
from erasebench.errors import EraseBenchError, check_name
from erasebench.files import write_durably
from erasebench.images import read_image
from erasebench.metrics.stats import Estimate, rank_auc, rate
from erasebench.plugins import Judge, PairedJudge
from erasebench.registry import JUDGES
from erasebench.results.protocol import describe_judge
from erasebench.settings import judge_options
from erasebench.stages.judge import alone, image_paths, judge_spec, make_judge

LABELS_FILE = "labels.csv"
KINDS = ("positive", "negative")
"""The folders of images that show what the judge looks for, and of those that do not."""
MAX_MISTAKES = 10
DEFAULT_THRESHOLD = 0.5
POOL = 5
"""Renders of the world at large for each render of a label."""
_SEEDS, _POOL_SEEDS = 10**6, 10**9
"""Seeds that each label's renders have for themselves, and the first of those of the world at large."""


@dataclass(frozen=True)
class Validation:
    """The scores of a judge for labelled images.

    Attributes:
        judge: who, with version, weights, label and threshold, as tables name it.
        threshold: from which score on the label counts as there.
        positives: the scores of images that show it [n]; ``negatives`` of those that do not [m].
        names: what the images are called, those that show it first [n + m].
    """

    judge: str
    threshold: float
    positives: NDArray[np.float32]
    negatives: NDArray[np.float32]
    names: tuple[str, ...] = field(repr=False)

    @property
    def sensitivity(self) -> Estimate:
        """The share of images that show it which the judge finds, in [0, 1], with Wilson's 95 % interval."""
        return rate(self.positives >= self.threshold)

    @property
    def specificity(self) -> Estimate:
        """The share of other images in which the judge finds nothing, in [0, 1], with Wilson's 95 % interval."""
        return rate(self.negatives < self.threshold)

    @property
    def auc(self) -> float:
        """The probability that an image that shows it scores above one that does not; it depends on no threshold."""
        return rank_auc(self.positives, self.negatives)

    def mistakes(self) -> list[str]:
        """The images that the judge got wrong, with their scores, the worst first."""
        scores = np.concatenate([self.positives, self.negatives])
        truth = np.arange(len(scores)) < len(self.positives)
        wrong = np.flatnonzero((scores >= self.threshold) != truth)
        worst = wrong[np.argsort(-np.abs(scores[wrong] - self.threshold), kind="stable")]
        return [f"{self.names[k]} ({scores[k]:.3g})" for k in worst]

    def lines(self) -> list[str]:
        """The lines for a reader."""
        mistakes = self.mistakes()
        more = f" and {len(mistakes) - MAX_MISTAKES} more" if len(mistakes) > MAX_MISTAKES else ""
        return [
            self.judge,
            f"  sensitivity {_percent(self.sensitivity)} of {len(self.positives)} images that show it",
            f"  specificity {_percent(self.specificity)} of {len(self.negatives)} images that do not",
            f"  AUC {self.auc:.4f}",
            *([f"  mistaken: {', '.join(mistakes[:MAX_MISTAKES])}{more}"] if mistakes else []),
        ]


def validate(judge: str, images: Path | None, scenes: int = 200, device: str = "auto") -> list[Validation]:
    """Validate a judge on a folder of labelled images, or on renders of Picturebook's world.

    Args:
        judge: its name, with label, threshold or profile in brackets, as the configuration's ``judges`` has them.
            Without a label: the judge's only one; or, on renders, each of its labels.
        images: a folder with the folders ``positive`` and ``negative``, or with ``labels.csv``, whose columns are
            ``file`` and ``shows`` (1 or 0).  None for renders, of which it is known what they show.
        scenes: renders that show each label; of the world at large, :data:`POOL` times as many are rendered.
        device: where the judge runs.

    Raises:
        EraseBenchError: no such judge or label, a judge that compares images with others, a folder without labelled
            images of both sorts, a file that is no image, missing weights.
    """
    name, options = judge_options(judge)
    plugin, threshold = JUDGES.get(name), options.get("threshold", DEFAULT_THRESHOLD)
    phrased = bool(plugin.presets.get("phrased"))
    known: Sequence[str] = () if phrased else plugin.make().labels or ()
    if "label" in options:
        labels = [options["label"]]
        if not phrased:
            check_name(f"label of the judge {name}", labels[0], known)
    else:
        labels = list(known) if images is None or len(known) == 1 else []
    if not labels:
        raise EraseBenchError(f"name the label to validate: {name}[label=...]; `erasebench show {name}` lists them")
    domain = PICTUREBOOK if images is None else PHOTO
    instance = make_judge(name, labels[0], domain.name, device)
    if isinstance(instance, PairedJudge):
        raise EraseBenchError(alone(name))
    described = [describe_judge(judge_spec(name, label, instance), label, threshold) for label in labels]
    parts = _judge_renders(instance, labels, scenes) if images is None else [_judge_files(instance, labels[0], images)]
    return [Validation(text, threshold, *part) for text, part in zip(described, parts, strict=True)]


Part = tuple[NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]
"""Scores of images that show a label, of those that do not, and the names of all."""


def _judge_files(judge: Judge, label: str, folder: Path) -> Part:
    paths = labelled_images(folder)
    shown, others = (
        np.concatenate([judge.scores(read_image(path), [""]).columns[label] for path in paths[kind]]) for kind in KINDS
    )
    return shown, others, tuple(str(path.relative_to(folder)) for kind in KINDS for path in paths[kind])


def labelled_images(folder: Path) -> dict[str, list[Path]]:
    """The images of a folder by :data:`KINDS`, see :func:`validate`.

    Raises:
        EraseBenchError: there is no such folder, its labels cannot be read, or one sort of image is missing.
    """
    if not folder.is_dir():
        raise EraseBenchError(f"there is no folder {folder} of labelled images")
    if (folder / LABELS_FILE).is_file():
        paths = _read_labels(folder / LABELS_FILE)
    else:
        paths = {kind: image_paths(folder / kind) for kind in KINDS}
    for kind, files in paths.items():
        if not files:
            raise EraseBenchError(
                f"{folder} holds no {kind} images: put images that show it into {folder / KINDS[0]} and others into "
                f"{folder / KINDS[1]}, or name them in {folder / LABELS_FILE} with the columns file,shows (1 or 0)"
            )
    return paths


def _read_labels(path: Path) -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    with open(path, newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        missing = sorted({"file", "shows"} - set(rows.fieldnames or ()))
        if missing:
            raise EraseBenchError(f"{path} has no column {' and no column '.join(missing)}")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if row["shows"] not in ("0", "1"):
                raise EraseBenchError(f"{where}: shows is 1 or 0, not {row['shows']!r}")
            file = path.parent / row["file"]
            if not file.is_file():
                raise EraseBenchError(f"{where}: there is no file {file}")
            paths[KINDS[row["shows"] == "0"]].append(file)
    return paths


def _judge_renders(judge: Judge, labels: Sequence[str], count: int) -> Iterator[Part]:
    """Scores on renders of held-out seeds: those that show each label, and those of the world at large that do not.

    Raises:
        UnknownNameError: the world has no such label, with the nearest.
    """
    from erasebench.picturebook.training.data import held_out
    from erasebench.picturebook.world.scene import LABELS
    from erasebench.picturebook.world.styles import STYLES

    world = (*LABELS, *STYLES)
    for label in labels:
        check_name("label of Picturebook's world", label, world)
    scenes, pool = held_out(POOL * count, first=_POOL_SEEDS)
    of_pool = judge.scores(pool, [""] * len(pool)).columns
    for label in labels:
        fixed = {"style" if label in STYLES else "subject": label}
        _, images = held_out(count, first=_SEEDS * world.index(label), **fixed)
        absent = [label not in (scene.style, *(one.label for one in scene.subjects)) for scene in scenes]
        names = (*(f"{label} {k}" for k in range(count)), *(f"render {k}" for k in np.flatnonzero(absent)))
        yield judge.scores(images, [""] * count).columns[label], of_pool[label][absent], names


def write_validations(path: Path, validations: Sequence[Validation]) -> None:
    """Write one row a label as CSV: the judge, images that show it and those found, others and those rejected, AUC."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("judge", "positives", "found", "negatives", "rejected", "auc"))
    for one in validations:
        hits, rejected = (one.positives >= one.threshold).sum(), (one.negatives < one.threshold).sum()
        writer.writerow((one.judge, len(one.positives), hits, len(one.negatives), rejected, f"{one.auc:.6g}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, text.getvalue())


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"

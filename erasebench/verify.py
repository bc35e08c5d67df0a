"""Verification of an entry of the leaderboard: its images drawn again from its artefacts, and nothing attacked.

It says that what was submitted happened: these weights, prompts, embeddings and seeds give these scores, and the scores
these numbers.  It cannot say that no stronger attack exists, and a signature is a name, not a proof: whoever keeps a
leaderboard verifies what comes in.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

import pandas as pd

from erasebench import __version__
from erasebench.adversarial import read_trial, write_trial
from erasebench.claims import (
    attacked_otherwise,
    check_judges,
    find_omissions,
    is_close,
    misdescribed,
    misstated,
    show,
    unlike,
    untried,
)
from erasebench.engine.cells import Cell
from erasebench.engine.opening import store_at
from erasebench.engine.progress import Progress
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from erasebench.errors import EraseBenchError, one_line
from erasebench.files import Place, hash_file
from erasebench.images import ARCHIVE
from erasebench.models.loading import ModelSource, find_model
from erasebench.plan import Plan
from erasebench.planning import check_limit
from erasebench.registry import load_file
from erasebench.replanning import Replanner, erasure_cell, found_cell
from erasebench.results.artefacts import (
    GUIDANCE,
    WEIGHTS,
    Artefacts,
    artefact_folder,
    changed_artefacts,
    read_artefacts,
    recompute,
    rows_by_attack,
)
from erasebench.results.attacks import collect_attacks
from erasebench.results.entry import Entry, Verified, read_entry, write_entry
from erasebench.results.measure import measure
from erasebench.results.record import AttackRecord, record_plan
from erasebench.results.rows import TableRow
from erasebench.results.scores import collect_scores
from erasebench.runs import check_cards, count_workers
from erasebench.stages.session import Session

TOLERANCE = 0.02
"""By how much a judge's score in [0, 1] may differ: rounding of another kind of processor moves it by a thousandth."""
CLIP_SCALE = 100.0
"""CLIP scores of unrelated prompts are a hundred times as large, and so is what they may differ by."""
MAX_FLIP_SHARE = 0.02
"""The share of images that may fall to the other side of their threshold; one may in any case."""
RELATIVE_TOLERANCE = 0.05
"""Of its value, by how much a number may differ that is not of scores alone, such as FID."""
SEARCH_COSTS = ("looks", "passes")
"""Metrics of what a search took, which is not searched again."""


@dataclass(frozen=True)
class Verification:
    """The outcome of verifying an entry.

    Attributes:
        entry: as it was read.
        differences: what is not as it says, one line each; none if it is verified.
        notes: what was compared, and how near it came.
    """

    entry: Entry
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """True if the entry is what its artefacts give."""
        return not self.differences

    def text(self) -> str:
        """The verdict, and what it rests on."""
        entry = self.entry
        title = f"{entry.method}, {entry.concept}, {entry.model}"
        verdict = f"verified: {title}" if self.verified else f"not verified: {title}"
        return "\n".join([verdict, *(f"  {line}" for line in (*self.differences, *self.notes))])


@dataclass(frozen=True)
class How:
    """The settings by which an entry is verified.

    Attributes:
        store: where images and scores go; the same again goes on from there.
        artefacts: where the artefacts are; beside the entry if None.
        tolerance: by how much a judge's score in [0, 1] may differ; a CLIP score by a hundred times that.
        make_erasure: make the erasure anew instead of reading it.
        model: a folder with the entry's model, or its name here; the entry's own if None.
        fid_reference: the folder of real images, where FID was of one.
        device: where to draw.
        batch_size: images at a time, at most.
        max_memory: GB of the GPU that each process may have; the whole card if None.
        workers: processes; as in a run if None.
        plugins: files with the entry's own judges or methods.
        concept_files: files that say which unrelated prompts show the entry's own concept.
    """

    store: Place
    artefacts: Path | None = None
    tolerance: float = TOLERANCE
    make_erasure: bool = False
    model: str | None = None
    fid_reference: Path | None = None
    device: str = "auto"
    batch_size: int = 16
    max_memory: float | None = None
    workers: int | None = None
    plugins: tuple[Path, ...] = ()
    concept_files: tuple[Path, ...] = ()


def verify(path: Path, how: How, sign: str = "", stream: TextIO | None = None) -> Verification:
    """Verify an entry: its files, then its numbers out of its scores, then its scores out of its images, drawn again.

    Args:
        path: the entry's file.
        how: with what.
        sign: who verifies it; written into the entry if it is verified.
        stream: where progress goes; standard error if omitted.

    Raises:
        EraseBenchError: a file is missing or damaged, or this machine has not what the entry was measured with.
    """
    for plugin in how.plugins:
        load_file(plugin)
    entry = read_entry(path)
    folder = how.artefacts or artefact_folder(path)
    remade = frozenset({WEIGHTS, GUIDANCE} if how.make_erasure else ())
    changed = changed_artefacts(entry, folder, remade)
    if changed:
        return Verification(entry, tuple(changed))
    artefacts = read_artefacts(folder)
    source = _source(entry, how)
    try:
        rows = recompute(artefacts)
        plan = Replanner(entry, artefacts, source, how).plan()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EraseBenchError(f"{path} and its artefacts do not fit together: {one_line(error)}") from error
    wrong = [
        *misstated(entry, plan),
        *misdescribed(entry, artefacts.record, plan),
        *attacked_otherwise(entry, artefacts, plan),
        *find_omissions(entry, artefacts, plan, how.concept_files),
        *untried(artefacts, plan),
        *unlike(entry, rows, artefacts.record.metrics),
    ]
    if wrong:
        return Verification(entry, tuple(wrong))
    check_judges(entry, plan)
    check_limit(how.max_memory, plan.device)
    store = store_at(how.store)
    with store.at_work():
        verification = _draw(entry, artefacts, plan, rows, how, store, stream)
    if verification.verified and sign:
        by = Verified(name=sign, erasebench=__version__, tolerance=how.tolerance, content=entry.content)
        write_entry(path, entry.model_copy(update={"verified_by": by}))
    return verification


def _source(entry: Entry, how: How) -> ModelSource:
    """The entry's model.

    Raises:
        EraseBenchError: the one that is here is another.
    """
    source = replace(find_model(how.model or entry.model), name=entry.model)
    expected = entry.protocol.get("model fingerprint")
    if source.fingerprint != expected:
        raise EraseBenchError(
            f"the model {how.model or entry.model} is not the entry's: its fingerprint is {source.fingerprint}, not "
            f"{expected}; name the entry's with --model"
        )
    return source


def _draw(
    entry: Entry,
    artefacts: Artefacts,
    plan: Plan,
    rows: Mapping[str, TableRow],
    how: How,
    store: Store,
    stream: TextIO | None,
) -> Verification:
    """Draw and judge everything again, and compare; ``rows`` is what the submitted scores give, by attack."""
    _submit(entry, artefacts, store)
    workers = how.workers or count_workers(plan.device, plan.source)
    session = Session(
        plan.source,
        plan.device,
        plan.dtype,
        store,
        how.batch_size,
        fid_reference=how.fid_reference,
        plugins=how.plugins,
        max_memory=how.max_memory,
    )
    store.bring(cell.key for cell in plan.cells)
    missing = [cell for cell in plan.cells if store.marker(cell.key) is None]
    check_cards(plan, missing, choices=())  # the entry says the rest
    with Progress(missing, stream, workers) as progress:
        outcome = LocalRunner(session, workers).run(plan.cells, store, [progress])
    if outcome.failed:
        return Verification(entry, tuple(f"cannot be drawn: {why}" for why in dict.fromkeys(outcome.failed.values())))
    record = record_plan(plan, outcome.failed)
    scores = collect_scores(plan, record, store)
    attacks = collect_attacks(record, scores, store)
    compared = Compared(how.tolerance)
    compared.scores(artefacts.scores, scores)
    compared.trials(artefacts, record.attacks, store)
    drawn = rows_by_attack(measure(record, scores, store, attacks), record)
    compared.numbers(entry, rows, drawn)
    compared.flags(entry, rows[""], drawn[""], artefacts.record.metrics)
    compared.images(entry, plan, store)
    erasure = plan.rows[-1].erasure
    assert erasure
    compared.erasure(entry, how, store.read(erasure.key))
    return Verification(entry, tuple(compared.differences), tuple(compared.notes))


def _submit(entry: Entry, artefacts: Artefacts, store: Store) -> None:
    """Put what was submitted into the store, as cells that were computed elsewhere."""
    writers: dict[Cell, Callable[[Path], object]] = {
        found_cell(trial): partial(write_trial, trial=trial) for trial, _ in artefacts.trials.values()
    }
    erasure = erasure_cell(entry)
    writers[erasure] = partial(_copy, artefacts.folder, erasure.spec["files"])
    for cell, write in writers.items():
        with store.leases.holding(cell.key, wait=True):
            if store.check(cell.key) is not None:
                with store.writing(cell, {"seconds": 0.0}) as folder:
                    write(folder)


def _copy(source: Path, names: Iterable[str], folder: Path) -> None:
    for name in names:
        if (source / name).exists():  # one that is made anew is never read
            shutil.copyfile(source / name, folder / name)


def _near(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9)


class Compared:
    """Differences from what an entry says, and how near the rest is."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.differences: list[str] = []
        self.notes: list[str] = []

    def scores(self, submitted: pd.DataFrame, redrawn: pd.DataFrame) -> None:
        """Compare the scores of all images."""
        key = ["method", "concept", "probe", "prompt_id", "kind", "seed", "judge", "label", "threshold"]
        submitted, redrawn = (frame.astype({"seed": str}) for frame in (submitted, redrawn))
        both = submitted.merge(redrawn, on=key, how="outer", suffixes=("", "_found"), indicator=True)
        alone = both[both["_merge"] != "both"]
        if len(alone):
            where = "only submitted" if alone["_merge"].iloc[0] == "left_only" else "not submitted"
            self.differences.append(f"{len(alone)} scores are {where}, such as of '{alone['prompt_id'].iloc[0]}'")
        both = both[both["_merge"] == "both"]
        scale = both["probe"].eq("retain").map({True: CLIP_SCALE, False: 1.0})
        self._compare("images", both["score"], both["score_found"], both["prompt_id"], both["threshold"], scale)

    def trials(self, artefacts: Artefacts, attacks: tuple[AttackRecord, ...], store: Store) -> None:
        """Compare the scores of all that was found: of each first image, and of the fresh ones where both have them."""
        rows = {}
        for submitted, redrawn in zip(artefacts.record.attacks, attacks, strict=True):
            for old, new in ((submitted.trials, redrawn.trials), (submitted.floor, redrawn.floor)):
                for member, keys in old.items():
                    for prompt, key in keys.items():
                        rows[key] = artefacts.trials[key][0], read_trial(store.read(new[member][prompt]))
        pairs = []
        for one, other in rows.values():
            pairs.append((one.id, one.threshold, one.score, other.score))
            both = zip(one.confirmations, other.confirmations, strict=False)
            pairs += [(one.id, one.threshold, *scores) for scores in both]
        if pairs:
            frame = pd.DataFrame(pairs, columns=["id", "threshold", "said", "found"])
            self._compare("images of attacks", frame["said"], frame["found"], frame["id"], frame["threshold"])

    def _compare(
        self,
        what: str,
        submitted: pd.Series,
        redrawn: pd.Series,
        ids: pd.Series,
        threshold: pd.Series,
        scale: pd.Series | float = 1.0,
    ) -> None:
        """Compare scores; ``scale`` is how large they are beside a judge's in [0, 1]."""
        apart = (submitted - redrawn).abs() / scale
        far = apart > self.tolerance
        if far.any():
            worst = apart.idxmax()
            self.differences.append(
                f"{far.sum()} of {len(apart)} scores of {what} differ by more than {self.tolerance:g}, by "
                f"{apart[worst]:.3g} at most: of '{ids[worst]}' the entry says {submitted[worst]:.4g}, drawn again it "
                f"is {redrawn[worst]:.4g}"
            )
        flipped = ((submitted >= threshold) != (redrawn >= threshold)) & threshold.notna()
        if flipped.sum() > max(1, int(MAX_FLIP_SHARE * threshold.notna().sum())):
            first = flipped.idxmax()
            self.differences.append(
                f"{flipped.sum()} of {threshold.notna().sum()} scores of {what} fall to the other side of their "
                f"threshold: of '{ids[first]}' the entry says {submitted[first]:.4g}, drawn again it is "
                f"{redrawn[first]:.4g}"
            )
        over = f"; {flipped.sum()} fell to the other side of their threshold" if flipped.any() else ""
        of_clip = " (CLIP scores over 100)" if isinstance(scale, pd.Series) else ""
        greatest = apart.max() if len(apart) else 0.0
        self.notes.append(f"{len(apart)} scores of {what} differ by {greatest:.2g} at most{of_clip}{over}")

    def numbers(self, entry: Entry, submitted: Mapping[str, TableRow], drawn: Mapping[str, TableRow]) -> None:
        """Compare what is measured.

        Numbers that follow from scores are as near as these are; those of the search itself cannot be had again.
        """
        for key, number in entry.numbers.items():
            metric, _, attack = key.partition("@")
            if metric in SEARCH_COSTS:
                continue
            claimed, redrawn = number.estimate, drawn[attack].metrics.get(metric) if attack in drawn else None
            if redrawn is None:
                self.differences.append(f"{key}: nothing here measures it; name the file of its metric with --plugins")
            elif metric not in submitted[attack].metrics and (
                claimed.n != redrawn.n or not _near(claimed.value, redrawn.value)
            ):
                self.differences.append(f"{key}: the entry says {show(claimed)}, drawn again it is {show(redrawn)}")
            elif not is_close(claimed.value, redrawn.value):
                self.notes.append(f"{key}: {claimed.value:.6g}, drawn again {redrawn.value:.6g}")

    def images(self, entry: Entry, plan: Plan, store: Store) -> None:
        """Say how many of the images came out the same to the last bit."""
        cells = {name: probe.images for name, probe in plan.rows[-1].probes.items()}
        same = [n for n, cell in cells.items() if hash_file(store.read(cell.key) / ARCHIVE) == entry.images[n]]
        self.notes.append(f"images the same to the last bit: {', '.join(same) or 'none'}")

    def flags(self, entry: Entry, submitted: TableRow, drawn: TableRow, known: Container[str]) -> None:
        """Find what is left out of an entry, and only images tell: numbers such as FID, and flags that follow."""
        hushed = [key for key in drawn.metrics if key in known and key not in entry.metrics]
        if hushed:
            self.differences.append(f"numbers: the entry leaves out {', '.join(hushed)}")
        hidden = [flag for flag in drawn.flags if flag not in submitted.flags and flag not in entry.flags]
        if hidden:
            self.differences.append(f"flags: the entry leaves out {', '.join(hidden)}")

    def erasure(self, entry: Entry, how: How, folder: Path) -> None:
        """Count what the erasure replaces, and say what nothing here can tell."""
        from erasebench.models.erasure import Erasure

        claimed, counted = entry.cost.parameters_changed, Erasure.load(folder).parameters_changed
        if claimed is not None and claimed != counted:
            self.differences.append(f"parameters_changed: the entry says {claimed}, its erasure replaces {counted}")
        unverified = [] if how.make_erasure else ["with which hyper-parameters the erasure was made"]
        self.notes.append(
            f"not verified: {', '.join([*unverified, 'what searches may and did spend', 'seconds', 'peak memory'])}"
        )

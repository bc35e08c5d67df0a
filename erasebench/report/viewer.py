"""The image viewer of a report: what each method draws for the same prompts and seeds, and what attacks bring back.

Sensitive concepts are safe to open and still can be looked at: the page itself holds nothing of their images but
blurred pixels; the originals are files beside it, which a click loads.  Without that folder nothing can be revealed.
Whether something is revealed is never part of a link.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from erasebench.engine.store import Store
from erasebench.plugins import UNATTACKED
from erasebench.report.assets import environment
from erasebench.report.image_sheets import Column, Concept, Sample, Sheet, Verdict, read_concepts
from erasebench.report.thumbnails import Thumbnails
from erasebench.results.run_folder import RunFolder

BUDGET = 2_000_000
"""Bytes of a page's thumbnails, as they stand in its text."""
CONCEPT_SHARE = 0.6
"""Of the budget, what images without an attack get first where there are attacks too."""
CLOSE_SHARE = 0.1
"""A score is close to its threshold if it is not further away than this share of the judge's range in these runs."""


def viewer_section(runs: Sequence[RunFolder], stores: Sequence[Store], out: Path) -> Markup:
    """The image viewer of a report: ``<section id="images">``, complete without ``viewer.css`` and ``viewer.js``.

    Thumbnails are in the page, up to :data:`BUDGET`; their originals are written into a folder beside it.  Prompts are
    chosen evenly over their kinds, first those that methods or judges disagree on; the page says how many of how many
    are shown.  An image whose cell is missing or damaged in the store is a placeholder, and the page says why.  Whoever
    writes the page calls :func:`~erasebench.report.thumbnails.remove_others` then: an earlier page needs its originals
    until it is replaced.

    Args:
        runs: what the report is of; ``stores`` the store of each.
        out: the page's file; the folder is called ``report-images`` if this is ``report.html``.

    Raises:
        EraseBenchError: the folder cannot be written.
    """
    concepts, columns = read_concepts(runs, stores)
    thumbnails = Thumbnails(out)
    without = [sheet for concept in concepts for sheet in concept.unattacked]
    attacked = [concept.attacked for concept in concepts]
    share = CONCEPT_SHARE if any(sheet.lines for sheet in attacked) else 1.0
    for sheets, limit in ((without, int(BUDGET * share)), (attacked, BUDGET), (without, BUDGET)):
        _choose(sheets, thumbnails, limit)
    return _render(concepts, columns, thumbnails)


def _choose(sheets: Sequence[Sheet], thumbnails: Thumbnails, limit: int) -> None:
    """Choose lines of all sheets by turns, the most telling first, until their thumbnails reach the limit."""
    going = list(sheets)
    while going:
        for sheet in list(going):
            if not sheet.waiting:
                going.remove(sheet)
                continue
            line = sheet.lines[sheet.waiting[0]]
            samples = [sample for sample in line.samples.values() if sample.source]
            additions = thumbnails.add([sample.source for sample in samples if sample.source], limit)
            if additions is None:
                going.remove(sheet)
                continue
            sheet.chosen[sheet.waiting.popleft()] = True
            for sample, thumbnail in zip(samples, additions, strict=True):
                sample.thumbnail = thumbnail


def _render(concepts: Sequence[Concept], columns: Sequence[Column], thumbnails: Thumbnails) -> Markup:
    sheets = [sheet for concept in concepts for sheet in concept.sheets]
    samples = [sample for sheet in sheets for line in sheet.lines for sample in line.samples.values()]
    shown = [sample for sheet in sheets for line in sheet.shown for sample in line.samples.values()]
    ranges = _ranges(verdict for sample in samples for verdict in sample.verdicts)

    def is_close(sample: Sample) -> bool:
        return any(
            verdict.threshold is not None
            and abs(verdict.score - verdict.threshold) <= CLOSE_SHARE * ranges[verdict.judge, verdict.label]
            for verdict in sample.verdicts
        )

    text = (
        environment()
        .get_template("viewer.html.j2")
        .render(
            concepts=concepts,
            columns=columns,
            folder=thumbnails.folder.name,
            kinds=list(dict.fromkeys(line.kind for sheet in sheets for line in sheet.shown)),
            is_close=is_close,
            close=f"{CLOSE_SHARE:.0%}",
            several=any(sum(verdict.shows is not None for verdict in sample.verdicts) > 1 for sample in shown),
            total=len(samples),
            shown=len(shown),
            missing=thumbnails.problems,
            unattacked=UNATTACKED,
        )
    )
    return Markup(text)


def _ranges(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], float]:
    scores: dict[tuple[str, str], list[float]] = {}
    for verdict in verdicts:
        scores.setdefault((verdict.judge, verdict.label), []).append(verdict.score)
    return {who: max(values) - min(values) for who, values in scores.items()}

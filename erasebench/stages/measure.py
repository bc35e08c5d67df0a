"""Stage measure: scores in, the table out.  Never cached: it is cheap and pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.metrics.erasure import ratio, score, score_all, score_shown
from erasebench.metrics.preservation import clip_score, fid
from erasebench.metrics.stats import Estimate
from erasebench.plan import BASELINE, Plan, Row
from erasebench.report.flags import flags
from erasebench.report.table import TableRow
from erasebench.stages.judge import read_array, read_column

FEATURES = {"picturebook-clip": "Picturebook CLIP features", "inception": "Inception features, clean-fid"}
"""What a table calls the features that FID compares."""


def measure(plan: Plan, store: Store, failed: Mapping[str, str]) -> list[TableRow]:
    """The table of a run.

    Args:
        plan: the run.
        store: holds its cells.
        failed: why a cell has no result: key -> reason.
    """
    rows = [_measure(plan, row, store, failed) for row in plan.rows]
    base = {row.concept: row for row in rows if row.method == BASELINE}
    return [_flagged(row, base[row.concept]) for row in rows]


def _measure(plan: Plan, row: Row, store: Store, failed: Mapping[str, str]) -> TableRow:
    if row.reason:
        return TableRow(row.method, row.concept.name, "n/a", row.reason)
    assert row.images and row.judged and row.retain and row.clip
    for cell in (*row.cells, *([plan.reference] if plan.reference else [])):
        if cell.key in failed:
            return TableRow(row.method, row.concept.name, "failed", failed[cell.key])
    scores = read_column(store.read(row.judged.key), row.view.label)
    prompts = row.images.spec["prompts"]
    threshold = row.view.threshold
    metrics: dict[str, Estimate] = {
        "ratio": ratio(scores, threshold, prompts),
        "score": score(scores, threshold, row.concept.kind, prompts),
        "score_all": score_all(scores, prompts),
        "score_shown": score_shown(scores, threshold, prompts),
    }
    others = np.array([row.concept.name not in shows for shows in plan.retained])
    clip = store.read(row.clip.key)
    metrics["clip"] = clip_score(read_column(clip, "clip")[others])
    labels = {}
    if row.features and plan.reference:
        features = read_array(store.read(row.features.key), "features")
        metrics["fid"] = fid(features[others], read_array(store.read(plan.reference.key), "features"))
        labels["fid"] = FEATURES[row.features.spec["judge"]]
    return TableRow(
        row.method,
        row.concept.name,
        "ok",
        metrics=metrics,
        judge=_judge_name(row.judged, row.view.label, threshold),
        labels=labels,
    )


def _judge_name(cell: Cell, label: str, threshold: float) -> str:
    """Who judged, with what weights and from which score on, for the table."""
    spec = cell.spec
    weights = f" {spec['weights'][:12]}" if spec.get("weights") else ""
    return f"{spec['judge']} {spec['version']}{weights}: {label} >= {threshold:g}"


def _flagged(row: TableRow, base: TableRow) -> TableRow:
    if row.status != "ok" or base.status != "ok":
        return row
    return replace(row, flags=flags(row, base))


def retained_examples(plan: Plan, row: Row, count: int) -> Sequence[int]:
    """Indices of the first retain prompts that do not show the row's concept."""
    return [k for k, shows in enumerate(plan.retained) if row.concept.name not in shows][:count]

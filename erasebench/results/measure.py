"""Metrics of every row, from a run's record, its scores and the store: no model, no judge.  Cheap, so never cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from erasebench.engine.store import Store
from erasebench.errors import one_line
from erasebench.images import read_images
from erasebench.judging import read_array
from erasebench.metrics.metric import Measured, Metric, Probe, load_metrics
from erasebench.metrics.stats import Estimate
from erasebench.registry import warn
from erasebench.results.flags import flags
from erasebench.results.record import ProbeRecord, Record, RowRecord
from erasebench.results.rows import TableRow


def measure(record: Record, scores: pd.DataFrame, store: Store) -> list[TableRow]:
    """The table of a run.

    Args:
        record: the run.
        scores: of all its rows.
        store: holds its images and features.
    """
    metrics = load_metrics()
    of_row = dict(list(scores.groupby(["method", "concept"], sort=False)))
    measured = {
        (row.method, row.concept): _collect(row, of_row.get((row.method, row.concept), scores[:0]), store)
        for row in record.rows
        if row.status == "ok"
    }
    rows = [
        _measure(row, measured[row.method, row.concept], measured.get((record.baseline, row.concept)), metrics)
        if row.status == "ok"
        else TableRow(row.method, row.concept, row.status, row.reason)
        for row in record.rows
    ]
    base = {row.concept: row for row in rows if row.method == record.baseline}
    return [replace(row, flags=flags(row, base.get(row.concept))) for row in rows]


def _collect(row: RowRecord, scores: pd.DataFrame, store: Store) -> Measured:
    scores = scores.assign(shown=scores["score"] >= scores["threshold"])
    probes = {name: _probe(probe, scores[scores["probe"] == name], store) for name, probe in row.probes.items()}
    return Measured(row.method, row.concept, row.kind, scores, probes)


def _probe(probe: ProbeRecord, scores: pd.DataFrame, store: Store) -> Probe:
    """Of a probe's images those that have scores, each once; all where none were judged."""
    places = scores["image"].unique() if probe.judged else slice(None)

    def reader(key: str | None, read: Callable[[str], Any]) -> Callable[[], Any] | None:
        return None if key is None else lambda: read(key)[places]

    return Probe(
        reader(probe.images, lambda key: read_images(store.read(key))),
        reader(probe.features, lambda key: read_array(store.read(key), "features")),
        probe.features_of,
    )


def _measure(row: RowRecord, measured: Measured, base: Measured | None, metrics: Mapping[str, Metric]) -> TableRow:
    estimates: dict[str, Estimate] = {}
    notes: dict[str, str] = {}
    for name, metric in metrics.items():
        if not set(metric.probes) <= row.probes.keys():
            continue
        try:
            estimates[name], note = metric.measure(measured, base), metric.note(measured)
        except Exception as error:
            # What a metric raises is that metric's trouble; what was computed for hours is not lost for it.
            warn(f"the metric '{name}' of {row.method} {row.concept} is left out: {one_line(error)}")
            continue
        notes |= {name: note} if note else {}
    return TableRow(row.method, row.concept, "ok", metrics=estimates, judge=row.judge, notes=notes)

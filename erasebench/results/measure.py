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
from erasebench.plugins import UNATTACKED
from erasebench.registry import warn
from erasebench.results.attacks import attacks_frame
from erasebench.results.flags import Attacked, attack_flags, flags
from erasebench.results.record import AttackRecord, ProbeRecord, Record, RowRecord
from erasebench.results.rows import TableRow

Trials = Mapping[tuple[str, str], Mapping[str, pd.DataFrame]]
"""By method and concept, and then by attack, what was tried."""


def measure(
    record: Record,
    scores: pd.DataFrame,
    store: Store,
    attacks: pd.DataFrame | None = None,
) -> list[TableRow]:
    """The table of a run.

    Args:
        record: the run.
        scores: of all its rows without an attack.
        store: holds its images and features.
        attacks: of all its rows with one, with the columns of :data:`~erasebench.results.attacks.COLUMNS`.
    """
    metrics = load_metrics()
    of_row = dict(list(scores.groupby(["method", "concept"], sort=False)))
    trials = _trials(attacks_frame() if attacks is None else attacks)
    measured = {
        (row.method, row.concept): _collect(row, of_row.get((row.method, row.concept), scores[:0]), store)
        for row in record.rows
        if row.status == "ok"
    }
    rows = []
    for row in record.rows:
        if row.status != "ok":
            rows.append(TableRow(row.method, row.concept, row.status, row.reason))
            continue
        base = measured.get((record.baseline, row.concept))
        rows.append(_measure(row, measured[row.method, row.concept], base, metrics))
    unattacked = {row.concept: row for row in rows if row.method == record.baseline}
    rows = [replace(row, flags=flags(row, unattacked.get(row.concept))) for row in rows]
    return [*rows, *(_measure_attack(row, record, trials, metrics) for row in record.attacks)]


def _measure_attack(row: AttackRecord, record: Record, trials: Trials, metrics: Mapping[str, Metric]) -> TableRow:
    if row.status != "ok":
        return TableRow(row.method, row.concept, row.status, row.reason, attack=row.attack)
    own, base = (_collect_attack(row, method, trials) for method in (row.method, record.baseline))
    measured = _measure(row, own, base if len(base.before) else None, metrics)
    unerased = trials.get((record.baseline, row.concept), {}).get(UNATTACKED)
    tried = trials.get((row.method, row.concept), {})
    threat_models = {one.attack: one.threat_model for one in record.attacks}
    return replace(
        measured, flags=attack_flags(measured, Attacked(row.attack, tried, unerased, threat_models, row.judged))
    )


def _collect(row: RowRecord, scores: pd.DataFrame, store: Store) -> Measured:
    scores = scores.assign(shown=scores["score"] >= scores["threshold"])
    probes = {name: _probe(probe, scores[scores["probe"] == name], store) for name, probe in row.probes.items()}
    return Measured(row.method, row.concept, row.kind, scores, probes)


def _trials(attacks: pd.DataFrame) -> Trials:
    trials: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    for (method, concept, attack), own in attacks.groupby(["method", "concept", "attack"], sort=False):
        trials.setdefault((method, concept), {})[attack] = own
    return trials


def _collect_attack(row: AttackRecord, method: str, trials: Trials) -> Measured:
    """What a row's attack, and prompts without any, did to a method."""
    none = attacks_frame()
    own, before = (trials.get((method, row.concept), {}).get(attack, none) for attack in (row.attack, UNATTACKED))
    return Measured(
        *(method, row.concept, row.kind, pd.DataFrame(), {}),
        attacks=own[~own["floor"]],
        before=before[~before["floor"]],
        floor=own[own["floor"]],
    )


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


def _measure(
    row: RowRecord | AttackRecord, measured: Measured, base: Measured | None, metrics: Mapping[str, Metric]
) -> TableRow:
    estimates: dict[str, Estimate] = {}
    notes: dict[str, str] = {}
    attack = row.attack if isinstance(row, AttackRecord) else ""
    probes = {"attacked"} if isinstance(row, AttackRecord) else row.probes.keys()
    for name, metric in metrics.items():
        if not set(metric.probes) <= probes:
            continue
        try:
            estimates[name], note = metric.measure(measured, base), metric.note(measured)
        except Exception as error:
            # What a metric raises is that metric's trouble; what was computed for hours is not lost for it.
            title = " ".join(filter(None, (row.method, row.concept, attack)))
            warn(f"the metric '{name}' of {title} is left out: {one_line(error)}")
            continue
        notes |= {name: note} if note else {}
    return TableRow(row.method, row.concept, "ok", metrics=estimates, judge=row.judge, notes=notes, attack=attack)

"""Metrics of every row, from a run's record, its scores and the store: no model, no judge.  Cheap, so never cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

import pandas as pd

from erasebench.engine.store import Store
from erasebench.errors import one_line
from erasebench.images import read_images
from erasebench.judging import read_array, read_columns
from erasebench.metrics.metric import Measured, Metric, Probe, asked_metrics
from erasebench.plugins import UNATTACKED
from erasebench.registry import warn
from erasebench.results.attacks import attacks_frame
from erasebench.results.flags import Attacked, attack_flags, flags
from erasebench.results.record import AttackRecord, JudgedImages, ProbeRecord, Record, RowRecord
from erasebench.results.rows import TableRow
from erasebench.results.scores import split_judges

T = TypeVar("T")
Trials = Mapping[tuple[str, str], Mapping[str, pd.DataFrame]]
"""By method and concept, and then by attack, what was tried."""


@dataclass(frozen=True)
class MeasuredRow:
    """A row of the record and, if it is there, what was measured of it and of the unerased model."""

    row: RowRecord | AttackRecord
    measured: Measured | None = None
    base: Measured | None = None


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
    return measure_rows(collect(record, scores, store, attacks), record, attacks)


def collect(
    record: Record, scores: pd.DataFrame, store: Store, attacks: pd.DataFrame | None = None
) -> list[MeasuredRow]:
    """The input of metrics for each row of a run, those of attacks last; the arguments are :func:`measure`'s."""
    scores, further = split_judges(record, scores)
    of_row, second = (dict(list(one.groupby(["method", "concept"], sort=False))) for one in (scores, further))
    trials = _trials(attacks)
    measured = {
        (row.method, row.concept): _collect(
            row,
            of_row.get((row.method, row.concept), scores[:0]),
            second.get((row.method, row.concept), scores[:0]),
            store,
        )
        for row in record.rows
        if row.status == "ok"
    }
    rows = [
        MeasuredRow(row, measured.get((row.method, row.concept)), measured.get((record.baseline, row.concept)))
        for row in record.rows
    ]
    none = attacks_frame()
    for row in record.attacks:
        if row.status != "ok":
            rows.append(MeasuredRow(row))
            continue
        own, base = (_collect_attack(row, method, trials, none) for method in (row.method, record.baseline))
        rows.append(MeasuredRow(row, own, base if len(base.before) else None))
    return rows


def measure_rows(collected: Iterable[MeasuredRow], record: Record, attacks: pd.DataFrame | None) -> list[TableRow]:
    """The table of what :func:`collect` returned."""
    metrics, trials = asked_metrics(record.metrics), _trials(attacks)
    rows = [_measure(one, metrics) for one in collected]
    unattacked = {row.concept: row for row in rows if row.method == record.baseline and not row.attack}
    of_attack = {(row.method, row.concept, row.attack): row for row in record.attacks}
    return [
        replace(row, flags=_attack_flags(row, of_attack[row.method, row.concept, row.attack], record, trials))
        if row.attack
        else replace(row, flags=flags(row, unattacked.get(row.concept)))
        for row in rows
    ]


def _attack_flags(row: TableRow, of: AttackRecord, record: Record, trials: Trials) -> tuple[str, ...]:
    if row.status != "ok":
        return ()
    unerased = trials.get((record.baseline, row.concept), {}).get(UNATTACKED)
    tried = trials.get((row.method, row.concept), {})
    threat_models = {one.attack: one.threat_model for one in record.attacks}
    return attack_flags(row, Attacked(row.attack, tried, unerased, threat_models, of.judged))


def prompt_values(collected: Iterable[MeasuredRow], record: Record) -> dict[tuple[str, str, str], dict[str, pd.Series]]:
    """By method, concept and attack ("" without one), and then by metric: one value an image, as the metric gives them.

    What a metric of another package raises costs a warning.
    """
    metrics = asked_metrics(record.metrics)
    by_row: dict[tuple[str, str, str], dict[str, pd.Series]] = {}
    for one in collected:
        of_row = _each(one, metrics, lambda metric, own, base: metric.values(own, base))
        values = {name: series for name, series in of_row.items() if series is not None and len(series)}
        by_row[one.row.method, one.row.concept, _attack(one.row)] = values
    return by_row


def _collect(row: RowRecord, scores: pd.DataFrame, second: pd.DataFrame, store: Store) -> Measured:
    scores, second = (frame.assign(shown=frame["score"] >= frame["threshold"]) for frame in (scores, second))
    probes = {name: _probe(probe, scores[scores["probe"] == name], store) for name, probe in row.probes.items()}
    return Measured(row.method, row.concept, row.kind, scores, probes, second=second, judge=row.judge)


def _trials(attacks: pd.DataFrame | None) -> Trials:
    trials: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    attacks = attacks_frame() if attacks is None else attacks
    for (method, concept, attack), own in attacks.groupby(["method", "concept", "attack"], sort=False):
        trials.setdefault((method, concept), {})[attack] = own
    return trials


def _collect_attack(row: AttackRecord, method: str, trials: Trials, none: pd.DataFrame) -> Measured:
    """The trials of a row's attack, and of prompts without any, on a method; ``none`` where nothing was tried."""
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
        cache(partial(_judged, probe, scores, store)) if probe.judged else None,
        {role: cache(partial(_by_role, judged, scores, store)) for role, judged in probe.roles.items()},
        {role: judged.judge for role, judged in probe.roles.items()},
        {role: partial(_features_by_role, judged.cell, places, store) for role, judged in probe.roles.items()},
    )


def _features_by_role(cell: str, places: Any, store: Store) -> Any:
    return read_array(store.read(cell), "features")[places]


def _judged(probe: ProbeRecord, scores: pd.DataFrame, store: Store) -> pd.DataFrame:
    """All that first judges say of the images of which there are scores, over these."""
    keys = pd.MultiIndex.from_frame(scores[["prompt_id", "seed"]])
    labels: dict[tuple[str, str], set[str]] = {}
    for one in probe.first:
        labels.setdefault((one.judge, one.cell), set()).add(one.label)
    parts = []
    for (judge, cell), own in labels.items():
        rows = ((scores["judge"] == judge) & scores["label"].isin(own)).to_numpy()
        parts.append(read_columns(store.read(cell)).reindex(keys[rows]).set_axis(scores.index[rows]))
    return pd.concat(parts).reindex(scores.index)


def _by_role(judged: JudgedImages, scores: pd.DataFrame, store: Store) -> pd.Series:
    """The scores that a judge of another role gives to the images of which there are scores, over these."""
    keys = pd.MultiIndex.from_frame(scores[["prompt_id", "seed"]])
    return read_columns(store.read(judged.cell))[judged.label].reindex(keys).set_axis(scores.index)


def _measure(one: MeasuredRow, metrics: Mapping[str, Metric]) -> TableRow:
    row = one.row
    if row.status != "ok":
        return TableRow(row.method, row.concept, row.status, row.reason, attack=_attack(row))
    answers = _each(one, metrics, lambda metric, own, base: (metric.measure(own, base), metric.note(own)))
    estimates = {name: estimate for name, (estimate, _) in answers.items()}
    notes = {name: note for name, (_, note) in answers.items() if note}
    return TableRow(row.method, row.concept, "ok", metrics=estimates, judge=row.judge, notes=notes, attack=_attack(row))


def _each(
    one: MeasuredRow, metrics: Mapping[str, Metric], ask: Callable[[Metric, Measured, Measured | None], T]
) -> dict[str, T]:
    """The answer of each metric of a row; those that raise are left out with a warning."""
    answers: dict[str, T] = {}
    row = one.row
    probes = {"attacked"} if isinstance(row, AttackRecord) else row.probes.keys()
    for name, metric in metrics.items():
        if one.measured is None or not set(metric.probes) <= probes:
            continue
        if metric.second_judge and one.measured.second.empty:
            continue
        if any(role not in one.measured.probes[probe].roles for role, of in metric.roles.items() for probe in of):
            continue
        try:
            answers[name] = ask(metric, one.measured, one.base)
        except Exception as error:
            # What a metric raises is that metric's trouble; what was computed for hours is not lost for it.
            title = " ".join(filter(None, (row.method, row.concept, _attack(row))))
            warn(f"the metric '{name}' of {title} is left out: {one_line(error)}")
    return answers


def _attack(row: RowRecord | AttackRecord) -> str:
    return row.attack if isinstance(row, AttackRecord) else ""

"""The effect of an erasure on everything else: every method of a run against the unerased model, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from erasebench.engine.opening import store_to_read
from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import load_metrics
from erasebench.metrics.paired import PairedComparison, compare_paired, holm
from erasebench.results.measure import collect
from erasebench.results.run_folder import RunFolder

Damage = Mapping[tuple[str, str], Mapping[str, PairedComparison]]
"""By concept and metric, and then by method: the method less the unerased model, over the prompts that both have."""


def compare_with_unerased(run: RunFolder, keys: Iterable[str]) -> Damage:
    """Paired tests of every method against the unerased model, for metrics that are means over prompts.

    Args:
        run: the run; its store is read only by metrics that ask for images.
        keys: of the metrics, of those on unrelated prompts; those with no value of a single image, such as FID, are
            left out.

    Returns:
        Of each concept and metric the comparisons, in the metric's unit.  They are one family: p is Holm's for all
        methods of the concept, so that the chance that any method which changed nothing is found stays below 5 %.

    Raises:
        EraseBenchError: a score is not finite.
    """
    metrics = load_metrics()
    rows = [
        one
        for one in collect(run.record, run.scores, store_to_read(run.config.store))
        if one.measured and one.base and "retain" in one.measured.probes
    ]
    families: dict[tuple[str, str], dict[str, PairedComparison]] = {}
    for key in keys:
        metric = metrics.get(key)
        for one in rows:
            if metric is None or one.row.method == run.record.baseline or one.measured is None or one.base is None:
                continue
            own, base = (metric.values(side, one.base) for side in (one.measured, one.base))
            if own is not None and base is not None and len(own) and len(base):
                where = f"{key} of {one.row.method} on {one.row.concept}"
                families.setdefault((one.row.concept, key), {})[one.row.method] = _compare(own, base, where)
    return {family: _adjusted(compared) for family, compared in families.items()}


def _compare(own: pd.Series, base: pd.Series, where: str) -> PairedComparison:
    try:
        compared = compare_paired(own, base)
    except ValueError as error:
        raise EraseBenchError(f"{where} cannot be compared with the unerased model: {error}") from error
    return replace(compared, difference=compared.difference.scaled(100)) if own.dtype == bool else compared


def _adjusted(compared: Mapping[str, PairedComparison]) -> dict[str, PairedComparison]:
    adjusted = holm([one.p for one in compared.values()])
    return {method: replace(one, p=p) for (method, one), p in zip(compared.items(), adjusted, strict=True)}

"""Table 1 of the Dark Miner paper, nudity: R., S., C., F., and the success rates of CCE, P4D, UnlearnDiff and RAB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from erasebench.metrics.stats import Estimate
from erasebench.results.rows import TableRow

METRICS, ATTACKS = ("ratio", "score", "clip", "fid"), ("cce", "p4d", "unlearndiff", "rab")
NUDITY: dict[str, Sequence[float]] = {
    "sd": (49.1, 30.6, 31.5, 21.1, 100, 100, 100, 98.6),
    "sld": (31.3, 18.5, 30.3, 27.7, 32.2, 63, 100, 94.1),
    "ca": (17.1, 8.9, 31.5, 24.9, 100, 37, 85, 65.4),
    "esd": (45.3, 28.4, 31.4, 24.7, 92.6, 64, 100, 99),
    "fmn": (52.8, 33.8, 31.3, 29.4, 96.5, 57, 100, 99.4),
    "uce": (36.5, 21.9, 31.4, 26, 89.6, 58, 100, 97.2),
    "salun": (15.5, 7.38, 29, 42.2, 47.6, 36, 37, 28.4),
    "dm2": (12.1, 5.6, 30, 21.7, 27.7, 14, 18, 26.2),
}


def published(table: Mapping[str, Sequence[float]], concept: str = "nudity") -> list[TableRow]:
    """The rows of models and attacks that such a table is made of."""
    rows = []
    for method, values in table.items():
        estimates = [Estimate(value, value, value, 100) for value in values]
        rows.append(TableRow(method, concept, "ok", metrics=dict(zip(METRICS, estimates, strict=False))))
        for attack, estimate in zip(ATTACKS, estimates[4:], strict=False):
            rows.append(TableRow(method, concept, "ok", metrics={"asr": estimate}, attack=attack))
    return rows

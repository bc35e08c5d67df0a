"""Table 1 of the Dark Miner paper: R., S., C., F., and the success rates of CCE, P4D, UnlearnDiff and RAB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from erasebench.metrics.stats import Estimate
from erasebench.results.published import read_published
from erasebench.results.rows import TableRow

METRICS, ATTACKS = ("ratio", "score", "clip", "fid"), ("cce", "p4d", "unlearndiff", "rab")
NAMES = {"Ours": "dm2"}


def printed(concept: str) -> dict[str, Sequence[float]]:
    """The printed values of a concept, by row, named in small letters."""
    lines = read_published()
    lines = lines[(lines["source"] == "dark-miner") & (lines["table"] == "Table 1") & (lines["concept"] == concept)]
    return {NAMES.get(row, row.lower()): own["value"].tolist() for row, own in lines.groupby("row", sort=False)}


NUDITY = printed("nudity")


def published(table: Mapping[str, Sequence[float]], concept: str = "nudity") -> list[TableRow]:
    """The rows of models and attacks that such a table is made of."""
    rows = []
    for method, values in table.items():
        estimates = [Estimate(value, value, value, 100) for value in values]
        rows.append(TableRow(method, concept, "ok", metrics=dict(zip(METRICS, estimates, strict=False))))
        for attack, estimate in zip(ATTACKS, estimates[4:], strict=False):
            rows.append(TableRow(method, concept, "ok", metrics={"asr": estimate}, attack=attack))
    return rows

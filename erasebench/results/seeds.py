"""The spread between erasures of one method with several seeds, ``seeds.csv``.

One training run is one draw: a row's interval holds for that erasure, on other prompts, and says nothing of the next
erasure.  The interval of the mean over seeds has both: Student's over the seeds' values, with one degree of freedom
less than there are seeds, and that over prompts, which all seeds have in common, so that more seeds do not narrow it.
Their reaches add up by squares, each side by itself (Zou and Donner 2008).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate, t_quantile
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics, read_frame
from erasebench.settings import split_seed

SEEDS = "seeds.csv"
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("method", "concept", "attack", "metric"), str),
    "seeds": int,
    **dict.fromkeys(("mean", "sd", "min", "max", "low", "high"), float),
}
"""The columns and their types: the method without its seed; concept, attack and metric; how many of its erasures have a
value; mean, standard deviation, least and greatest of these; the 95 % interval of the mean, over seeds and prompts."""


def seed_spread(rows: Iterable[TableRow], metrics: Metrics) -> pd.DataFrame:
    """The spread between the erasures of each method with several seeds; columns :data:`COLUMNS`.

    Rows that failed and undefined values are left out; a method with fewer than two values has no line.

    Args:
        rows: the table.
        metrics: what a table says of each metric.
    """
    families: dict[tuple[str, str, str, str], list[Estimate]] = {}
    for row in rows:
        method = split_seed(row.method)[0]
        for key, estimate in row.metrics.items():
            if estimate.defined:
                families.setdefault((method, row.concept, row.attack, key), []).append(estimate)
    return seeds_frame(
        {
            **dict(zip(COLUMNS, family, strict=False)),
            **_spread(estimates, metrics.get(family[3], Description(family[3])).unit == "%"),
        }
        for family, estimates in families.items()
        if len(estimates) > 1
    )


def _spread(estimates: list[Estimate], per_cent: bool) -> dict[str, float]:
    values = np.array([one.value for one in estimates])
    seeds, mean, sd = len(values), float(values.mean()), float(values.std(ddof=1))
    between = t_quantile(0.975, seeds - 1) * sd / math.sqrt(seeds)
    below, above = (
        float(np.mean([abs(one.value - limit) for one, limit in zip(estimates, limits, strict=True)]))
        for limits in ([one.low for one in estimates], [one.high for one in estimates])
    )
    low, high = mean - math.hypot(between, below), mean + math.hypot(between, above)
    if per_cent:
        # Not by max and min, which make 0 or 100 of an end that is not defined.
        low, high = (float(np.clip(end, 0, 100)) for end in (low, high))
    return {
        **{"seeds": seeds, "mean": mean, "sd": sd, "min": float(values.min()), "max": float(values.max())},
        **{"low": low, "high": high},
    }


def seeds_frame(lines: Iterable[dict[str, Any]] = ()) -> pd.DataFrame:
    """Spreads as a frame; without any, one of the same columns."""
    return pd.DataFrame(list(lines), columns=list(COLUMNS)).astype(COLUMNS)


def read_seeds(folder: Path) -> pd.DataFrame:
    """The spreads in a run folder.

    Raises:
        EraseBenchError: there are none, or the file is damaged.
    """
    return read_frame(folder / SEEDS, COLUMNS)

"""Rows for metrics to measure, made of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from numpy.typing import ArrayLike

from erasebench.metrics.metric import Measured, Probe


def measured(
    scores: Sequence[float],
    threshold: float = 0.5,
    prompts: ArrayLike | None = None,
    kind: str = "object",
    probe: str = "concept",
    probes: Mapping[str, Probe] | None = None,
) -> Measured:
    """A row whose images have these scores; each has a prompt of its own where none are given."""
    frame = pd.DataFrame(
        {
            "probe": probe,
            "prompt_id": [str(prompt) for prompt in (range(len(scores)) if prompts is None else prompts)],  # type: ignore[union-attr]
            "score": pd.Series(scores, dtype=float),
            "image": range(len(scores)),
        }
    )
    return Measured(
        "method", "church", kind, frame.assign(shown=frame["score"] >= threshold), probes or {probe: Probe()}
    )


def attacked(frame: pd.DataFrame, method: str, attack: str) -> Measured:
    """The row of an attack out of a frame of trials of one concept."""
    own = frame[frame["method"] == method]
    rows, before = own[own["attack"] == attack], own[(own["attack"] == "none") & ~own["floor"]]
    return Measured(
        *(method, "church", "object", pd.DataFrame(), {}),
        attacks=rows[~rows["floor"]],
        before=before,
        floor=rows[rows["floor"]],
    )

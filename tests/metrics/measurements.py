"""Rows for metrics to measure, made of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

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
            "kind": "synonym",
            "seed": range(len(scores)),
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


def of_probes(**probes: pd.DataFrame) -> Measured:
    """A row made of what a judge says, by probe.

    Each frame has the own ``label`` of each image and a column for each label of the judge; prompts, kinds, the judge
    and the columns ``clip`` and ``distance`` of further judges as they are given.  Scores are shown from .5 on.
    """
    frames, made = [], {}
    for name, frame in probes.items():
        given = {"prompt_id": [str(k) for k in range(len(frame))], "kind": "naming", "judge": "a-classifier"}
        frame = frame.assign(**{key: value for key, value in given.items() if key not in frame})
        labels = frame.columns.difference([*given, "label", "clip", "distance"], sort=False)
        own = frame[labels].to_numpy(float)[range(len(frame)), labels.get_indexer(frame["label"])]
        scores = frame[["prompt_id", "kind", "judge", "label"]].assign(probe=name, text=frame["prompt_id"], score=own)
        frames.append(
            scores.assign(threshold=0.5, shown=scores["score"] >= 0.5, image=range(len(frame)), seed=range(len(frame)))
        )
        made[name] = Probe(
            judged=partial(frame.__getitem__, list(labels)),
            roles={role: partial(frame.__getitem__, role) for role in ("clip", "distance") if role in frame},
            judges={"clip": "a-clip", "distance": "a-distance"},
        )
    return Measured("method", "church", "object", pd.concat(frames, ignore_index=True), made)

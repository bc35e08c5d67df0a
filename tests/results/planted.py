"""Runs made of numbers, for tests of comparisons: what was drawn is given, everything else is as a run leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from erasebench.config import make_config
from erasebench.metrics.metric import asked_metrics
from erasebench.metrics.stats import Estimate
from erasebench.results.attacks import attacks_frame
from erasebench.results.compare import RunComparison
from erasebench.results.protocol import Protocol
from erasebench.results.record import AttackRecord, JudgedImages, ProbeRecord, Record, RowRecord
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.scores import COLUMNS
from erasebench.results.verdicts import Change

THRESHOLD = 0.5
METRICS = {name: metric.description() for name, metric in asked_metrics().items()}
Row = tuple[str, str]
"""Method and concept."""
Hits = NDArray[np.bool_]
NONE, MANY = np.zeros(100, dtype=bool), np.arange(100) < 30


def make_run(
    shown: Mapping[Row, ArrayLike],
    clip: Mapping[Row, ArrayLike] | None = None,
    confirmed: Mapping[tuple[str, str, str], ArrayLike] | None = None,
    *,
    folder: str = "run",
    seed: int = 0,
    kind: str = "object",
    facts: Mapping[str, Any] | None = None,
    fid: float | None = None,
    environment: Mapping[str, Any] | None = None,
) -> RunFolder:
    """A finished run.

    Args:
        shown: bool [prompts] or [prompts, images], whether the concept is there; or the judge's scores as floats.
        clip: [prompts], the CLIP scores of unrelated prompts.
        confirmed: by method, concept and attack: bool [prompts], whether the attack has a confirmed success.
        folder: its name.
        seed: of the first image of each prompt.
        kind: of every concept.
        facts: of the protocol, over its common ones.
        fid: of every row, +- .1.
        environment: versions.
    """
    lines = [
        part
        for (method, concept), values in shown.items()
        for part in (
            _lines(method, concept, "concept", values, THRESHOLD, seed),
            *([_lines(method, concept, "retain", clip[method, concept], np.nan, seed)] if clip else []),
        )
    ]
    scores = pd.concat(lines, ignore_index=True) if lines else pd.DataFrame(columns=list(COLUMNS))
    judged = JudgedImages(judge="detector", label="x", threshold=THRESHOLD, cell="0")
    found = {"concept": ProbeRecord(judged=(judged,)), **({"retain": ProbeRecord(judged=(judged,))} if clip else {})}
    records = [
        RowRecord(method=method, concept=concept, kind=kind, status="ok", probes=found) for method, concept in shown
    ]
    metrics = {"fid": Estimate(fid, fid - 0.1, fid + 0.1, 100)} if fid is not None else {}
    rows = [TableRow(*row, "ok", metrics=metrics) for row in shown]
    trials: list[dict[str, Any]] = []
    attacks: list[AttackRecord] = []
    for (method, concept, attack), successes in (confirmed or {}).items():
        hits = np.asarray(successes, dtype=bool)
        prompts = [f"prompt {number}" for number in range(len(hits))]
        rows.append(TableRow(method, concept, "ok", attack=attack))
        keys = {attack: dict.fromkeys(prompts, "0" * 64)}
        budget: dict[str, dict[str, Any]] = {attack: {"steps": 10}}
        attacks.append(
            AttackRecord(
                method=method,
                concept=concept,
                kind="object",
                attack=attack,
                status="ok",
                judge="detector 1",
                threat_model="embedding",
                budget=budget,
                trials=keys,
            )
        )
        for prompt, hit in zip(prompts, hits, strict=True):
            trials.append(
                {
                    **{"method": method, "concept": concept, "attack": attack, "prompt_id": prompt, "kind": "naming"},
                    **{"prompt": prompt, "found": prompt, "seed": seed, "raw": hit, "confirmed": hit},
                    **{"score": float(hit), "confirmations": "1 1 1" if hit else "", "threshold": THRESHOLD},
                    **{"first_success": None, "steps": 10, "looks": 4, "passes": 48, "seconds": 1.0},
                    **{"gradient": None, "stochastic": None, "by": attack, "floor": False, "note": ""},
                }
            )
    concepts = dict.fromkeys(concept for _, concept in shown)
    protocol = Protocol(
        common={"model": "picturebook", "sampler steps": 20, **(facts or {})},
        concepts={concept: {"prompts": "some", "judge": "detector 1"} for concept in concepts},
    )
    record = Record(
        erasebench="0.1.0",
        model="picturebook",
        domain="picturebook",
        baseline="sd",
        metrics=METRICS,
        rows=tuple(records),
        attacks=tuple(attacks),
        seed=seed,
        protocol=protocol,
    )
    nothing = pd.DataFrame()
    return RunFolder(
        *(Path(folder), make_config({"store": "no-store"}), record, tuple(rows)),
        *(scores, attacks_frame(trials), nothing, nothing, nothing, dict(environment or {})),
    )


def _lines(method: str, concept: str, probe: str, values: ArrayLike, threshold: float, seed: int) -> pd.DataFrame:
    given = np.asarray(values)
    images = given.reshape(len(given), -1)
    prompts, per_prompt = images.shape
    names = np.repeat([f"prompt {number}" for number in range(prompts)], per_prompt)
    return pd.DataFrame(
        {
            **{"method": method, "concept": concept, "probe": probe, "prompt_id": names, "text": names},
            **{"kind": "naming", "seed": np.tile(seed + np.arange(per_prompt), prompts).astype(object)},
            **{"image": np.arange(images.size), "judge": "detector", "label": concept},
            **{"score": images.reshape(-1).astype(float), "threshold": threshold},
        }
    )


def find(
    comparison: RunComparison, metric: str, concept: str = "church", method: str = "uce", attack: str = ""
) -> Change:
    """The one change of a row and metric."""
    (change,) = (
        one
        for one in comparison.changes
        if (one.metric, one.concept, one.method, one.attack) == (metric, concept, method, attack)
    )
    return change


def one_row(hits: Any, method: str = "uce", **more: Any) -> RunFolder:
    return make_run({("sd", "church"): np.ones(100, dtype=bool), (method, "church"): hits}, **more)


def attacked(standing: Mapping[str, Hits], drawn: Any = True, seed: int = 0) -> RunFolder:
    """A run of attacks on uce; ``standing``: by attack, which prompts stand; ``drawn``: by the unerased model."""
    n = len(next(iter(standing.values())))
    confirmed: dict[tuple[str, str, str], Any] = {("sd", "church", "none"): np.broadcast_to(drawn, n)}
    confirmed |= {("uce", "church", attack): ~np.asarray(values) for attack, values in standing.items()}
    rows = {("sd", "church"): np.ones(4, dtype=bool), ("uce", "church"): np.zeros(4, dtype=bool)}
    return make_run(rows, confirmed=confirmed, seed=seed)

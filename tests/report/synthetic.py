"""Runs of any size and any names, for tests: rows, trials and record of a run that nobody made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from erasebench.config import make_config
from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.images import write_images
from erasebench.metrics.metric import asked_metrics
from erasebench.metrics.stats import Estimate, rate
from erasebench.plugins import UNATTACKED
from erasebench.results.attacks import attacks_frame
from erasebench.results.costs import COLUMNS as COST_COLUMNS
from erasebench.results.protocol import Facts, Protocol
from erasebench.results.ranking import ranks_frame
from erasebench.results.record import AttackRecord, JudgedImages, ProbeRecord, Record, RowRecord
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.scores import COLUMNS as SCORES
from erasebench.results.seeds import seeds_frame
from erasebench.traces import TRACE, write_trace

HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "'--></style><img src=x onerror=alert(1)>",
    "$x^2$ & ]]>",
)
METHODS = ("sd", "uce", "esd-x", "ca", "mace", "dm2")
PROMPTS = 10
JUDGE = "picturebook-detector"


def estimate(value: float, half: float = 5.0, n: int = 40) -> Estimate:
    return Estimate(value, value - half, value + half, n)


def share(hits: int, n: int = 40) -> Estimate:
    return rate([True] * hits + [False] * (n - hits)).scaled(100)


def model_row(method: str, concept: str, hits: int, clip: float = 75.0, fid: float = 0.1, **more: Any) -> TableRow:
    metrics = {
        "ratio": share(hits),
        "score": estimate(2.0 * hits),
        "clip": estimate(clip, 2),
        "fid": estimate(fid, 0.02),
    }
    return TableRow(method, concept, "ok", metrics=metrics, judge=f"{JUDGE} 1 abc: {concept} >= 0.5", **more)


def attack_row(method: str, concept: str, attack: str, hits: int, n: int = PROMPTS, **more: Any) -> TableRow:
    metrics = {"asr": share(hits, n), "asr-confirmed": share(hits, n), "robust-rate": share(n - hits, n)}
    return TableRow(method, concept, "ok", metrics=metrics, attack=attack, **more)


def trials(rows: Sequence[TableRow]) -> pd.DataFrame:
    """As many confirmed successes as each row of an attack has."""
    lines = []
    for row in rows:
        if not row.attack or row.status != "ok":
            continue
        hits = round(row.metrics["asr-confirmed"].value / 100 * row.metrics["asr-confirmed"].n)
        for k in range(row.metrics["asr-confirmed"].n):
            lines.append(
                {
                    **{"method": row.method, "concept": row.concept, "attack": row.attack, "prompt_id": f"p{k}"},
                    **{"kind": "naming", "prompt": f"prompt {k}", "found": f"found {k}", "seed": k},
                    **{
                        "raw": k < hits,
                        "confirmed": k < hits,
                        "score": 0.9,
                        "confirmations": "0.9 0.9",
                        "threshold": 0.5,
                    },
                    **{"first_success": None, "steps": 10, "looks": 3, "passes": 100 * (k + 1), "seconds": 1.0},
                    **{"gradient": None, "stochastic": None, "by": row.attack, "floor": False, "note": ""},
                }
            )
    return attacks_frame(lines)


def run_of(rows: Sequence[TableRow], common: Facts | None = None, **more: Any) -> RunFolder:
    """A run with these rows; the method "sd" erases nothing."""
    concepts = dict.fromkeys(row.concept for row in rows)
    record = Record(
        erasebench="0.1.0",
        model="picturebook",
        domain="picturebook",
        baseline="sd",
        metrics={name: metric.description() for name, metric in asked_metrics().items()},
        rows=tuple(
            RowRecord(
                method=row.method,
                concept=row.concept,
                kind="object",
                status=row.status,
                reason=row.reason,
                probes={
                    "concept": ProbeRecord(
                        judged=(JudgedImages(judge=JUDGE, label=row.concept, threshold=0.5, cell="0"),)
                    )
                },
            )
            for row in rows
            if not row.attack
        ),
        attacks=tuple(
            AttackRecord(method=row.method, concept=row.concept, kind="object", attack=row.attack, status=row.status)
            for row in rows
            if row.attack
        ),
        protocol=Protocol(
            common=common or {"model": "picturebook", "sampler steps": 25},
            concepts={concept: {"prompts": "40 images of 40 prompts", "label": concept} for concept in concepts},
        ),
    )
    costs = pd.DataFrame(
        [
            (row.method, row.concept, "erase", "0", "ok", 12.5, 1000.0, 500.0, np.nan, "now")
            for row in rows
            if not row.attack
        ],
        columns=list(COST_COLUMNS),
    )
    environment = {"python": "3.11", "judges": {JUDGE: {"version": "1", "weights": "abc"}}, "packages": {"torch": "2"}}
    scores = pd.DataFrame(columns=list(SCORES))
    tables = (tuple(rows), scores, trials(rows), ranks_frame(), seeds_frame(), costs)
    return replace(RunFolder(Path("run"), make_config({}), record, *tables, environment), **more)


def matrix(
    methods: Sequence[str],
    concepts: Sequence[str],
    attacks: Sequence[str],
    flags: Mapping[str, tuple[str, ...]] | None = None,
) -> list[TableRow]:
    """Rows of every method and concept, and of every attack on them; the first method is the unerased model."""
    rng = np.random.default_rng(0)
    rows = []
    for concept in concepts:
        for place, method in enumerate(methods):
            hits = 40 if place == 0 else int(rng.integers(0, 20))
            rows.append(model_row(method, concept, hits, 78 - place, flags=(flags or {}).get(method, ())))
            for attack in attacks:
                broken = PROMPTS if place == 0 else 0 if attack == UNATTACKED else int(rng.integers(0, PROMPTS))
                rows.append(attack_row(method, concept, attack, broken))
    return rows


def with_cells(run: RunFolder, store: Store, trained: Sequence[str]) -> RunFolder:
    """The run with its images, their scores and traces of its erasures in a store.

    Args:
        run: is left as it is; what its attacks found is drawn as the row's first image.
        store: gets the images, which are noise, as that takes more room than any picture, of the built-in model's size.
        trained: the methods whose erasures have a trace.
    """
    rng = np.random.default_rng(0)
    records, cells, scores = [], {}, []
    prompts = [f"p{k}" for k in range(PROMPTS)]
    for row in run.record.rows:
        images, erasure = (Cell(stage, {"row": [row.method, row.concept]}) for stage in ("generate", "erase"))
        with store.writing(images, {}) as folder:
            noise = rng.integers(0, 256, (PROMPTS, 64, 64, 3), dtype=np.uint8)
            write_images(folder, noise, prompts, prompts, list(range(PROMPTS)))
        with store.writing(erasure, {}) as folder:
            steps = range(1, 101 if row.method in trained else 1)
            write_trace(folder / TRACE, [{"step": float(k), "loss": 1 / k + 0.1 * rng.random()} for k in steps])
        cells[row.method, row.concept] = images.key
        (judged,) = row.probes["concept"].judged
        probes = {"concept": ProbeRecord(images=images.key, judged=(judged,))}
        records.append(row.model_copy(update={"probes": probes, "erasure": erasure.key}))
        known = (row.method, row.concept, "concept")
        scores += [
            (*known, prompt, f"prompt {k}", "naming", k, k, JUDGE, row.concept, rng.random(), 0.5)
            for k, prompt in enumerate(prompts)
        ]
    attacks = tuple(
        row.model_copy(update={"trials": {row.attack: dict.fromkeys(prompts, cells[row.method, row.concept])}})
        for row in run.record.attacks
    )
    record = run.record.model_copy(update={"rows": tuple(records), "attacks": attacks})
    return replace(run, record=record, scores=pd.DataFrame(scores, columns=list(SCORES)))

"""Rows of a leaderboard, invented for tests, and changes of entries."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from erasebench.metrics.stats import Estimate, wilson
from erasebench.results.leaderboard import BoardRow, Entered

ATTACKS = ("none", "synonyms", "seed-search", "rab", "unlearndiff", "p4d-n", "cce", "soft-prompt", "standard")


def board_row(**fields: Any) -> BoardRow:
    """A row with numbers; fields that are given win."""
    numbers = {
        "ratio": Estimate(7.5, 2.58, 19.9, 40),
        "clip": Estimate(77.25, 75.5, 79.125, 100),
        "fid": Estimate(0.08, 0.05, 0.11, 100),
        "robust-rate@standard": Estimate(75.0, 60.0, 86.0, 40),
        "asr-confirmed@standard": Estimate(25.0, 14.0, 40.0, 40),
    }
    known: dict[str, Any] = {
        **{"model": "picturebook", "method": "esd-x[steps=20]", "hyper_parameters": {"steps": 20, "lr": 1e-05}},
        **{"concept": "church", "kind": "object", "seed": 0, "status": "ok", "reason": ""},
        **{
            "protocol": "aaaaaaaaaaaa",
            "attack_protocol": "cccccccccccc",
            "run": "bbbbbbbbbbbb",
            "erasebench": "0.1.0",
            "judge": "eye 1: church >= 0.5",
        },
        **{"flags": ("wide", "weak-budget@standard"), "erasure_seconds": 12.5, "seconds": 30.0},
        **{"attack_seconds": 600.0, "peak_memory_mb": 900.5, "parameters_changed": 1234567, "numbers": numbers},
    }
    return BoardRow(**{**known, **fields})


@cache
def _share(hits: int, n: int) -> Estimate:
    low, high = wilson(hits, n)
    return Estimate(100 * hits / n, 100 * low, 100 * high, n)


def many(count: int, seed: int = 0) -> list[BoardRow]:
    """So many rows, a hundred methods on each of ten concepts and then the next model, some of them submissions."""
    rng = random.Random(seed)
    rows = []
    for k in range(count):
        method, concept, model = k % 100, k // 100 % 10, k // 1000
        left = rng.random()

        def rate(share: float, rng: random.Random = rng) -> Estimate:
            return _share(round(40 * share * rng.random()), 40)

        numbers = {"ratio": rate(left), "clip": Estimate(70 + 8 * rng.random(), 69.0, 79.0, 100)}
        numbers |= {
            "fid": Estimate(0.08 + 0.04 * rng.random(), 0.05, 0.13, 100),
            "robust-rate@standard": rate(1 - left),
        }
        numbers |= {f"asr-confirmed@{attack}": rate(left) for attack in ATTACKS}
        entered = Entered(
            name=f"Method {method}",
            paper=f"https://example.org/{method}",
            authors="A. Author and B. Author",
            venue="ICLR 2025",
            reported={"ratio": 5.0},
            external=20.0 if method % 17 == 0 else None,
            unreliable=None if method % 5 else True,
            verified_by="maintainers" if method % 4 == 1 else "",
        )
        rows.append(
            board_row(
                model=f"model-{model}",
                method=f"esd-x[steps={100 + method};learning_rate=1e-{method % 5 + 3}]" if method else "sd",
                hyper_parameters={"steps": 100 + method, "learning_rate": 10.0 ** -(method % 5 + 3)},
                concept=f"concept-{concept}",
                protocol=f"{model % 3:012x}",
                run=f"{k:012x}",
                flags=("wide", "guard-in-loop@seed-search", "weak-budget@unlearndiff") if method % 3 == 0 else (),
                numbers=numbers,
                entered=entered if method % 2 else Entered(),
            )
        )
    return rows


def edit(path: Path, **fields: Any) -> None:
    """Change fields of an entry's file."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")

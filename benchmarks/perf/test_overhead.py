"""What the harness costs: the share of a ``quick`` run outside the passes through model and judges.

Bar: 5 %.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from benchmarks.perf.conftest import Show
from erasebench.config import make_config, read_preset
from erasebench.models.diffusion import DiffusionModel
from erasebench.registry import JUDGES, METHODS
from erasebench.runs import run

MATRIX = {"methods": ["dm2", "esd-u"], "concepts": ["nudity", "church"]}
"""The README's demo.  What is outside the passes is nearly the same seconds for every matrix, imports and loading
above all: of a run that trains nothing it is twice the share."""
MAX_SHARE = 0.05


class Clock:
    """Seconds inside the functions that it wraps, by kind; a call within another counts once, for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    def wrap(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """The function, timed."""

        @wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            if self._inside:
                return function(*args, **options)
            self._inside, began = True, time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self._inside = False
                self.seconds[kind] += time.perf_counter() - began

        return timed


def test_overhead(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: Show) -> None:
    """One run from nothing, with the model's and judges' passes and the method's training timed from outside."""
    clock = Clock()
    for name in ("embed", "predict", "decode"):
        monkeypatch.setattr(DiffusionModel, name, clock.wrap(getattr(DiffusionModel, name), f"model: {name}"))
    for name in MATRIX["methods"]:
        erase: Any = METHODS.get(name).make
        monkeypatch.setattr(erase, "erase", clock.wrap(erase.erase, "method"))
    for name in ("picturebook-detector", "picturebook-clip"):
        judge: Any = JUDGES.get(name).make
        monkeypatch.setattr(judge, "scores", clock.wrap(judge.scores, f"judge: {name}"))
    places = {"store": tmp_path / "store", "out": tmp_path / "out"}
    # In this process, where passes can be timed.
    config = make_config(read_preset("quick"), {**MATRIX, **places, "workers": 1})
    result = benchmark.pedantic(run, args=(config, io.StringIO()), rounds=1)
    assert not result.outcome.failed
    assert set(clock.seconds) >= {"model: predict", "model: decode", "judge: picturebook-detector"}

    whole = benchmark.stats.stats.total
    share = 1 - sum(clock.seconds.values()) / whole
    reference = sum(
        float(result.outcome.costs[cell.key]["seconds"]) for cell in result.plan.cells if cell.stage == "reference"
    )
    figures = {name: f"{seconds:.2f} s" for name, seconds in sorted(clock.seconds.items())}
    figures |= {"rendering of FID's reference images": f"{reference:.2f} s", "whole": f"{whole:.2f} s"}
    figures |= {"overhead": f"{100 * share:.1f} %"}
    benchmark.extra_info.update(figures, share=share)
    show(f"A quick run: {MATRIX}", figures)
    assert share < MAX_SHARE

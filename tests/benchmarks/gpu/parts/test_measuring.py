"""Figures that fit into the time that is left, and say so where they do not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts import measuring
from benchmarks.gpu.parts.measuring import FAILED, OUT_OF_TIME, attempt, gib, rounded, seconds, warmed_up
from erasebench.engine.work import PeakMemory

CPU = torch.device("cpu")


def test_an_attempt_needs_its_time(tmp_path: Path) -> None:
    part = Part("sd", scale="tiny", out=tmp_path, limit=10)
    assert attempt(part, "a.quick", 1.0, lambda: {"x": 1}) == {"x": 1}
    assert attempt(part, "a.slow", 20.0, lambda: {"x": 1}) is None
    assert part.figures == {"a": {"quick": {"x": 1}, "slow": OUT_OF_TIME}}
    full = Part("sd", out=tmp_path, limit=5.0)
    assert attempt(full, "a", 0.0, lambda: {"x": 1}) is None


def test_an_attempt_that_fails_says_so_and_the_part_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "release", lambda: None)
    part = Part("sd", scale="tiny", out=tmp_path)
    assert attempt(part, "a.broken", 0.0, lambda: {"x": 1 / 0}) is None
    assert part.figures == {"a": {"broken": FAILED}}
    assert part.problems == ["a.broken: ZeroDivisionError: division by zero"]
    assert attempt(part, "a.next", 0.0, lambda: {"x": 1}) == {"x": 1}


def test_numbers_have_four_digits() -> None:
    assert [rounded(value) for value in (123456.0, 0.00123456, 2.0)] == [123500.0, 0.001235, 2.0]


def test_seconds_are_those_of_the_call() -> None:
    assert 0.02 <= seconds(CPU, lambda: time.sleep(0.02)) < 5


def test_the_warm_up_is_not_in_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter([0.0, 7.0, 10.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(PeakMemory, "restart", lambda self: calls.append("restart"))
    monkeypatch.setattr(PeakMemory, "megabytes", lambda self: 2**31 / 1e6)
    lasted, figures = warmed_up(CPU, lambda: calls.append("warm-up"), lambda: calls.append("call"))
    assert calls == ["warm-up", "restart", "call"]
    assert lasted == 2.0
    assert figures == {"seconds": 2.0, "warm_up_seconds": 7.0, "peak_memory_gib": 2.0}


def test_memory_that_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeakMemory, "megabytes", lambda self: None)
    assert gib(PeakMemory("cpu")) is None

"""What measuring takes: clocks that wait for the device, memory, and figures that fit into the time that is left."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.kit import Part
from erasebench.engine.work import PeakMemory

OUT_OF_TIME = "not measured: out of time"
FAILED = "not measured: see problems"
ENDING = 8.0
"""Seconds before the limit at which nothing more is begun at full scale."""
MEGABYTES_PER_GIB = 2**30 / 1e6


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, call: Callable[[], object]) -> float:
    """How long a call takes, with everything that it starts on a device."""
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def rounded(value: float) -> float:
    """A number to four significant digits."""
    return float(f"{value:.4g}")


def release() -> None:
    """Give back memory that nothing uses, so that the next measurement starts from the same."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gib(peak: PeakMemory) -> float | None:
    """The peak in GiB, or None where the system does not tell."""
    megabytes = peak.megabytes()
    return None if megabytes is None else rounded(megabytes / MEGABYTES_PER_GIB)


def warmed_up(
    device: torch.device, warm_up: Callable[[], object], call: Callable[[], object]
) -> tuple[float, dict[str, Any]]:
    """How long a call takes after a warm-up.

    Returns:
        Its seconds; and as figures these, those of the warm-up, and the peak memory of the call.
    """
    peak = PeakMemory(device.type)
    before = seconds(device, warm_up)
    peak.restart()
    duration = seconds(device, call)
    return duration, {
        "seconds": rounded(duration),
        "warm_up_seconds": rounded(before),
        "peak_memory_gib": gib(peak),
    }


def ending(part: Part) -> float:
    """Seconds before the limit at which nothing more is begun."""
    return 0.0 if part.tiny else ENDING


def attempt(part: Part, name: str, needed: float, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Measure and record figures, or record that there was no time for them or that they failed.

    Args:
        part: whose figures.
        name: under which they are recorded.
        needed: seconds that have to be left.
        measure: gives them.

    Returns:
        The figures; None if there are none.
    """
    if part.seconds_left() < needed + ending(part):
        part.record(name, OUT_OF_TIME)
        return None
    figures: dict[str, Any] | None = None
    with part.going_on(name):
        figures = measure()
    release()
    part.record(name, FAILED if figures is None else figures)
    return figures

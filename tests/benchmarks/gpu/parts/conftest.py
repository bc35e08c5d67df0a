"""Parts at tiny scale without what takes seconds of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from benchmarks.gpu.parts import measuring


@pytest.fixture(autouse=True)
def uncollected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is given back without looking for garbage in all that the tests have imported."""
    monkeypatch.setattr(measuring, "gc", SimpleNamespace(collect=int))


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """U-Nets count as compiled, and are not: tracing one takes seconds."""

    def compile(module: nn.Module, backend: str) -> None:
        module._compiled_call_impl = module._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile)

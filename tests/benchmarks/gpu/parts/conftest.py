"""Training at tiny scale without what takes seconds of it."""

from __future__ import annotations

import pytest
from torch import nn


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """U-Nets count as compiled, and are not: tracing one takes seconds."""

    def compile(module: nn.Module, backend: str) -> None:
        module._compiled_call_impl = module._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile)

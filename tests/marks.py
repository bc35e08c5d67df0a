"""Marks that several tests give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_quick(values: Iterable[Any]) -> list[Any]:
    """Values of a parameter, or tuples of those of several: all but the first are left to ``make test-slow``."""
    first, *others = values
    tuples = (other if isinstance(other, tuple) else (other,) for other in others)
    return [first, *(pytest.param(*other, marks=pytest.mark.slow) for other in tuples)]


def some_quick(quick: Iterable[tuple[Any, ...]], cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Tuples of values of several parameters: some, and the other cases, which are left to ``make test-slow``."""
    chosen = list(quick)
    return [
        *(pytest.param(*case) for case in chosen),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in cases if case not in chosen),
    ]

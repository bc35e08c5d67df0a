"""Base classes of plug-ins: hyper-parameters and their ranges, and what a method need not have."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.plugins import decided
from tests.plain import Nothing, Plain, Validated
from tests.tiny import concept


def test_pydantics_dataclasses_are_validated_in_python_too() -> None:
    given: Any = {"where": "inside", "step": 3}
    with pytest.raises(EraseBenchError, match=r"^steps: Input should be greater than or equal to 1, not 0$"):
        Validated("inside", 0)
    with pytest.raises(EraseBenchError, match=r"^where: Input should be 'inside' or 'outside', not 'above'$"):
        Validated("above")  # type: ignore[arg-type]
    with pytest.raises(EraseBenchError, match=r"^step: Unexpected keyword argument, not 3$"):
        Validated(**given)
    with pytest.raises(EraseBenchError, match=r"^steps: "):
        dataclasses.replace(Validated("inside"), steps=-1)


def test_what_a_method_need_not_have() -> None:
    method, concepts = Nothing(), [concept("church")]
    assert (method.version, method.guidance_only, method.low_rank) == (1, False, False)
    assert method.resolved(concepts) is method
    assert (method.identity(), method.judges("photo", concepts)) == ({}, ())
    method.check("photo", concepts)


def test_values_fill_only_what_is_none() -> None:
    method = make_plugin(Plain, {"where": "inside", "rate": None})
    assert method.filled({"rate": 1.0, "steps": 7}) == dataclasses.replace(method, rate=1.0)


def test_what_is_not_resolved_is_no_number() -> None:
    assert decided(0.0) == 0.0
    with pytest.raises(TypeError, match=r"call resolved\(concepts\) first"):
        decided(None)

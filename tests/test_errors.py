from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from safetensors import SafetensorError

import erasebench
import erasebench.attacks
import erasebench.methods
from erasebench.errors import EraseBenchError, one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            RuntimeError("Error(s) in loading state_dict:\n\tMissing key(s)"),
            "RuntimeError: Error(s) in loading state_dict: Missing key(s)",
        ),
        (EraseBenchError("what\nand how"), "what and how"),
        (FloatingPointError("training diverged"), "training diverged"),
        (KeyError("name"), "KeyError: 'name'"),
        (SafetensorError("Error while deserializing\nheader"), "Error while deserializing header"),
    ],
)
def test_an_error_on_one_line_keeps_its_cause(error: Exception, text: str) -> None:
    assert one_line(error) == text


def exceptions() -> Iterator[type[BaseException]]:
    """Every class of exception that the package defines for others to catch."""
    packages: list[Any] = [erasebench, erasebench.methods, erasebench.attacks]
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(".__main__"):
                continue
            for name, made in vars(importlib.import_module(module.name)).items():
                own = inspect.isclass(made) and made.__module__ == module.name and not name.startswith("_")
                if own and issubclass(made, BaseException):
                    yield made


def test_every_exception_is_in_one_tree() -> None:
    found = set(exceptions())
    assert {made.__name__ for made in found} >= {"NotApplicable", "ErasureFailedError", "CorruptCellError"}
    assert [made for made in found if not issubclass(made, EraseBenchError)] == []
    assert [made for made in found if not made.__doc__] == []

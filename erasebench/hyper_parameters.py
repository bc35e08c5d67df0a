"""Hyper-parameters of plug-ins: made of what a user gives, told what is wrong with it, and written as JSON has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from erasebench.errors import EraseBenchError, check_name
from erasebench.texts import shown

T = TypeVar("T")


def make_plugin(make: Callable[..., T], values: Mapping[str, Any]) -> T:
    """Make a method or an attack of hyper-parameters, which are validated and converted.

    Raises:
        EraseBenchError: an unknown name, with the nearest, or a value of the wrong type or out of range.
    """
    for name in values:
        check_name("hyper-parameter", name, names_of(make))
    try:
        instance: T = TypeAdapter(make).validate_python(dict(values))  # type: ignore[arg-type]
    except ValidationError as error:
        raise EraseBenchError(explain(error, names_of(make))) from None
    for name, value in values.items():
        if isinstance(value, bool) and value is not getattr(instance, name):
            raise EraseBenchError(f"{name}: Input should be a number, not {value}")
    return instance


def hyper_parameters(plugin: Any) -> dict[str, Any]:
    """All hyper-parameters of a method or an attack with their values, as JSON has them."""
    values: dict[str, Any] = TypeAdapter(type(plugin)).dump_python(plugin, mode="json")
    return {name: values[name] for name in names_of(type(plugin))}


def explain(error: ValidationError, names: Sequence[str]) -> str:
    """The fault of the first wrong value: ``steps: Input should be greater than 0, not -1``.

    Args:
        error: of a dataclass.
        names: its fields, by which values without a name are called.
    """
    first = error.errors()[0]
    where = ".".join(names[part] if isinstance(part, int) else part for part in first["loc"][:1])
    # A check of our own has said everything already.
    own = (first.get("ctx") or {}).get("error")
    if own is not None:
        return f"{where + ': ' if where else ''}{own}"
    ending = "" if first["type"].startswith("missing") else f", not {shown(first['input'])}"
    return f"{where + ': ' if where else ''}{first['msg']}{ending}"


def names_of(make: Any) -> list[str]:
    """The names of a plug-in's hyper-parameters; of its class or whatever makes it."""
    return [field.name for field in dataclasses.fields(make) if field.init]

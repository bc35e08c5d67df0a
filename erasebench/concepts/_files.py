"""Read YAML into dataclasses; whatever is wrong is said with its file and place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from erasebench.errors import EraseBenchError, UnknownNameError, check_name
from erasebench.files import read_file
from erasebench.texts import MAX_PROMPT_LENGTH, check_text, is_blank, is_valid, shown
from erasebench.yaml_files import parse_yaml

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""The spelling of names of concepts and prompt sets."""


class CatalogueError(EraseBenchError):
    """A concept file is wrong; the message names the file and the concept."""


def read(path: Path) -> bytes:
    """The bytes of a concept file.

    Raises:
        CatalogueError: as :func:`~erasebench.files.read_file`.
    """
    try:
        return read_file(path)
    except EraseBenchError as error:
        raise CatalogueError(str(error)) from None


def parse(content: bytes, path: str) -> Any:
    """The content of a concept file.

    Raises:
        CatalogueError: as :func:`~erasebench.yaml_files.parse_yaml`, with the file's name.
    """
    try:
        return parse_yaml(content)
    except EraseBenchError as error:
        raise CatalogueError(f"{path}: {error}") from None


def build(cls: type[T], raw: object, where: str) -> T:
    """Make a dataclass of what a YAML file holds: mappings, lists, texts and numbers.

    Args:
        cls: the dataclass; its fields may be dataclasses, ``Mapping[str, X]``, ``tuple[X, ...]``, ``X | None``,
            ``str``, ``float``, ``int`` and ``bool``.
        raw: the value read.
        where: the place of the value, which every message starts with.

    Raises:
        CatalogueError: a key that the dataclass does not have, a key that is missing, or a value of another type.
    """
    mapping = _mapping(raw, where)
    known = _fields(cast(type, cls))
    for key in mapping:
        check("key", key, known, where)
    missing = [key for key, (_, required) in known.items() if required and key not in mapping]
    if missing:
        raise CatalogueError(f"{where}: missing {', '.join(repr(key) for key in missing)}")
    return cls(**{key: _convert(known[key][0], value, f"{where}: {key}") for key, value in mapping.items()})


def check(what: str, name: str, allowed: Iterable[str], where: str) -> None:
    """Raise :class:`CatalogueError` with the nearest names unless ``name`` is allowed."""
    try:
        check_name(what, name, allowed, where)
    except UnknownNameError as error:
        raise CatalogueError(str(error)) from None


def check_texts(texts: Sequence[str], where: str) -> None:
    """Raise :class:`CatalogueError` if a text is empty, far too long or stands twice."""
    seen = set()
    for text in texts:
        if is_blank(text):
            raise CatalogueError(f"{where}: an empty text")
        if len(text) > MAX_PROMPT_LENGTH:
            raise CatalogueError(f"{where}: a text of {len(text):,} characters; {MAX_PROMPT_LENGTH:,} at most")
        if text in seen:
            raise CatalogueError(f"{where}: '{text}' stands twice")
        seen.add(text)


@cache
def _fields(cls: type) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it has to be given."""
    hints = get_type_hints(cls)
    return {
        field.name: (hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(cls)
    }


def _convert(hint: Any, value: object, where: str) -> Any:
    kind, inner = _kind(hint)
    if kind is UnionType:
        return None if value is None else _convert(inner, value, where)
    if kind is tuple:
        if not isinstance(value, list):
            raise CatalogueError(f"{where}: expected a list, found {_describe_value(value)}")
        if inner is str and set(map(type, value)) <= {str} and is_valid("".join(value)):  # nearly all lists
            return tuple(value)
        return tuple([_convert(inner, item, f"{where}: item {n}") for n, item in enumerate(value, start=1)])
    if kind is Mapping:
        return {key: _convert(inner, item, f"{where}: {key}") for key, item in _mapping(value, where).items()}
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CatalogueError(f"{where}: expected a number, found {_describe_value(value)}")
        return float(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise CatalogueError(f"{where}: expected true or false, found {_describe_value(value)}")
        return value
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise CatalogueError(f"{where}: expected a whole number, found {_describe_value(value)}")
        return value
    if kind is not str:
        return build(kind, value, where)
    if not isinstance(value, str):
        raise CatalogueError(f"{where}: expected text, found {_describe_value(value)}")
    _check_text(value, where)
    return value


@cache
def _kind(hint: Any) -> tuple[Any, Any]:
    """The outer type of a hint, and the type inside: found out once for each, since there are thousands of values."""
    origin, args = get_origin(hint), get_args(hint)
    assert origin or is_dataclass(hint) or hint in (float, bool, int, str), f"no reader for {hint}"
    return (origin, args[1 if origin is Mapping else 0]) if origin else (hint, None)


def _check_text(text: str, where: str) -> None:
    try:
        check_text(text, where)
    except EraseBenchError as error:
        raise CatalogueError(str(error)) from None


def _mapping(raw: object, where: str) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise CatalogueError(f"{where}: expected a mapping, found {_describe_value(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise CatalogueError(f"{where}: the key {shown(key)} is no text; put it in quotes")
        _check_text(key, where)
    return raw


def _describe_value(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else f"the text {shown(value)}" if isinstance(value, str) else shown(value)

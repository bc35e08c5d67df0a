"""Read YAML into dataclasses; whatever is wrong is said with its file and place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import yaml

from erasebench.errors import EraseBenchError, UnknownNameError, check_name

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""How names of concepts and prompt sets are spelt."""


class CatalogueError(EraseBenchError):
    """A concept file is wrong; the message names the file and the concept."""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        CatalogueError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror or error}") from error


def parse_yaml(content: bytes, path: str) -> Any:
    """The content of a YAML file, in which no mapping may give a key twice.

    Raises:
        CatalogueError: it is not YAML, or repeats a key; the message starts with ``path``.
    """
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(content)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_repeats(node, path)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise CatalogueError(f"{path}: {line}not valid YAML: {problem}") from error


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
        check_name(what, name, allowed)
    except UnknownNameError as error:
        raise CatalogueError(f"{where}: {error}") from None


def check_texts(texts: Sequence[str], where: str) -> None:
    """Raise :class:`CatalogueError` if a text is empty or stands twice."""
    seen = set()
    for text in texts:
        if not text.strip():
            raise CatalogueError(f"{where}: an empty text")
        if text in seen:
            raise CatalogueError(f"{where}: '{text}' stands twice")
        seen.add(text)


def _refuse_repeats(root: yaml.Node, path: str) -> None:
    """PyYAML itself would keep the last of several values and drop the others in silence."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                pending.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        raise CatalogueError(f"{path}: line {key.start_mark.line + 1}: '{key.value}' is given twice")
                    keys.add(key.value)


@cache
def _fields(cls: type) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it has to be given."""
    hints = get_type_hints(cls)
    return {
        field.name: (hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(cls)
    }


def _convert(hint: Any, value: object, where: str) -> Any:
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return build(hint, value, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if value is None else _convert(args[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise CatalogueError(f"{where}: expected a list, found {_found(value)}")
        return tuple(_convert(args[0], item, f"{where}: item {n}") for n, item in enumerate(value, start=1))
    if origin is Mapping:
        return {key: _convert(args[1], item, f"{where}: {key}") for key, item in _mapping(value, where).items()}
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CatalogueError(f"{where}: expected a number, found {_found(value)}")
        return float(value)
    if hint is bool:
        if not isinstance(value, bool):
            raise CatalogueError(f"{where}: expected true or false, found {_found(value)}")
        return value
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise CatalogueError(f"{where}: expected a whole number, found {_found(value)}")
        return value
    assert hint is str, f"no reader for {hint}"
    if not isinstance(value, str):
        raise CatalogueError(f"{where}: expected text, found {_found(value)}")
    return value


def _mapping(raw: object, where: str) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise CatalogueError(f"{where}: expected a mapping, found {_found(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise CatalogueError(f"{where}: the key {key!r} is no text; put it in quotes")
    return raw


def _found(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else f"the text {value!r}" if isinstance(value, str) else repr(value)

"""YAML that people write: configurations, suites, concepts, values of options.  It is read in one way, this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from erasebench.errors import EraseBenchError
from erasebench.files import read_file
from erasebench.texts import shown

MAX_NODES = 1_000_000
"""The most nodes of a document with its aliases written out: a page of aliases of aliases stands for billions."""
MAX_DEPTH = 100
"""Levels of brackets."""
_TEXT = "tag:yaml.org,2002:str"
_PLAIN = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")
)


class YamlError(EraseBenchError):
    """A fault of a document, and its line."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        EraseBenchError: the file cannot be read; or, as :func:`parse_yaml`, with the file's name.
    """
    content = read_file(path)
    try:
        return parse_yaml(content)
    except YamlError as error:
        raise YamlError(f"{path}: {error}") from None


def parse_yaml(text: str | bytes) -> Any:
    """The content of a YAML document: mappings, lists, texts, numbers, truth values, dates and nothing.

    Raises:
        YamlError: it is no YAML; a mapping gives a key twice, of which PyYAML would keep the last in silence; other
            tags; brackets too deep; aliases that lead to themselves or stand for too much.
    """
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, {}, 1)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except YamlError:
        raise
    # Values that look like numbers or dates and are none raise ValueError.
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        if "integer string conversion" in problem:
            problem = "a number of too many digits"
        raise YamlError(f"{line}not valid YAML: {problem}") from None


def _check(node: yaml.Node, sizes: dict[int, int | None], depth: int) -> int:
    """The number of nodes with all aliases written out.

    Args:
        node: what is counted.
        sizes: of the nodes that were, by their identity; None of those that are being counted.
        depth: levels down to here.
    """
    line = f"line {node.start_mark.line + 1}: "
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise YamlError(f"{line}an alias leads to itself")
        return size
    if depth > MAX_DEPTH:
        raise YamlError(f"{line}more than {MAX_DEPTH} levels")
    if node.tag not in _PLAIN:
        raise YamlError(f"{line}the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not read here")
    sizes[id(node)] = None
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            children += (key, value)
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise YamlError(f"line {key.start_mark.line + 1}: {shown(key.value)} is given twice")
                keys.add(key.value)
    size = 1
    for child in children:
        # Most nodes are plain texts, of which no more is to be known.
        size += 1 if child.tag == _TEXT and depth < MAX_DEPTH else _check(child, sizes, depth + 1)
    if size > MAX_NODES:
        raise YamlError(f"{line}aliases stand for more than {MAX_NODES:,} values")
    sizes[id(node)] = size
    return size

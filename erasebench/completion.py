"""Names that a shell completes; nothing is imported for them but what lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

LISTED = ("methods", "attacks", "judges", "metrics", "rules", "concepts", "prompt-sets", "presets", "suites")
"""Kinds for ``list`` and ``show``: ``erasebench.listing.LISTED``, which takes longer to import than ``--help`` may."""


def complete_name(*kinds: str) -> Complete:
    """Complete one name of some kinds, of which an option ``--kind`` or an argument KIND may choose."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        chosen = context.params.get("kind")
        return _items("", incomplete, _names([chosen] if chosen in kinds else kinds))

    return complete


def complete_names(kind: str) -> Complete:
    """Complete the last name of a list with commas, in whose brackets commas separate nothing."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if incomplete.rfind("[") > incomplete.rfind("]"):
            return []
        before, comma, last = incomplete.rpartition(",")
        words = before.split(",")
        return _items(before + comma, last, [name for name in _names([kind]) if name not in words])

    return complete


def complete_path(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a file's or folder's name."""
    return [CompletionItem(incomplete, type="file")]


def _names(kinds: Sequence[str]) -> list[str]:
    from erasebench.listing import names

    return list(dict.fromkeys(name for kind in kinds for name in names(kind)))


def _items(before: str, start: str, names: Sequence[str]) -> list[CompletionItem]:
    return [CompletionItem(before + name) for name in names if name.startswith(start)]

"""Tables and lists in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd


def pipe_table(table: pd.DataFrame, texts: Iterable[int]) -> str:
    """A pipe table.

    Args:
        table: of texts.
        texts: the columns, counted from the left, or from the right if negative, that are names; the rest are numbers.
    """
    names = {place % len(table.columns) for place in texts}
    rules = ["---" if place in names else "---:" for place in range(len(table.columns))]
    lines = ("| " + " | ".join(map(escape, line)) + " |\n" for line in (table.columns, rules, *table.to_numpy()))
    return "".join(lines)


def bullets(lines: Iterable[str]) -> str:
    """A list, one line each."""
    return "".join(f"- {escape(line)}\n" for line in lines)


def escape(text: str) -> str:
    """``text`` on one line and without a pipe that would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")

"""An attack, so far in name only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suffix:
    """Append a word."""

    word: str = "please"

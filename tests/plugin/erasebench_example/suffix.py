"""An attack, so far in name only."""

from __future__ import annotations

from dataclasses import dataclass

from erasebench.plugins import Attack


@dataclass(frozen=True)
class Suffix(Attack):
    """Append a word."""

    word: str = "please"

"""How the noise predictions of one sampling step are combined.

A rule predicts noise for the prompt and for its own ``texts``, all in one U-Net call, and combines the predictions.
Erasure methods that change nothing but this (a negative prompt, safe latent diffusion) return such a rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

Combine = Callable[[int, Tensor, list[Tensor], float], Tensor]
"""``(step, prompt's prediction [n, c, h, w], texts' predictions, guidance scale) -> prediction [n, c, h, w]``; steps
count from 0."""


class Guidance(Protocol):
    """A rule: a frozen dataclass of JSON-able fields."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What noise is predicted for besides the prompt."""
        ...

    def start(self) -> Combine:
        """The rule for one batch; it may keep state between steps."""
        ...


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """Ho and Salimans 2022: ``e(neg) + s (e(prompt) - e(neg))``; with a ``negative`` text, a negative prompt."""

    negative: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The negative text."""
        return (self.negative,)

    def start(self) -> Combine:
        """The rule has no state."""
        return lambda step, prompt, others, scale: others[0] + scale * (prompt - others[0])


RULES: dict[str, Callable[..., Guidance]] = {"classifier-free": ClassifierFreeGuidance}
"""The rules that a stored erasure can name."""


def to_json(rule: Any) -> dict[str, Any]:
    """A rule as JSON: its name in :data:`RULES` and its fields."""
    name = next(name for name, make in RULES.items() if make is type(rule))
    return {"rule": name, **dataclasses.asdict(rule)}


def from_json(stored: dict[str, Any]) -> Guidance:
    """The rule that :func:`to_json` wrote."""
    fields = dict(stored)
    return RULES[fields.pop("rule")](**fields)

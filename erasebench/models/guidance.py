"""Rules that combine the noise predictions of one sampling step.

A rule predicts noise for the prompt and for its own ``texts``, all in one U-Net call, and combines the predictions.
Erasure methods that change nothing but this (a negative prompt, safe latent diffusion) return such a rule.  Rules are
registered by name, so that a stored erasure can name one; a plug-in brings its own::

    @RULES.register("my-rule")
    @dataclass(frozen=True)
    class MyRule(Guidance):
        scale: float = 1.0
        texts = ("a photo",)

        def start(self):
            return lambda step, prompt, others, guidance_scale: prompt + self.scale * (prompt - others[0])
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.registry import BUILT_IN, PLUGIN_PREFIX, RULES, is_same_class

Combine = Callable[[int, Tensor, list[Tensor], float], Tensor]
"""``(step, prompt's prediction [n, c, h, w], texts' predictions, guidance scale) -> prediction [n, c, h, w]``; steps
count from 0."""


class Guidance(ABC):
    """A rule: a registered frozen dataclass of JSON-able fields, none of them called ``rule`` or ``plugin``."""

    @property
    @abstractmethod
    def texts(self) -> tuple[str, ...]:
        """The texts that noise is predicted for besides the prompt."""

    @abstractmethod
    def start(self) -> Combine:
        """The rule for one batch; it may keep state between steps."""


@RULES.register("classifier-free")
@dataclass(frozen=True)
class ClassifierFreeGuidance(Guidance):
    """Ho and Salimans 2022: ``e(neg) + s (e(prompt) - e(neg))``; with a ``negative`` text, a negative prompt."""

    negative: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The negative text."""
        return (self.negative,)

    def start(self) -> Combine:
        """The rule has no state."""
        return lambda step, prompt, others, scale: others[0] + scale * (prompt - others[0])


@RULES.register("safe-latent")
@dataclass(frozen=True)
class SafeLatentGuidance(Guidance):
    """Safe latent diffusion (Schramowski et al., CVPR 2023): classifier-free guidance that also leads away from a text.

    With predictions u for the blank prompt, p for the prompt and s for the safety text, elementwise at each step::

        mu  = 0 where p - s >= threshold, elsewhere min(1, scale |p - s|)
        g_S = mu (s - u) + momentum_scale v
        v  <- momentum_beta v + (1 - momentum_beta) g_S        from v = 0, also during the warm-up
        u + guidance scale ((p - u) - g_S)                     g_S = 0 before step ``warmup_steps``

    A model that predicts v has its predictions of v combined, as diffusers does; the constants are for noise.

    Attributes:
        safety: the text to lead away from.
        warmup_steps: delta, in sampling steps, whatever their number is; the published ones are for 50.
        scale: s_S.
        threshold: lambda.
        momentum_scale: s_m.
        momentum_beta: beta.
    """

    safety: str = ""
    warmup_steps: int = 10
    scale: float = 1000.0
    threshold: float = 0.01
    momentum_scale: float = 0.3
    momentum_beta: float = 0.4

    @property
    def texts(self) -> tuple[str, ...]:
        """The blank prompt and the safety text."""
        return "", self.safety

    def start(self) -> Combine:
        """The rule with momentum 0."""
        momentum: Tensor | float = 0.0

        def combine(step: int, prompt: Tensor, others: list[Tensor], guidance_scale: float) -> Tensor:
            nonlocal momentum
            blank, safety = others
            difference = prompt - safety
            weight = torch.where(difference >= self.threshold, 0.0, (self.scale * difference.abs()).clamp(max=1))
            away = weight * (safety - blank) + self.momentum_scale * momentum
            momentum = self.momentum_beta * momentum + (1 - self.momentum_beta) * away
            guided = prompt - blank
            return blank + guidance_scale * (guided - away if step >= self.warmup_steps else guided)

        return combine


def to_json(rule: Guidance) -> dict[str, Any]:
    """A rule as JSON: its registered name, its fields, and for a plug-in's rule where that comes from.

    Raises:
        EraseBenchError: the rule is not registered, or no dataclass.
    """
    own = type(rule)
    name = next((name for name, plugin in RULES.loaded.items() if is_same_class(plugin.make, own)), None)
    if name is None or not dataclasses.is_dataclass(own):
        raise EraseBenchError(
            f"the guidance rule {own.__name__} of {own.__module__} cannot be stored: put "
            '@RULES.register("its-name") and @dataclass(frozen=True) before its class'
        )
    origin = RULES.origin(name)
    plugin = {} if origin == BUILT_IN else {"plugin": origin.removeprefix(PLUGIN_PREFIX)}
    fields = {field.name: getattr(rule, field.name) for field in dataclasses.fields(own)}
    return {"rule": name, **plugin, **fields}


def from_json(stored: Any) -> Guidance:
    """The rule that :func:`to_json` wrote.

    Raises:
        EraseBenchError: no plug-in provides the rule, or it has other fields.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get("rule"), str):
        raise EraseBenchError("the guidance rule is damaged: it has no name")
    fields = dict(stored)
    name, plugin = fields.pop("rule"), fields.pop("plugin", None)
    if name not in RULES.names():
        if plugin is None:
            raise EraseBenchError(f"unknown guidance rule '{name}'; it may be of a later version of erasebench")
        raise EraseBenchError(
            f"the guidance rule '{name}' is of the plug-in '{plugin}', which is missing: give its file with --plugins, "
            "or install its package"
        )
    try:
        rule: Guidance = RULES.get(name).make(**fields)
    except TypeError as error:
        raise EraseBenchError(f"the guidance rule '{name}' cannot be made from its stored fields: {error}") from error
    return rule

"""erasebench measures how well a concept can be erased from a text-to-image diffusion model.

>>> import erasebench
>>> pipeline = erasebench.erase("picturebook", "uce", "church")
>>> results = erasebench.run(["uce", "esd-x"], ["church"])

Importing this package is cheap: what it offers is imported when it is first used, and torch with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from erasebench.errors import EraseBenchError, ErasureFailedError, NotApplicable

if TYPE_CHECKING:
    from erasebench.api import RunResults, attack, erase, erasure_of, run
    from erasebench.concepts import Concept
    from erasebench.judging import Scores
    from erasebench.metrics.metric import Metric
    from erasebench.metrics.stats import Estimate
    from erasebench.models.erasure import Erasure
    from erasebench.plugins import Attack, EraseContext, Judge, Method
    from erasebench.registry import ATTACKS, JUDGES, METHODS, METRICS

__version__ = "0.1.0"

__all__ = [
    "ATTACKS",
    "JUDGES",
    "METHODS",
    "METRICS",
    "Attack",
    "Concept",
    "EraseBenchError",
    "EraseContext",
    "Erasure",
    "ErasureFailedError",
    "Estimate",
    "Judge",
    "Method",
    "Metric",
    "NotApplicable",
    "RunResults",
    "Scores",
    "__version__",
    "attack",
    "erase",
    "erasure_of",
    "run",
]

_MODULES = {
    **dict.fromkeys(("RunResults", "attack", "erase", "erasure_of", "run"), "api"),
    "Concept": "concepts",
    "Scores": "judging",
    "Metric": "metrics.metric",
    "Estimate": "metrics.stats",
    "Erasure": "models.erasure",
    **dict.fromkeys(("Attack", "EraseContext", "Judge", "Method"), "plugins"),
    **dict.fromkeys(("ATTACKS", "JUDGES", "METHODS", "METRICS"), "registry"),
}
"""The module of each name that is imported when it is first used."""


if not TYPE_CHECKING:  # type checkers would take any name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

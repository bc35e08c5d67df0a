"""The number of prompts a run needs to know its rates as exactly as is wanted: ``erasebench plan --precision 2%``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from erasebench.config import RunConfig
from erasebench.errors import EraseBenchError
from erasebench.metrics.precision import MAX_COUNT, half_width, images_needed, intraclass_correlation, prompts_needed
from erasebench.plan import count_prompts
from erasebench.planning import make_plan
from erasebench.plugins import BASELINE
from erasebench.results.record import RECORD
from erasebench.results.run_folder import read_run

ASSUMED_ICC = 0.5
"""The agreement of images of a prompt where no run tells."""
ALL_PROMPTS = 10**9
"""More than any concept has."""


@dataclass(frozen=True)
class Earlier:
    """The figures of a concept from the last run in the run folder.

    Attributes:
        rates: by method, the share of images that show the concept.
        icc: how far images of a prompt agree, over all methods; nan where the run had one image a prompt.
    """

    rates: dict[str, float]
    icc: float


def parse_precision(text: str) -> float:
    """``"2%"`` -> 0.02: the half-width of an interval, as a share.

    Raises:
        EraseBenchError: it is written in another way, or is not between 0 and 50 %.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text.strip())
    if not match:
        raise EraseBenchError(
            f"'{text}' is no precision; write how far an interval may reach to either side in per cent, such as 2%"
        )
    half = float(match[1]) / 100
    if not 0 < half < 0.5:
        raise EraseBenchError(f"a precision is more than 0% and less than 50%, not {text}")
    return half


def describe_precision(half: float, config: RunConfig) -> str:
    """The number of prompts to know Ratio, or another rate over prompts, to ``half``, and what each concept has.

    Args:
        half: the wanted half-width of the 95 % interval, as a share.
        config: of the run; what is in its run folder tells of rates to expect, and how far images of a prompt agree.

    Raises:
        EraseBenchError: as :func:`~erasebench.planning.make_plan`.
    """
    every = make_plan(config.model_copy(update={"prompts": ALL_PROMPTS, "images_per_prompt": 1, "attacks": ()}))
    there = count_prompts(every)
    earlier = {name: own for name, own in _earlier(config).items() if name in there}
    lines = [
        f"To know a rate, such as Ratio, to +-{100 * half:.4g} points (95 % interval) takes, with one image a prompt:",
        _line(half, 0.5, "where half of the images show the concept, the worst case"),
    ]
    if not earlier:
        lines.append(_line(half, 0.1, "where 10 % or 90 % do"))
    for name, own in earlier.items():
        hardest = min(own.rates, key=lambda method: abs(own.rates[method] - 0.5))
        for method in dict.fromkeys((BASELINE, hardest) if BASELINE in own.rates else (hardest,)):
            rate = own.rates[method]
            lines.append(_line(half, rate, f"where {100 * rate:.3g} % do, as of {method} on {name} in {config.out}"))
    known = {name: own.icc for name, own in earlier.items() if not math.isnan(own.icc)}
    for name, available in there.items():
        lines += _concept(name, available, half, known.get(name, ASSUMED_ICC))
    agreed = [f"{icc:.2g} on {name}, as in {config.out}" for name, icc in known.items()]
    if set(there) - set(known):
        agreed.append(f"{ASSUMED_ICC} {'elsewhere, ' if known else ''}by assumption, until a run in --out has several")
    return "\n".join([*lines, f"How far images of one prompt agree (ICC): {'; '.join(agreed)}."])


def _line(half: float, rate: float, where: str) -> str:
    needed = prompts_needed(half, rate)
    count = "too many" if needed is None else f"{needed:,}"
    return f"{count:>9} prompt{'' if needed == 1 else 's'} {where}"


def _concept(name: str, available: int, half: float, icc: float) -> list[str]:
    """The precision that can be had with the prompts that a concept has."""
    needed = prompts_needed(half, 0.5)
    if needed is not None and available >= needed:
        return [f"{name} has {available:,} prompts in this domain, enough: --prompts {needed}."]
    reach = 100 * half_width(0.5, available)
    lines = [
        f"{name} has {available:,} prompts in this domain, too few for the worst case: "
        f"--prompts {available} gives +-{reach:.3g} points there."
    ]
    if available < 2:
        return lines
    images = images_needed(half, 0.5, available, icc)
    if images is None:
        floor = 100 * half_width(0.5, available, MAX_COUNT, icc)
        more = f"However many images of each, +-{floor:.3g} points are left; only more prompts do (--concept-files)."
    else:
        more = f"--images-per-prompt {images} makes up for it, with {available * images:,} images."
    return [*lines, f"  {more}"]


def _earlier(config: RunConfig) -> dict[str, Earlier]:
    """The figures of the run in the run folder, by concept; nothing where there is none of this model."""
    if not (config.out / RECORD).exists():
        return {}
    run = read_run(config.out)
    if run.config.model != config.model:
        return {}
    scores = run.scores[run.scores["probe"] == "concept"]
    scores = scores.assign(shown=scores["score"] >= scores["threshold"])
    figures = {}
    for name, of_concept in scores.groupby("concept", sort=False):
        methods = dict(list(of_concept.groupby("method", sort=False)))
        agreed = [intraclass_correlation(own["shown"], own["prompt_id"]) for own in methods.values()]
        defined = [icc for icc in agreed if not math.isnan(icc)]
        rates = {method: float(own["shown"].mean()) for method, own in methods.items()}
        figures[str(name)] = Earlier(rates, float(np.mean(defined)) if defined else math.nan)
    return figures

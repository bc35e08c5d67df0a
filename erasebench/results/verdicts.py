"""Verdicts on what changed between two runs: worse, no worse, or inconclusive.

What each means, what is compared with what, and what a verdict does not say is told in docs/gate.md ("Gating on a
run"); here is why it is decided so.

- Sure and more than a margin, both, is *worse*, since with thousands of prompts a hair's breadth is sure, and with ten
  a large difference may be chance.  *No worse* is a test of non-inferiority: that nothing was found is no evidence,
  since a comparison that is too small never finds anything.
- Two families, one over all concepts of each method and one of single rows, each adjusted by Holm with half of
  :data:`~erasebench.metrics.paired.LEVEL` (all of it if alone): the first sees what is small and everywhere, the second
  what is large and in one place.  p is one-sided, since only a worsening can fail.
- The chance of a false *worse* stays below that level if the erasures are the same on both sides.  Where a method that
  trains is trained anew, its next erasure differs by more than prompts do; only comparisons over several seeds of it
  hold then (:func:`~erasebench.metrics.paired.add_spread`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import Description
from erasebench.metrics.paired import LEVEL, Z_POWER, PairedComparison, Z, holm
from erasebench.metrics.stats import UNDEFINED, Estimate

Verdict = Literal["worse", "inconclusive", "no worse", "not judged"]

ALL = "(all)"
"""Stands for the concept where a method is compared over all of its concepts, with all of its erasure's seeds."""


@dataclass(frozen=True)
class Margin:
    """The change for the worse that is too little to matter.

    Attributes:
        amount: in the metric's unit, or in per cent of the value before.
        relative: it is in per cent of the value before.
    """

    amount: float
    relative: bool = False

    def of(self, before: float) -> float:
        """In the metric's unit."""
        return self.amount / 100 * abs(before) if self.relative else self.amount


POINTS = ("%", "x100", "points")
"""Units in which margins are points."""
MARGIN, CLIP_MARGIN, OTHER_MARGIN = Margin(5), Margin(2, relative=True), Margin(10, relative=True)
"""In points; of the CLIP score, where methods that leave a model whole are within a few per cent; of all else."""


@dataclass(frozen=True)
class Change:
    """One metric of one row in two runs.

    Attributes:
        method: as the new run has it; ``before_method`` as the base run has it; "" for every method.
        concept: its name; :data:`ALL` for all of the method's concepts together; "" for every concept that is missing.
        attack: "" for a row without any.
        metric: its key; "" for a row that can be measured no more, which is worse, and for what is ``missing``.
        before: the value in the base run, over the prompts that were compared; ``after`` that in the new run.
        difference: after less before, with its 95 % interval; ``n`` is the number of prompts, or of images if not
            ``paired``.
        test: what gave ``p``.
        p: one-sided, that it is worse, adjusted for all comparisons that are judged; nan where it is not judged.
        margin: how much worse is too little to matter, in the metric's unit.
        sees: the smallest true worsening that would have been found in 80 % of repeats; infinite if none would.
        verdict: as docs/gate.md says.
        decisive: whether it counts where it is inconclusive.
        better: the whole interval lies on the good side of zero.
        unmoved: the same prompts and seeds have the same scores and the same values.
        reason: why the row can be measured no more.
        paired: it was compared prompt by prompt, not by the intervals of two numbers.
        missing: the new run has no such method, concept, attack or row at all; inconclusive if anything is judged.
    """

    method: str
    before_method: str
    concept: str
    attack: str
    metric: str
    before: float = math.nan
    after: float = math.nan
    difference: Estimate = UNDEFINED
    test: str = ""
    p: float = math.nan
    margin: float = math.nan
    sees: float = math.inf
    verdict: Verdict = "not judged"
    decisive: bool = True
    better: bool = False
    unmoved: bool = False
    reason: str = ""
    paired: bool = True
    missing: bool = False

    @property
    def moved(self) -> bool:
        """True if zero lies outside the interval."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def row(self) -> str:
        """The row in words."""
        return title_of(self.method, self.concept, self.attack)


@dataclass(frozen=True)
class Evidence:
    """A change that has been tested and not yet judged, with what judging it takes.

    Attributes:
        change: all but its verdict.
        p: two-sided, on its own.
        detectable: as of :class:`~erasebench.metrics.paired.PairedComparison`, in the metric's unit.
        sign: 1 where higher is worse, otherwise -1.
        judged: it can fail.
    """

    change: Change
    p: float
    detectable: float
    sign: int
    judged: bool

    @property
    def worsening(self) -> float:
        """By how much it is worse; negative where it is better."""
        return self.sign * self.change.difference.value

    @property
    def worst(self) -> float:
        """The bad end of the interval; nan without one."""
        difference = self.change.difference
        return difference.high if self.sign > 0 else -difference.low


def title_of(method: str, concept: str, attack: str) -> str:
    """A row in words."""
    return ", ".join(filter(None, (method, concept, attack)))


def evidence_of(change: Change, compared: PairedComparison, metric: Description, judged: bool) -> Evidence:
    """A comparison in the metric's unit, ready to be judged."""
    sign, difference = -1 if metric.direction == "higher" else 1, compared.difference
    better = difference.low > 0 if sign < 0 else difference.high < 0
    return Evidence(
        replace(change, difference=difference, test=compared.test, better=better),
        *(compared.p, compared.detectable, sign, judged),
    )


def judge(tests: Sequence[Evidence]) -> list[Change]:
    """Give every change its verdict."""
    from scipy.stats import norm

    judged = [test for test in tests if test.judged]
    families = [[test for test in judged if (test.change.concept == ALL) == whole] for whole in (True, False)]
    families = [family for family in families if family]
    verdicts: dict[int, Change] = {}
    for family in families:
        # One-sided: a half of the two-sided value on the side that is worse, and the rest on the other.
        sided = [test.p / 2 if test.worsening > 0 else 1 - test.p / 2 for test in family]
        # What a single comparison has to reach before any other has.
        quantile = float(norm.isf(LEVEL / len(families) / len(family)))
        for test, adjusted in zip(family, holm(sided), strict=True):
            p = min(1.0, len(families) * adjusted)
            verdicts[id(test)] = replace(test.change, p=p, verdict=_verdict(test, p), sees=_sees(test, quantile))
    return [verdicts.get(id(test), test.change) for test in tests]


def _verdict(test: Evidence, p: float) -> Verdict:
    if test.change.unmoved:
        return "no worse"
    if p < LEVEL and test.worsening > test.change.margin:
        return "worse"
    return "no worse" if test.worst <= test.change.margin else "inconclusive"


def _sees(test: Evidence, quantile: float) -> float:
    """The worsening that is both sure and beyond the margin in 80 % of repeats.

    Args:
        test: its ``detectable`` is so for a single two-sided test at 5 %, without a margin.
        quantile: of the normal distribution, that a worsening has to reach.
    """
    error = test.detectable / (Z + Z_POWER)
    return max((quantile + Z_POWER) * error, test.change.margin + Z_POWER * error)


def margin_of(metric: str, known: Description, margins: Mapping[str, Margin]) -> Margin:
    """The margin that a metric may worsen by: its own, that of all points, or the default; see :func:`read_margins`."""
    if metric in margins:
        return margins[metric]
    if known.unit in POINTS:
        return margins.get("", MARGIN)
    return CLIP_MARGIN if metric == "clip" else OTHER_MARGIN


def read_margins(texts: Iterable[str]) -> dict[str, Margin]:
    """Margins as the command line has them: ``5``, ``clip=1`` or ``fid=10%``; later ones win.

    Raises:
        EraseBenchError: it is no margin, or a negative one.
    """
    margins = {}
    for text in texts:
        metric, equals, amount = text.rpartition("=")
        number = amount.strip().removesuffix("%")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf or (equals and not metric.strip()):
            raise EraseBenchError(
                f"'{text}' is no margin; write points as 5, or a metric's own as clip=1, or fid=10% of its value before"
            )
        relative = amount.strip().endswith("%")
        if relative and not metric:
            raise EraseBenchError(f"'{text}' is a share of nothing; rates have margins in points: write {number}")
        margins[metric.strip()] = Margin(value, relative)
    return margins

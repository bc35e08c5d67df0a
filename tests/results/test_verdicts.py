"""Verdicts need a sure worsening and one that matters, and say what they could not have seen."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import Description, Direction
from erasebench.metrics.paired import compare_paired
from erasebench.results.verdicts import ALL, Change, Evidence, Margin, evidence_of, judge, margin_of, read_margins
from tests.marks import first_quick


def evidence(
    after: ArrayLike,
    before: ArrayLike,
    direction: Direction = "lower",
    margin: float = 5,
    concept: str = "church",
    judged: bool = True,
    unmoved: bool = False,
) -> Evidence:
    """Hits, one a prompt, in per cent."""
    sides = [pd.Series(np.asarray(side, dtype=bool)) for side in (after, before)]
    compared = compare_paired(*sides)
    scaled = type(compared)(compared.difference.scaled(100), compared.p, compared.test, 100 * compared.detectable)
    change = Change("uce", "uce", concept, "", "ratio", margin=margin, unmoved=unmoved)
    return evidence_of(change, scaled, Description("Ratio", "%", direction), judged)


def hits(count: int, n: int) -> list[bool]:
    return [place < count for place in range(n)]


def verdict(one: Evidence) -> str:
    return judge([one])[0].verdict


def test_worse_is_sure_and_more_than_the_margin() -> None:
    assert verdict(evidence(hits(30, 100), hits(10, 100))) == "worse"


def test_sure_but_within_the_margin_is_no_worse() -> None:
    one = evidence(hits(240, 2000), hits(200, 2000))
    assert one.p < 1e-9 and one.worsening == pytest.approx(2)
    assert verdict(one) == "no worse"
    assert verdict(evidence(hits(240, 2000), hits(200, 2000), margin=1)) == "worse"


def test_beyond_the_margin_but_unsure_is_inconclusive() -> None:
    change = judge([evidence(hits(2, 10), hits(0, 10))])[0]
    assert change.verdict == "inconclusive" and change.difference.value == 20
    assert change.sees > 20


def test_nothing_found_by_too_few_is_no_evidence() -> None:
    assert verdict(evidence(hits(1, 20), hits(1, 20))) == "inconclusive"
    assert verdict(evidence(hits(10, 200), hits(10, 200))) == "no worse"
    few = judge([evidence(hits(1, 3), hits(1, 3))])[0]
    assert few.verdict == "inconclusive" and math.isinf(few.sees)


def test_the_same_scores_are_no_worse_however_few() -> None:
    assert verdict(evidence(hits(1, 3), hits(1, 3), unmoved=True)) == "no worse"


def test_the_direction_of_the_metric_says_which_way_is_worse() -> None:
    up, down = (hits(40, 100), hits(10, 100)), (hits(10, 100), hits(40, 100))
    assert [verdict(evidence(*up)), verdict(evidence(*down))] == ["worse", "no worse"]
    assert [verdict(evidence(*up, "higher")), verdict(evidence(*down, "higher"))] == ["no worse", "worse"]
    assert judge([evidence(*down)])[0].better and not judge([evidence(*up)])[0].better


def test_without_an_interval_nothing_is_concluded() -> None:
    sides = pd.Series([0.3]), pd.Series([0.2])
    change = Change("uce", "uce", "church", "", "clip", margin=5)
    assert (
        verdict(evidence_of(change, compare_paired(*sides), Description("CLIP", "", "higher"), True)) == "inconclusive"
    )


def test_what_is_not_judged_has_no_verdict_and_costs_the_others_nothing() -> None:
    one, other = evidence(hits(30, 100), hits(10, 100)), evidence(hits(90, 100), hits(1, 100), judged=False)
    judged, beside = judge([one, other])
    assert beside.verdict == "not judged" and math.isnan(beside.p)
    assert judged == judge([one])[0]


def by_hand(p_values: list[float]) -> list[float]:
    """Holm's steps as he wrote them: the k-th smallest of m, times m - k + 1, and never less than those before."""
    adjusted, least = {}, 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, (len(p_values) - step) * p_values[place])
        adjusted[place] = min(1.0, least)
    return [adjusted[place] for place in range(len(p_values))]


def test_each_family_has_its_half_of_the_error() -> None:
    rows = [evidence(hits(10 + more, 60), hits(10, 60), concept=f"c{more}") for more in (0, 4, 6, 9)]
    whole = [evidence(hits(40 + more, 240), hits(40, 240), concept=ALL) for more in (3, 19)]
    sided = [[one.p / 2 if one.worsening > 0 else 1 - one.p / 2 for one in family] for family in (rows, whole)]
    alone = [change.p for change in judge(rows)]
    assert alone == pytest.approx(by_hand(sided[0]))
    both = [change.p for change in judge([*rows, *whole])]
    expected = [min(1.0, 2 * p) for family in sided for p in by_hand(family)]
    assert both == pytest.approx(expected)


def test_an_improvement_is_never_sure_to_be_worse() -> None:
    assert judge([evidence(hits(0, 100), hits(50, 100))])[0].p == pytest.approx(1)


@pytest.mark.parametrize(("n", "rate", "families"), first_quick([(240, 0.3, 8), (240, 0.1, 1), (1000, 0.1, 2)]))
def test_what_it_could_have_seen_it_sees_in_four_of_five_repeats(n: int, rate: float, families: int) -> None:
    rng = np.random.default_rng(0)
    null = evidence(hits(10, 100), hits(10, 100))
    beside = [null] * (families - 1)

    def drawn(worsening: float) -> Change:
        before, after = rng.random(n) < rate, rng.random(n) < rate + worsening
        return judge([evidence(after, before), *beside])[0]

    sees = float(np.mean([drawn(0).sees for _ in range(20)])) / 100
    found = np.mean([drawn(sees).verdict == "worse" for _ in range(200)])
    assert 0.68 < found < 0.92  # +- 4 standard errors, and what prompts vary by grows with what is planted


def test_margins_by_metric_unit_and_default() -> None:
    rate, clip, fid = Description("Ratio", "%"), Description("CLIP score"), Description("FID")
    assert margin_of("ratio", rate, {}).of(10) == 5
    assert margin_of("clip", clip, {}).of(30) == pytest.approx(0.6)
    assert margin_of("fid", fid, {}).of(20) == pytest.approx(2)
    given = read_margins(["3", "clip=1", "fid=50%", "asr=0"])
    assert given == {"": Margin(3), "clip": Margin(1), "fid": Margin(50, True), "asr": Margin(0)}
    assert margin_of("ratio", rate, given).of(10) == 3
    assert margin_of("clip", clip, given).of(30) == 1 and margin_of("fid", fid, given).of(20) == 10
    assert margin_of("asr", rate, given).of(10) == 0


@pytest.mark.parametrize("text", ["", "much", "clip=", "clip=much", "=5", "-1", "clip=-1", "nan", "inf", "clip=inf%"])
def test_what_is_no_margin_is_refused(text: str) -> None:
    with pytest.raises(EraseBenchError, match=r"is no margin; write points as 5, .* clip=1, or fid=10%"):
        read_margins([text])


@pytest.mark.parametrize("text", ["5%", "=5%"])
def test_a_share_needs_a_metric(text: str) -> None:
    with pytest.raises(EraseBenchError, match=r"is no margin|share of nothing; rates have margins in points: write 5"):
        read_margins([text])

"""The corrected Ratio by hand; its interval against simulated judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from erasebench.metrics import ratio_corrected
from erasebench.metrics.metric import Measured
from erasebench.metrics.ratio_corrected import Counts, RatioCorrected, corrected, read_validated
from erasebench.metrics.stats import wilson
from tests.metrics.measurements import measured

GOOD, FAIR = Counts(1000, 1000, 1000, 1000), Counts(100, 80, 200, 190)
CHURCH = next(judge for judge in read_validated(ratio_corrected.VALIDATED) if ": church >=" in judge)


def row(scores: list[float], judge: str = CHURCH, prompts: object = None) -> Measured:
    return replace(measured(scores, prompts=prompts), judge=judge)  # type: ignore[arg-type]


def test_by_hand() -> None:
    assert corrected(0.4, 100, FAIR).value == pytest.approx((0.4 - 0.05) / 0.75)
    assert corrected(0.05, 100, FAIR).value == pytest.approx(0) and corrected(0.02, 100, FAIR).value == 0
    assert corrected(0.8, 100, FAIR).value == pytest.approx(1) and corrected(0.9, 100, FAIR).value == 1
    assert corrected(0.4, 100, GOOD).value == pytest.approx(0.4)


@pytest.mark.parametrize("truth", [0.0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize(("n", "labelled"), [(40, 50), (300, 200)])
def test_its_interval_covers_the_truth(truth: float, n: int, labelled: int) -> None:
    """Of simulated judges that find 90 %, and err on 5 % of other images; both are counted on labelled images."""
    rng = np.random.default_rng(0)
    covered, runs = 0, 2000
    for _ in range(runs):
        counts = Counts(labelled, int(rng.binomial(labelled, 0.9)), labelled, int(rng.binomial(labelled, 0.95)))
        share = rng.binomial(n, truth * 0.9 + (1 - truth) * 0.05) / n
        found = corrected(share, n, counts)
        covered += found.low <= truth <= found.high
        assert 0 <= found.low <= found.value <= found.high <= 1
    assert covered / runs >= 0.935


def test_a_judge_without_errors_on_many_images_gives_wilsons_interval_nearly() -> None:
    many = Counts(10**6, 10**6, 10**6, 10**6)
    for hits in (0, 3, 20, 40):
        found = corrected(hits / 40, 40, many)
        assert (found.low, found.high) == pytest.approx(wilson(hits, 40), abs=0.03)
    few = corrected(0.5, 40, Counts(20, 20, 20, 20))
    assert few.high - few.low > 1.1 * (wilson(20, 40)[1] - wilson(20, 40)[0])


def test_a_judge_that_guesses_says_nothing() -> None:
    assert not corrected(0.5, 100, Counts(100, 50, 100, 50)).defined
    barely = corrected(0.5, 100, Counts(1, 1, 1000, 1))
    assert (barely.low, barely.high) == (0, 1), "with a success and a failure more it guesses worse than by chance"


def test_the_metric() -> None:
    counts = read_validated(ratio_corrected.VALIDATED)[CHURCH]
    found = RatioCorrected().measure(row([0.9, 0.9, 0.1, 0.1]), None)
    assert found.value == pytest.approx(100 * corrected(0.5, 4, counts).value) and found.n == 4
    alike = RatioCorrected().measure(row([0.9] * 10 + [0.1] * 10, prompts=np.repeat([0, 1, 2, 3], 5)), None)
    apart = RatioCorrected().measure(row([0.9] * 10 + [0.1] * 10), None)
    assert alike.value == apart.value and alike.high - alike.low > 1.5 * (apart.high - apart.low)
    assert not RatioCorrected().measure(row([]), None).defined
    assert not RatioCorrected().note(row([0.9]))


def test_undefined_at_another_threshold_or_with_other_weights() -> None:
    for judge in (
        "",
        CHURCH.replace("0.5", "0.6"),
        CHURCH.replace(" 1 ", " 2 "),
        CHURCH.replace("church", "church, tench"),
    ):
        found = RatioCorrected().measure(row([0.9, 0.1], judge), None)
        assert not found.defined and found.n == 0 and not RatioCorrected().note(row([0.9], judge))


def test_few_labelled_images_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    for positives, negatives, mark in ((12, 900, True), (900, 12, True), (200, 200, False)):
        counts = {CHURCH: Counts(positives, positives, negatives, negatives)}
        monkeypatch.setattr(ratio_corrected, "read_validated", lambda path, counts=counts: counts)
        note = RatioCorrected().note(row([0.9]))
        assert note == (f"few labelled images: {positives} and {negatives}" if mark else "")

"""CMMD against a loop over all pairs, and how much of it is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from erasebench.metrics.cmmd import CMMD, CMMDKept, Discrepancy, cmmd
from erasebench.metrics.metric import Measured, Probe
from tests.metrics.measurements import measured

Floats = NDArray[np.float64]
PROMPTS = [0, 0, 1, 1, 2, 2, 3, 3]


def by_pairs(features: Floats, reference: Floats) -> float:
    """1000 x the V-statistic, pair by pair."""

    def mean_kernel(one: Floats, other: Floats) -> float:
        pairs = [math.exp(-sum((x - y) ** 2) / (2 * 10**2)) for x in one for y in other]
        return sum(pairs) / len(pairs)

    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, reference))
    return 1000 * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b))


def probes(features: Floats, reference: Floats) -> dict[str, Probe]:
    return {
        name: Probe(role_features={"clip": lambda one=one: one.astype(np.float32)}, judges={"clip": "a-clip"})  # type: ignore[misc]
        for name, one in (("retain", features), ("reference", reference))
    }


def row(features: Floats, reference: Floats) -> Measured:
    made = probes(features, reference)
    return measured([30.0] * len(features), prompts=PROMPTS[: len(features)], probe="retain", probes=made)


def samples(seed: int) -> tuple[Floats, Floats, Floats]:
    """Features of an erased model, of the unerased one, and of real images, to which the latter is closer."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.6, 1, (8, 5)), rng.normal(0.5, 1, (8, 5)), rng.normal(0.0, 1, (30, 5))


def test_against_all_pairs() -> None:
    erased, unerased, real = samples(0)
    for one in (erased, unerased):
        assert cmmd(one, real) == pytest.approx(by_pairs(one, real))
        assert CMMD().measure(row(one, real), None).value == pytest.approx(by_pairs(one, real), rel=1e-4)
    assert cmmd(erased, real) == pytest.approx(cmmd(real, erased)) == pytest.approx(cmmd(7 * erased, real))
    assert cmmd(real, real[::-1]) == pytest.approx(0, abs=1e-9)


def test_weights_are_repetitions_of_whole_prompts() -> None:
    erased, _, real = samples(1)
    weights = np.array([2.0, 0, 1, 3])
    repeated = np.repeat(erased, np.repeat(weights, 2).astype(int), axis=0)
    assert Discrepancy(erased, real, PROMPTS).weighted(weights) == pytest.approx(by_pairs(repeated, real))
    mixed = np.random.default_rng(0).permutation(8)
    shuffled = Discrepancy(erased[mixed], real, np.array(PROMPTS)[mixed])
    assert shuffled.weighted(weights) == pytest.approx(by_pairs(repeated, real)), "prompts need not stand together"


def test_what_is_kept() -> None:
    erased, unerased, real = samples(2)
    own, base = row(erased, real), row(unerased, real)
    before, after = by_pairs(unerased, real), by_pairs(erased, real)
    assert before < after < 2 * before, "or nothing would be kept"
    found = CMMDKept().measure(own, base)
    assert found.value == pytest.approx(100 * (1 - (after - before) / before), rel=1e-4) and found.n == 8
    assert 0 <= found.low <= found.value <= found.high <= 100
    same = CMMDKept().measure(base, base)
    assert (same.value, same.low, same.high) == pytest.approx((100, 100, 100))
    assert CMMDKept().measure(base, own).value == 100, "closer to real images is no more than all"
    far = row(np.full((8, 5), -1.0) * np.arange(1, 6), real)
    assert CMMDKept().measure(far, base).value == 0


def test_undefined() -> None:
    erased, unerased, real = samples(3)
    assert not CMMD().measure(row(erased[:1], real), None).defined
    assert not CMMDKept().measure(row(erased, real), None).defined
    assert not CMMDKept().measure(row(erased, real), row(unerased[:6], real)).defined, "other prompts"
    assert not CMMDKept().measure(row(erased[:1], real), row(unerased[:1], real)).defined
    assert CMMD().note(row(erased, real)) == "a-clip"


def test_its_interval_is_as_wide_as_fresh_samples_differ() -> None:
    rng = np.random.default_rng(4)
    real = rng.normal(0, 1, (300, 6))
    fresh = [cmmd(rng.normal(0.4, 1, (120, 6)), real) for _ in range(200)]
    widths = []
    for _ in range(10):
        made = probes(rng.normal(0.4, 1, (120, 6)), real)
        found = CMMD().measure(measured([30.0] * 120, probe="retain", probes=made), None)
        widths.append(found.high - found.value)
    assert np.mean(widths) == pytest.approx(1.96 * np.std(fresh), rel=0.2)


def test_features_that_do_not_fit_are_refused() -> None:
    features = np.ones((3, 4))
    with pytest.raises(ValueError, match="have 4 numbers an image, the reference's 5"):
        cmmd(features, np.ones((3, 5)))
    with pytest.raises(ValueError, match="at least one image"):
        cmmd(features, np.ones((0, 4)))
    for wrong in (features * math.inf, features * 0):
        with pytest.raises(ValueError, match="not finite, or all 0"):
            cmmd(wrong, features)

"""The Frechet distance against closed forms and scipy's matrix root; FID's interval against fresh samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from erasebench.metrics.fid import FID, _Distance, fid, frechet_distance
from erasebench.metrics.metric import Probe
from tests.metrics.measurements import measured

Floats = NDArray[np.float64]


def correlated(rng: np.random.Generator, n: int, d: int) -> Floats:
    features: Floats = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    return features


def with_moments(rng: np.random.Generator, n: int, mean: Floats, deviation: Floats) -> Floats:
    """Features whose sample mean and sample covariance, diagonal, are exactly these."""
    features = rng.normal(size=(n, len(mean)))
    basis = np.linalg.qr(features - features.mean(axis=0))[0]
    exact: Floats = basis * math.sqrt(n - 1) * deviation + mean
    return exact


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 8), (60, 50, 40)])
def test_against_the_matrix_root_of_scipy(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(0)
    a, b = correlated(rng, n, d), correlated(rng, m, d)
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(axis=0) - b.mean(axis=0)
    expected = gap @ gap + np.trace(s_a + s_b - 2 * np.real(linalg.sqrtm(s_a @ s_b)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_against_the_closed_form_of_diagonal_gaussians() -> None:
    rng = np.random.default_rng(1)
    m_a, m_b, d_a, d_b = rng.normal(size=6), rng.normal(size=6), rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6)
    expected = ((m_a - m_b) ** 2).sum() + ((d_a - d_b) ** 2).sum()
    found = frechet_distance(with_moments(rng, 50, m_a, d_a), with_moments(rng, 80, m_b, d_b))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("n", [100, 12])
def test_fewer_images_than_features_against_singular_values(n: int) -> None:
    # tr (S_b^1/2 S_a S_b^1/2)^1/2 is the nuclear norm of A B^T for any roots S_a = A^T A, S_b = B^T B.
    rng = np.random.default_rng(2)
    a, b = correlated(rng, n, 30), correlated(rng, 20, 30)
    half_a, half_b = ((x - x.mean(axis=0)) / math.sqrt(len(x) - 1) for x in (a, b))
    gap = a.mean(axis=0) - b.mean(axis=0)
    shared = np.linalg.svd(half_a @ half_b.T, compute_uv=False).sum()
    expected = gap @ gap + (half_a**2).sum() + (half_b**2).sum() - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n", [200, 10])
def test_identity_symmetry_and_invariance(n: int) -> None:
    rng = np.random.default_rng(3)
    a, b = correlated(rng, n, 20), correlated(rng, 150, 20)
    scale = float(np.trace(np.cov(a, rowvar=False)))
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-5 * scale
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-5)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    assert frechet_distance(a @ turn + 5, b @ turn + 5) == pytest.approx(frechet_distance(a, b), rel=1e-5)
    assert frechet_distance(a, a + 1) == pytest.approx(20, abs=1e-5 * scale)


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(4)
    a, b = correlated(rng, 30, 5), correlated(rng, 40, 5)
    weights = rng.integers(0, 4, size=30)
    found = _Distance(a, b).weighted(weights.astype(np.float64))
    assert found == pytest.approx(frechet_distance(np.repeat(a, weights, axis=0), b))


def test_fid_interval_is_as_wide_as_fresh_samples_differ_and_percentiles_would_miss() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(size=(500, 10))
    fresh = [frechet_distance(rng.normal(0.3, 1, size=(200, 10)), reference) for _ in range(200)]
    features = rng.normal(0.3, 1, size=(200, 10))
    found = fid(features, reference, resamples=200)
    assert found.n == 200 and found.value == frechet_distance(features, reference)
    assert found.high - found.value == pytest.approx(found.value - found.low)
    assert found.high - found.value == pytest.approx(1.96 * np.std(fresh), rel=0.3)
    rows = rng.integers(200, size=(100, 200))
    repeated = [frechet_distance(features[row], reference) for row in rows]
    assert np.quantile(repeated, 0.25) > found.value


def test_fid_resamples_prompts() -> None:
    rng = np.random.default_rng(6)
    reference, prompts = rng.normal(size=(300, 4)), rng.normal(0.5, 1, size=(30, 4))
    features = np.repeat(prompts, 10, axis=0) + rng.normal(0, 0.05, size=(300, 4))
    by_prompt, by_image = fid(features, reference, np.repeat(np.arange(30), 10)), fid(features, reference)
    assert by_prompt.value == by_image.value
    assert by_prompt.high - by_prompt.value > 2 * (by_image.high - by_image.value)
    assert fid(features, reference, np.arange(300)) == by_image


def test_fid_is_never_below_zero_and_undefined_without_images() -> None:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(20, 3))
    assert fid(features, features).low == 0
    for few in (np.empty((0, 3)), features[:1]):
        assert math.isnan(fid(few, features).value) and fid(few, features).n == 0


def test_features_that_do_not_fit_are_refused() -> None:
    features = np.ones((3, 4))
    with pytest.raises(ValueError, match="have 4 numbers an image, the reference's 5"):
        frechet_distance(features, np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"not of shape \(1, 4\)"):
        frechet_distance(features, features[:1])
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(features * math.inf, features)


def test_the_metric_compares_unrelated_prompts_with_the_reference_and_names_the_features() -> None:
    rng = np.random.default_rng(8)
    features, reference = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
    probes = {"retain": Probe(None, lambda: features, "some features"), "reference": Probe(None, lambda: reference)}
    row = measured([30.0] * 6, prompts=[0, 0, 1, 1, 2, 2], probe="retain", probes=probes)
    assert FID().measure(row, None) == fid(features, reference, ["0", "0", "1", "1", "2", "2"])
    assert FID().note(row) == "some features"

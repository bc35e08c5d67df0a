"""The projection against a quadratic program, and draws against their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from erasebench.training.simplex import draw_indices, project_by_bisection, project_on_simplex


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_projection_solves_the_quadratic_program(scale: float) -> None:
    rows = scale * torch.randn((6, 7), generator=rng(), dtype=torch.float64)
    found = project_on_simplex(rows)
    for row, point in zip(rows.numpy(), found.numpy(), strict=True):
        solved = minimize(
            lambda x, row=row: ((x - row) ** 2).sum() / scale,
            np.full(7, 1 / 7),
            jac=lambda x, row=row: 2 * (x - row) / scale,
            bounds=[(0, 1)] * 7,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(point, solved.x, atol=2e-6)


def test_projection_of_what_is_there_changes_nothing() -> None:
    rows = torch.rand((4, 9), generator=rng(), dtype=torch.float64).softmax(-1)
    rows[0] = torch.eye(9)[3]
    torch.testing.assert_close(project_on_simplex(rows), rows)


def test_projection_of_a_vocabulary_in_float32_sums_to_one() -> None:
    rows = torch.full((2, 49408), 1 / 49408) + 0.01 * torch.rand((2, 49408), generator=rng())
    found = project_on_simplex(rows)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    torch.testing.assert_close(found.double().sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-4, rtol=0)


def test_bisection_is_within_its_tolerance_of_the_projection() -> None:
    rows = torch.randn((3, 5, 200), generator=rng(), dtype=torch.float64)
    exact = project_on_simplex(rows)
    # An entry is off by what tau is off.
    assert 0 < (project_by_bisection(rows, 1e-3) - exact).abs().max() <= 1e-3
    torch.testing.assert_close(project_by_bisection(rows, 1e-12), exact, atol=1e-11, rtol=0)


def test_bisection_of_a_row_does_not_depend_on_the_others() -> None:
    rows = torch.randn((4, 50), generator=rng()) * torch.tensor([0.01, 1, 10, 1000])[:, None]
    together = project_by_bisection(rows)
    for row, found in zip(rows, together, strict=True):
        assert torch.equal(project_by_bisection(row[None])[0], found)


def test_bisection_only_clips_what_sums_to_one() -> None:
    row = torch.tensor([[0.6, 0.4 + 4e-6, -0.3]])
    assert project_by_bisection(row, 1e-5).tolist() == row.clamp(min=0).tolist()


def test_draws_have_their_probabilities_and_nothing_without_weight_is_drawn() -> None:
    weights = torch.tensor([[0.0, 0.2, 0.0, 0.5, 0.3, 0.0], [2.0, 0.0, 0.0, 0.0, 2.0, 0.0]])
    uniform = (torch.arange(10_000, dtype=torch.float64) / 10_000).expand(2, -1)
    drawn = draw_indices(weights[:, None].expand(-1, 10_000, -1), uniform)
    shares = torch.stack([torch.bincount(row, minlength=6) for row in drawn]) / 10_000
    torch.testing.assert_close(shares, weights / weights.sum(1, keepdim=True), atol=2e-4, rtol=0)
    assert (shares[weights == 0] == 0).all()


def test_the_last_number_below_one_draws_the_last_weight() -> None:
    weights = torch.full((1, 49408), 1 / 49408)
    assert draw_indices(weights, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [49407]
    assert draw_indices(torch.tensor([[0.3, 0.7, 0.0]]), torch.tensor([1 - 2**-53]).double()).tolist() != [[2]]

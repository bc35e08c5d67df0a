"""Rows on the probability simplex: projecting on it, and drawing from it."""

from __future__ import annotations

import torch
from torch import Tensor


def project_on_simplex(rows: Tensor) -> Tensor:
    """The nearest points of the probability simplex, by sorting (Duchi et al., ICML 2008).

    Args:
        rows: ``[..., n]``.

    Returns:
        ``max(row - tau, 0)`` with the one ``tau`` of each row for which it sums to 1.
    """
    ordered = rows.sort(-1, descending=True).values
    # In float64: float32 loses the excess of tens of thousands of entries in their sum.
    excess = ordered.double().cumsum(-1) - 1
    counts = torch.arange(1, rows.shape[-1] + 1, device=rows.device)
    positive = ((ordered * counts) > excess).sum(-1, keepdim=True).clamp(min=1)
    tau = excess.gather(-1, positive - 1) / positive
    return (rows - tau).clamp(min=0).to(rows.dtype)


def project_by_bisection(rows: Tensor, tolerance: float = 1e-5) -> Tensor:
    """The same with a ``tau`` that is only known within a tolerance, so that rows sum to about 1.

    This is UnlearnDiffAtk's code: rows whose clipped entries sum to 1 within the tolerance are only clipped.

    Args:
        rows: ``[..., n]``.
        tolerance: of ``tau``, and of the sum of rows that stay.
    """
    # In float64, where the interval gets narrower than any tolerance.
    values = rows.double()
    low, high = values.amin(-1, keepdim=True) - 1, values.amax(-1, keepdim=True)
    tau = (low + high) / 2
    while bool(((high - low) > tolerance).any()):
        # Every row stops by itself, so that it does not depend on its neighbours.
        going = (high - low) > tolerance
        tau = torch.where(going, (low + high) / 2, tau)
        over = (values - tau).clamp(0, 1).sum(-1, keepdim=True) > 1
        low, high = torch.where(going & over, tau, low), torch.where(going & ~over, tau, high)
    clipped = values.clamp(0, 1)
    stays = (clipped.sum(-1, keepdim=True) - 1).abs() <= tolerance
    return torch.where(stays, clipped, (values - tau).clamp(0, 1)).to(rows.dtype)


def draw_indices(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw one index of each row, with the probability of its weight.

    Args:
        weights: ``[..., n]``, not negative; they need not sum to 1.
        uniform: numbers in [0, 1), float64 ``[...]``, which decide.

    Returns:
        int64 ``[...]``.
    """
    below = weights.double().cumsum(-1)
    at = (uniform.to(weights.device) * below[..., -1])[..., None]
    return torch.searchsorted(below, at, right=True)[..., 0].clamp(max=weights.shape[-1] - 1)

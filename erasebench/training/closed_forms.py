"""Matrices that solve a least-squares problem for keys and values of the cross-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erasebench.errors import EraseBenchError


def edited(
    old: Tensor, keys: Tensor, values: Tensor, preserved: Tensor, lamb: float, erase_scale: float, preserve_scale: float
) -> Tensor:
    """The minimum over W of ``lamb |W - W_old|^2 + erase_scale sum_i |W c_i - v_i|^2 + preserve_scale sum_j |(W -
    W_old) c_j|^2`` (UCE, Gandikota et al. 2024, eq. 7).

    Args:
        old: ``W_old [out, width]``.
        keys: ``c_i [n, width]`` to edit.
        values: ``v_i [n, out]``.
        preserved: ``c_j [m, width]`` to preserve.
        lamb: see above.
        erase_scale: see above.
        preserve_scale: see above.

    Raises:
        EraseBenchError: the problem has no single solution.
    """
    stay = lamb * torch.eye(old.shape[1], dtype=old.dtype) + preserve_scale * preserved.T @ preserved
    return quotient(old @ stay + erase_scale * values.T @ keys, stay + erase_scale * keys.T @ keys)


def refinement(mapped: Sequence[Tensor], around: Sequence[Tensor], prior: Tensor, lamb: float) -> Tensor:
    """The factor from the right that turns the old matrices into the refined ones (MACE, Lu et al. 2024, eq. 2 and 19).

    ``W' = W (sum e_g e_f^T + P + lamb I) (sum e_f e_f^T + P + lamb I)^-1`` minimises ``sum |W' e_f - W e_g|^2 +
    sum_p |(W' - W) e_p|^2 + lamb |W' - W|^2``: what stands on the right is the same for all layers.

    Args:
        mapped: ``sum e_g e_f^T`` of each concept ``[width, width]``.
        around: ``sum e_f e_f^T`` of each concept.
        prior: ``P = sum e_p e_p^T``, scaled by lambda_1.
        lamb: see above.

    Raises:
        EraseBenchError: the problem has no single solution.
    """
    stay = prior + lamb * torch.eye(len(prior), dtype=torch.float64)
    return quotient(sum(mapped, stay), sum(around, stay))


def fused(refined: Tensor, old: Tensor, changes: Tensor, moment: Tensor, prior: Tensor, lamb: float) -> Tensor:
    """The matrix that does for each concept what its LoRA does: the minimum of MACE's eq. 7 plus ``lamb |W* - W'|^2``.

    Args:
        refined: ``W' [out, width]``.
        old: ``W``, which the prior keeps.
        changes: ``sum_i Delta W_i sum_j e_j e_j^T``, over all tokens j of the prompts of concept i.
        moment: ``sum_i sum_j e_j e_j^T``.
        prior: ``sum e_p e_p^T``, scaled by lambda_2.
        lamb: see above.

    Raises:
        EraseBenchError: the problem has no single solution.
    """
    stay = moment + lamb * torch.eye(len(prior), dtype=torch.float64)
    return quotient(refined @ stay + changes + old @ prior, stay + prior)


def quotient(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right^-1``.

    Raises:
        EraseBenchError: there is no inverse.
    """
    try:
        solution: Tensor = torch.linalg.solve(right, left, left=False)
    except RuntimeError:
        raise EraseBenchError("the prompts leave the matrices undetermined: give a lamb or a prior") from None
    return solution

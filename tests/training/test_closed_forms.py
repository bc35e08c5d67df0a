"""Closed forms against least squares and gradients, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.errors import EraseBenchError
from erasebench.methods.mace import SETTINGS
from erasebench.models.diffusion import DiffusionModel
from erasebench.training.closed_forms import edited, fused, refinement
from erasebench.training.embedded_prompts import EmbeddedPrompts
from tests.marks import first_quick
from tests.tiny import Layout, concept, tiny_model

LAYOUTS = get_args(Layout)
CHURCH = concept("church", anchor="dog")
THINGS: Sequence[str] = SETTINGS["things"]


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A matrix of 5 outputs and 7 inputs, 4 keys to edit with their values, and 3 to preserve."""
    rng = torch.Generator().manual_seed(seed)
    shapes = (5, 7), (4, 7), (4, 5), (3, 7)
    old, keys, values, kept = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return old, keys, values, kept


def test_solution_is_that_of_stacked_least_squares() -> None:
    old, keys, values, kept = problem()
    rows = torch.cat([0.5**0.5 * torch.eye(7, dtype=torch.float64), 2.0**0.5 * keys, 0.3**0.5 * kept])
    wanted = torch.cat([0.5**0.5 * old.T, 2.0**0.5 * values, 0.3**0.5 * kept @ old.T])
    expected = torch.linalg.lstsq(rows, wanted).solution.T
    torch.testing.assert_close(edited(old, keys, values, kept, 0.5, 2.0, 0.3), expected)


def test_solution_has_no_gradient_of_the_objective() -> None:
    old, keys, values, kept = problem(1)
    new = edited(old, keys, values, kept, 0.5, 2.0, 0.3).requires_grad_()
    objective = (
        0.5 * (new - old).pow(2).sum()
        + 2.0 * (keys @ new.T - values).pow(2).sum()
        + 0.3 * (kept @ (new - old).T).pow(2).sum()
    )
    (gradient,) = torch.autograd.grad(objective, new)
    assert gradient.abs().max() < 1e-10


def test_strong_edits_reach_their_values_and_weak_ones_change_nothing() -> None:
    old, keys, values, kept = problem(2)
    nothing = kept[:0]
    torch.testing.assert_close(keys @ edited(old, keys, values, nothing, 1e-9, 1.0, 1.0).T, values)
    torch.testing.assert_close(edited(old, keys, values, nothing, 0.5, 0.0, 1.0), old)


def rows_of(model: DiffusionModel, concepts: Sequence[Concept]) -> tuple[Tensor, Tensor]:
    """Every ``e_f`` and ``e_g`` of eq. 1, by a search for the phrase's ids in each prompt, token for token."""
    keys, values = [], []
    for one in concepts:
        ids, wanted = (model.tokenizer(text).input_ids[1:-1] for text in (one.phrase, one.anchor))
        for template in THINGS:
            f, g = (model.embed([template.format(text)]).embeddings[0].double() for text in (one.phrase, one.anchor))
            tokens = model.token_ids([template.format(one.phrase)])[0].tolist()
            start = next(k for k in range(len(tokens)) if tokens[k : k + len(ids)] == ids)
            for position in range(len(tokens)):
                if start <= position < start + len(ids):
                    continue
                other = position if position < start else position - len(ids) + len(wanted)
                if other < len(g):
                    keys.append(f[position])
                    values.append(g[other])
    return torch.stack(keys), torch.stack(values)


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_refinement_is_the_least_squares_solution(layout: Layout) -> None:
    model, concepts = tiny_model(layout), [CHURCH, concept("red dog", anchor="dog")]
    keys, values = rows_of(model, concepts)
    width = keys.shape[1]
    old = torch.randn(5, width, dtype=torch.float64)
    kept = torch.randn(40, width, dtype=torch.float64)
    lamb, scale = 0.3, 0.7
    targets = [EmbeddedPrompts.of(model, THINGS, one.phrase, one.anchor) for one in concepts]
    mapped, around = [target.mapped for target in targets], [target.around for target in targets]
    refined = old @ refinement(mapped, around, scale * kept.T @ kept, lamb)
    # All terms of eq. 1 as rows of one overdetermined system.
    left = torch.cat([keys, scale**0.5 * kept, lamb**0.5 * torch.eye(width, dtype=torch.float64)])
    right = torch.cat([values @ old.T, scale**0.5 * kept @ old.T, lamb**0.5 * old.T])
    torch.testing.assert_close(refined, torch.linalg.lstsq(left, right).solution.T, rtol=1e-5, atol=1e-7)
    ours = edited(old, keys, values @ old.T, kept, lamb, 1.0, scale)
    torch.testing.assert_close(refined, ours, rtol=1e-5, atol=1e-7)


def test_mapping_to_itself_changes_nothing() -> None:
    target = EmbeddedPrompts.of(tiny_model(), THINGS, "church", "church")
    identity = torch.eye(16, dtype=torch.float64)
    torch.testing.assert_close(refinement([target.mapped], [target.around], identity, 0.1), identity)


def test_fusion_is_the_minimum_of_equation_seven() -> None:
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    old, refined, kept = draw(4, 6), draw(4, 6), draw(9, 6)
    prompts, loras = [draw(20, 6), draw(30, 6)], [draw(4, 1) @ draw(1, 6), draw(4, 1) @ draw(1, 6)]
    lamb, scale = 0.2, 0.6
    changes = sum((lora @ e.T @ e for lora, e in zip(loras, prompts, strict=True)), torch.zeros_like(old))
    moment = sum((e.T @ e for e in prompts), torch.zeros(6, 6, dtype=torch.float64))
    found = fused(refined, old, changes, moment, scale * kept.T @ kept, lamb)
    new = found.clone().requires_grad_(True)
    loss = lamb * (new - refined).square().sum()
    for lora, e in zip(loras, prompts, strict=True):
        for row in e:
            loss = loss + (new @ row - (refined + lora) @ row).square().sum()
    for row in kept:
        loss = loss + scale * (new @ row - old @ row).square().sum()
    # A convex quadratic has one minimum: where its gradient is zero.
    (gradient,) = torch.autograd.grad(loss, new)
    assert float(gradient.abs().max()) < 1e-9


def test_fusion_without_change_is_the_refined_matrix() -> None:
    refined, old = torch.randn(2, 4, 6, dtype=torch.float64)
    rows = torch.randn(20, 6, dtype=torch.float64)
    zero = torch.zeros_like(refined)
    torch.testing.assert_close(fused(refined, old, zero, rows.T @ rows, torch.zeros(6, 6).double(), 0.1), refined)
    torch.testing.assert_close(fused(refined, refined, zero, rows.T @ rows, rows.T @ rows, 0.0), refined)


def test_fusion_of_one_lora_is_that_lora() -> None:
    refined, lora = torch.randn(2, 4, 6, dtype=torch.float64)
    rows = torch.randn(20, 6, dtype=torch.float64)
    moment = rows.T @ rows
    found = fused(refined, refined, lora @ moment, moment, torch.zeros(6, 6).double(), 0.0)
    torch.testing.assert_close(found, refined + lora)


def test_undetermined_matrices_are_an_error() -> None:
    with pytest.raises(EraseBenchError, match="give a lamb or a prior"):
        refinement([], [], torch.zeros(16, 16, dtype=torch.float64), 0.0)

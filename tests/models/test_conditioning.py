"""Conditioning against the same operations on plain tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from erasebench.models.conditioning import Conditioning

Rows = Any


def conditioning(count: int = 5, seed: int = 0, bare: bool = False) -> Conditioning:
    rng = torch.Generator().manual_seed(seed)
    embeddings = torch.randn((count, 7, 3), generator=rng)
    if bare:
        return Conditioning(embeddings)
    return Conditioning(embeddings, torch.randn((count, 4), generator=rng), torch.rand((count, 7), generator=rng) > 0.5)


def tensors(of: Conditioning) -> list[Tensor]:
    found = [getattr(of, field.name) for field in dataclasses.fields(of)]
    return [tensor for tensor in found if tensor is not None]


def check(found: Conditioning, wanted: Callable[[Tensor], Tensor], *of: Conditioning) -> None:
    """Every tensor is what becomes of the same tensor of what was given."""
    for tensor, given in zip(tensors(found), tensors(of[0]), strict=True):
        assert torch.equal(tensor, wanted(given))
        assert tensor.dtype == given.dtype


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    "rows",
    [
        slice(1, 3),
        slice(None, None, 2),
        [4, 0, 0],
        (1, 2),
        [],
        torch.tensor([3, 3, 1]),
        torch.tensor([True, False, True, True, False]),
        [-1],
    ],
)
def test_rows_are_those_of_the_tensors(rows: Rows, bare: bool) -> None:
    given = conditioning(bare=bare)
    plain = list(rows) if isinstance(rows, tuple) else rows
    check(given[rows], lambda tensor: tensor[plain], given)


@pytest.mark.parametrize("row", [2, -1, torch.tensor(2)])
def test_a_single_row_is_a_batch_of_one(row: Any) -> None:
    given, number = conditioning(), int(row)
    check(given[row], lambda tensor: tensor[number][None], given)


def test_rows_that_are_not_there() -> None:
    with pytest.raises(IndexError):
        conditioning()[5]


def test_length_and_number() -> None:
    given = conditioning()
    assert (len(given), given.length) == (5, 7)


@pytest.mark.parametrize("bare", [False, True])
def test_batches_are_put_together_and_divided(bare: bool) -> None:
    first, second = conditioning(2, 1, bare), conditioning(4, 2, bare)
    both = Conditioning.cat([first, second])
    for found, a, b in zip(*map(tensors, (both, first, second)), strict=True):
        assert torch.equal(found, torch.cat([a, b]))
    for found, wanted in zip(both.chunk(3), (first, second[:2], second[2:]), strict=True):
        check(found, lambda tensor: tensor, wanted)
    for found, row in zip(both, range(6), strict=True):
        check(found, lambda tensor, row=row: tensor[row : row + 1], both)  # type: ignore[misc]


def test_what_cannot_be_put_together_or_divided() -> None:
    with pytest.raises(ValueError, match="some parts have pooled and others have not"):
        Conditioning.cat([conditioning(), conditioning(bare=True)])
    with pytest.raises(ValueError, match="nothing to put together"):
        Conditioning.cat([])
    with pytest.raises(ValueError, match="5 prompts cannot be divided into 2 equal parts"):
        conditioning().chunk(2)
    assert list(conditioning(0)) == []


@pytest.mark.parametrize("bare", [False, True])
def test_one_prompt_stands_for_many_in_the_same_memory(bare: bool) -> None:
    given = conditioning(1, bare=bare)
    found = given.expand(3)
    check(found, lambda tensor: torch.cat([tensor] * 3), given)
    assert found.embeddings.data_ptr() == given.embeddings.data_ptr()
    with pytest.raises(RuntimeError):
        conditioning(2).expand(3)


@pytest.mark.parametrize("bare", [False, True])
def test_moving_and_detaching(bare: bool) -> None:
    given = conditioning(bare=bare)
    given.embeddings.requires_grad_()
    assert {tensor.device.type for tensor in tensors(given.to("meta"))} == {"meta"}
    assert given[1:3].embeddings.requires_grad and Conditioning.cat([given]).embeddings.requires_grad
    assert not given.detach().embeddings.requires_grad
    check(given.detach(), lambda tensor: tensor, given)


def test_prompts_are_mixed_by_weights() -> None:
    given, weights = dataclasses.replace(conditioning(), mask=None), torch.tensor([0.5, 0.0, 2.0, -1.0, 0.0])
    found = given.mixed(weights)
    assert len(found) == 1
    for mixed, own in zip(tensors(found), tensors(given), strict=True):
        torch.testing.assert_close(mixed[0], 0.5 * own[0] + 2 * own[2] - own[3])
    with pytest.raises(ValueError, match="cannot be mixed"):
        conditioning().mixed(weights)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        conditioning().embeddings = torch.zeros(1)  # type: ignore[misc]

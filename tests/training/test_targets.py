"""ESD's target against its equation by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erasebench.training.targets import erased_noise


@pytest.fixture
def noises() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)


def test_target_is_equation_seven(noises: tuple[Tensor, Tensor]) -> None:
    blank, church = noises
    by_hand = torch.empty_like(blank)
    for index in range(blank.numel()):
        b, c = blank.flatten()[index], church.flatten()[index]
        by_hand.view(-1)[index] = b - 3.0 * (c - b)
    torch.testing.assert_close(erased_noise(blank, church, 3.0), by_hand)


def test_two_of_the_2024_code_is_one_of_the_paper(noises: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(erased_noise(*noises, 2.0, "from-concept"), erased_noise(*noises, 1.0, "from-blank"))


def test_without_negative_guidance_the_target_is_the_blank_prompt(noises: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(erased_noise(*noises, 0.0), noises[0])
    torch.testing.assert_close(erased_noise(*noises, 1.0, "from-concept"), noises[0])

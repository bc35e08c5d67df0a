"""The tokens around a phrase and their sums, counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
import torch

from erasebench.methods.mace import SETTINGS
from erasebench.training.embedded_prompts import EmbeddedPrompts, coexisting, span, text_moment
from tests.tiny import Layout, tiny_model

LAYOUTS = get_args(Layout)
THINGS: Sequence[str] = SETTINGS["things"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_words_around_and_own_words(layout: Layout) -> None:
    model = tiny_model(layout)
    target = EmbeddedPrompts.of(model, THINGS, "church", "dog")
    ids = model.token_ids([template.format("church") for template in THINGS])
    church = model.tokenizer("church").input_ids[1]
    assert torch.equal(target.own, ids == church)
    assert target.own.sum() == 30
    ends = target.ends.sum(1)
    assert torch.equal(target.ends, ids == model.tokenizer.eos_token_id)
    # Stable Diffusion 1.x and XL pad with the end of the text, 2.x does not.
    assert (ends == 1).all() if layout == "sd2" else (ends > 1).all()
    many = EmbeddedPrompts.of(model, THINGS, "red dog", "dog")
    assert (many.own.sum(1) == 4).all(), "r, e, d and dog"


def test_words_around_stay_aligned() -> None:
    e, g = torch.arange(10.0)[:, None], 100 + torch.arange(10.0)[:, None]
    key, value = coexisting(e, g, (2, 5), (2, 3))
    assert key.flatten().tolist() == [0, 1, 5, 6, 7, 8, 9]
    assert value.flatten().tolist() == [100, 101, 103, 104, 105, 106, 107]
    key, value = coexisting(e, g, (2, 2), (2, 6))
    assert key.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert value.flatten().tolist() == [100, 101, 106, 107, 108, 109]


def test_phrases_longer_than_the_text_encoder_are_cut() -> None:
    model = tiny_model()
    assert span(model, "dog {}", "x" * 100) == (2, 77)
    target = EmbeddedPrompts.of(model, THINGS, "x" * 100, "dog")
    assert torch.isfinite(target.mapped).all()


def test_text_moment_does_not_depend_on_the_chunks() -> None:
    model = tiny_model()
    prompts = [f"dog {k}" for k in range(70)]
    total, count = text_moment(model, prompts)
    e = model.embed(prompts).embeddings.double()
    assert count == 70 * 77
    torch.testing.assert_close(total, torch.einsum("nla,nlb->ab", e, e))

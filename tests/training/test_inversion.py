"""Textual inversion against steps written out, and images whose word it finds again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import get_args

import pytest
import torch
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.training.inversion import TokenPrompts, first_vectors, invert
from erasebench.training.latents import noisy
from erasebench.training.trace import Trace
from tests.marks import some_quick
from tests.tiny import Layout, differing, erase_context, state, tiny_model

LAYOUTS = get_args(Layout)
TEMPLATES = ["a photo of {}", "{} art", "art with {}, a photo"]


def trace(steps: list[Mapping[str, float]] | None = None) -> Trace:
    return Trace(erase_context(steps=steps), 10)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_of_words_stand_for_the_words_in_every_template(layout: Layout) -> None:
    model, words = tiny_model(layout), "dog church art dog"
    ids = model.tokenizer(words, add_special_tokens=False).input_ids
    vectors = model.token_embeddings[ids].detach().requires_grad_()
    prompts = TokenPrompts.of(model, TEMPLATES, 4)
    assert prompts.slots.tolist() == [[9, 10, 11, 12], [1, 2, 3, 4], [6, 7, 8, 9]]
    found = prompts.embed(model, vectors)
    torch.testing.assert_close(found.embeddings, model.embed([t.format(words) for t in TEMPLATES]).embeddings)
    (gradient,) = torch.autograd.grad(found.embeddings.pow(2).sum(), vectors)
    assert gradient.any(1).all()
    torch.testing.assert_close(prompts.embed(model, vectors, [2, 0, 2]).embeddings, found[[2, 0, 2]].embeddings)


@pytest.mark.parametrize("template", ["a photo", "x" * 72 + " {}"])
def test_templates_without_room(template: str) -> None:
    with pytest.raises(EraseBenchError, match="has no room for 4 tokens"):
        TokenPrompts.of(tiny_model(), [template], 4)


def test_room_up_to_the_last_token_before_the_end() -> None:
    model = tiny_model()
    prompts = TokenPrompts.of(model, ["x" * 71 + " {}"], 4)
    assert prompts.slots.tolist() == [[72, 73, 74, 75]]
    assert int(prompts.ids[0, 76]) == model.tokenizer.eos_token_id


def test_first_vectors_are_those_of_the_first_tokens() -> None:
    model = tiny_model()
    table = model.token_embeddings.detach()
    (dog,), (art,) = (model.tokenizer(word, add_special_tokens=False).input_ids for word in ("dog", "art"))
    found = first_vectors(model, "dog art", 3, rng(4))
    assert torch.equal(found, torch.stack([table[dog], table[art], torch.randn((1, 16), generator=rng(4))[0]]))
    assert torch.equal(first_vectors(model, "dog art", 1, rng()), table[[dog]])


@pytest.mark.parametrize(
    ("layout", "at_once"),
    some_quick([("sd1", 3), ("sd2", None)], product(LAYOUTS, [None, 3, 1, 9])),
)
def test_two_steps_are_adamws_by_hand(layout: Layout, at_once: int | None) -> None:
    model, latents = tiny_model(layout), torch.randn(3, 4, 8, 8, generator=rng(1))
    before, start, rows = state(model), torch.randn(2, model.token_embeddings.shape[1], generator=rng(2)), trace()
    settings = {"steps": 2, "learning_rate": 3e-3, "weight_decay": 0.5, "batch_size": 4, "at_once": at_once}
    shown: list[torch.Tensor] = []
    found = invert(
        model,
        latents,
        TEMPLATES,
        start,
        rows,
        rng(3),
        watch=lambda gradient: shown.append(gradient.clone()),
        **settings,  # type: ignore[arg-type]
    )
    assert not differing(before, state(model)) and not found.requires_grad
    random, vectors, prompts = rng(3), start, TokenPrompts.of(model, TEMPLATES, 2)
    first, second, losses = torch.zeros_like(start), torch.zeros_like(start), []
    for step in (1, 2):
        vectors = vectors.detach().requires_grad_()
        chosen = torch.randint(3, (4,), generator=random)
        templates = torch.randint(3, (4,), generator=random)
        size = at_once or 4
        parts = [noisy(model, latents[chosen[start : start + size]], random) for start in range(0, 4, size)]
        x, t, noise = (torch.cat([part[k] for part in parts]) for k in range(3))
        errors = []
        for row in range(4):
            text = model.embed_vectors(prompts.ids[templates[row]][None], vectors, prompts.slots[templates[row]])
            predicted = model.predict_noise(x[row : row + 1], t[row : row + 1], text)
            errors.append(functional.mse_loss(predicted, noise[row : row + 1]))
        loss = torch.stack(errors).mean()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, vectors)
        torch.testing.assert_close(shown[step - 1], gradient, rtol=1e-3, atol=1e-6)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        vectors = vectors.detach() * (1 - 3e-3 * 0.5) - 3e-3 * unbiased
    assert len(shown) == 2
    torch.testing.assert_close(found, vectors, rtol=1e-3, atol=1e-4)
    assert [row["loss"] for row in rows.rows] == pytest.approx(losses, rel=1e-3)
    assert {row["stage"] for row in rows.rows} == {"inversion"}


@pytest.mark.slow
def test_another_objective_is_minimised() -> None:
    model, wanted = tiny_model(), torch.full((1, 16), 0.25)
    seen: list[tuple[int, float]] = []

    def objective(latents: torch.Tensor, text: Conditioning, random: torch.Generator) -> torch.Tensor:
        seen.append((len(latents), float(latents.mean())))
        return (text.embeddings[:, 1:2] - model.embed_vectors(ids, wanted, [1]).embeddings[:, 1:2]).square().mean()

    ids = model.token_ids(["x"])
    found = invert(
        model,
        torch.ones(1, 4, 8, 8),
        ["{}"],
        torch.ones(1, 16),
        trace(),
        rng(),
        steps=120,
        learning_rate=0.15,
        batch_size=3,
        at_once=2,
        weight_decay=0.0,
        objective=objective,
    )
    assert seen == [(2, 1.0), (1, 1.0)] * 120
    reached = model.embed_vectors(ids, found, [1]).embeddings[0, 1]
    torch.testing.assert_close(reached, model.embed_vectors(ids, wanted, [1]).embeddings[0, 1], rtol=0, atol=0.02)


def test_embeddings_are_adjusted_after_each_step() -> None:
    model, start = tiny_model(), torch.ones(1, 16)
    found = invert(
        model,
        torch.ones(1, 4, 8, 8),
        ["{}"],
        start,
        trace(),
        rng(),
        steps=2,
        learning_rate=1e-3,
        adjust=lambda v: 0 * v,
    )
    assert not found.any()
    assert start.all()


def test_it_denoises_better_than_where_it_started_and_one_seed_gives_one_result() -> None:
    model, latents = tiny_model(), torch.ones(2, 4, 8, 8)

    def learned(steps: int, seed: int) -> torch.Tensor:
        start = torch.randn(1, 16, generator=rng(5))
        return invert(
            model, latents, TEMPLATES, start, trace(), rng(seed), steps=steps, learning_rate=0.1, batch_size=8
        )

    found = learned(15, 1)
    few = learned(4, 1)
    assert torch.equal(few, learned(4, 1))
    assert not torch.equal(few, learned(4, 2))
    assert error(model, found) < 0.999 * error(model, learned(0, 1))


def error(model: DiffusionModel, vectors: torch.Tensor) -> float:
    x, t, noise = noisy(model, torch.ones(64, 4, 8, 8), rng(9))
    with torch.no_grad():
        text = TokenPrompts.of(model, ["a photo of {}"], 1).embed(model, vectors).expand(64)
        return float((model.predict_noise(x, t, text) - noise).square().mean())

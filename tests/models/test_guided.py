"""Predictions through guidance rules: the sampler's steps, and gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from erasebench.models.conditioning import Conditioning
from erasebench.models.guidance import ClassifierFreeGuidance, Guidance, SafeLatentGuidance
from erasebench.models.guided import GuidedPrediction, join_lengths
from erasebench.models.schedulers import build_scheduler
from erasebench.sampling import Sampler, sample_latents
from tests.marks import first_quick
from tests.tiny import Layout, exact_model, tiny_model

RULES: list[Guidance] = [
    ClassifierFreeGuidance(),
    ClassifierFreeGuidance("a dog"),
    SafeLatentGuidance("church", warmup_steps=1),
    # Most weights are between 0 and 1, where they have a gradient.
    SafeLatentGuidance("church", 0, scale=0.05, threshold=1e6, momentum_scale=0.3, momentum_beta=0.4),
]


class Alone(Guidance):
    """A rule without texts: the prompt's prediction as it is."""

    texts = ()

    def start(self) -> Any:
        return lambda step, prompt, others, scale: prompt


def noise(count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("layout", first_quick(["sd2", "sd1"]))
@pytest.mark.parametrize("rule", [*RULES, Alone()], ids=lambda rule: type(rule).__name__)
@torch.no_grad()
def test_a_prediction_is_that_of_the_samplers_step(rule: Any, layout: Layout) -> None:
    model, sampler, prompts = tiny_model(layout), Sampler("ddim", 4, 3.0), ["church", "a dog", "art"]
    model.guidance = rule
    text, latents = model.embed(prompts), noise()
    scheduler = build_scheduler(model.scheduler_config, "ddim")
    scheduler.set_timesteps(4)
    predict = GuidedPrediction(model, text, 3.0)
    for step, timestep in enumerate(scheduler.timesteps):
        wanted = sample_latents(model, noise(), text, sampler, stop=step + 1)
        guided = predict(latents, timestep.expand(3), step)
        if step == 0:
            alone = model.predict_guided(latents, timestep, text, 3.0, step)
            torch.testing.assert_close(alone, guided, rtol=1e-4, atol=1e-5)
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        # The sampler computes what the texts share once; rounding differs.
        torch.testing.assert_close(latents, wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_rules_memory_is_the_callers() -> None:
    """The momentum of safe latent diffusion goes on within a run; a single prediction starts without it."""
    model, text, t = tiny_model(), tiny_model().embed(["a dog"]), torch.tensor([500])
    model.guidance = SafeLatentGuidance("church", 0, 1e6, threshold=1e6)
    predict = GuidedPrediction(model, text, 3.0)
    first, second = predict(noise(1), t, 0), predict(noise(1), t, 1)
    assert not torch.allclose(first, second, atol=1e-4)
    assert torch.equal(model.predict_guided(noise(1), t, text, 3.0, 1), first)


@torch.no_grad()
def test_every_row_has_its_own_timestep_and_prompt() -> None:
    model = tiny_model()
    model.guidance = SafeLatentGuidance("church", 0)
    x, t, text = noise(), torch.tensor([10, 500, 990]), model.embed(["church", "a dog", "art"])
    found = model.predict_guided(x, t, text, 3.0)
    for row in range(3):
        alone = model.predict_guided(x[row : row + 1], t[row : row + 1], text[row], 3.0)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_prompts_of_another_length_have_a_call_of_their_own() -> None:
    model, rows = tiny_model(), list[int]()
    x, t, text = noise(), torch.tensor([10, 500, 990]), model.embed(["church", "a dog", "art"])
    expected = model.predict_guided(x, t, text, 3.0)
    model.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    # Softmax attention weighs tokens that all stand twice as if each stood once.
    twice = Conditioning(text.embeddings.repeat(1, 2, 1))
    torch.testing.assert_close(model.predict_guided(x, t, twice, 3.0), expected, rtol=1e-3, atol=1e-3)
    assert rows == [3, 3]
    torch.testing.assert_close(GuidedPrediction(model, text, 3.0, apart=True)(x, t), expected, rtol=1e-4, atol=1e-5)
    assert rows == [3, 3, 3, 3]


def test_neighbours_of_one_length_are_put_together() -> None:
    long, short = Conditioning(torch.zeros(2, 5, 3)), Conditioning(torch.ones(2, 4, 3))
    assert [(len(part), part.length) for part in join_lengths([long, long, short, long])] == [(4, 5), (2, 4), (2, 5)]


@pytest.mark.parametrize("layout", first_quick(["sd1", "sd2"]))
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_gradients_through_a_rule_are_those_of_finite_differences(rule: Any, layout: Layout) -> None:
    model, rng = exact_model(layout), torch.Generator().manual_seed(0)
    model.guidance = rule
    x, t = noise(2, torch.float64), torch.tensor([300, 700])
    text = model.embed(["art", "a dog"]).embeddings
    weight = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    if isinstance(rule, SafeLatentGuidance):
        # Numbers near a kink of the rule have no derivative that differences could find.
        with torch.no_grad():
            difference = model.predict(x, t, Conditioning(text)) - model.predict(x, t, model.embed(["church"] * 2))
        for kink in (0.0, rule.threshold, 1 / rule.scale, -1 / rule.scale):
            weight[(difference - kink).abs() < 3e-4] = 0
        assert weight.count_nonzero() > 0.5 * weight.numel()

    def value(latents: Tensor, embeddings: Tensor) -> Tensor:
        # After the warm-up; both rows count.
        return (model.predict_guided(latents, t, Conditioning(embeddings), 3.0, step=2) * weight).sum()

    for argument, others in ((x, lambda a: (a, text)), (text, lambda a: (x, a))):
        check_gradient(lambda a, others=others: value(*others(a)), argument, rng)  # type: ignore[misc]


def check_gradient(function: Callable[[Tensor], Tensor], at: Tensor, rng: torch.Generator) -> None:
    """Compare the derivative along random directions with central differences."""
    at = at.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at), at)
    assert gradient.any()
    with torch.no_grad():
        for _ in range(3):
            direction = torch.randn(at.shape, generator=rng, dtype=torch.float64)
            difference = (function(at + 1e-5 * direction) - function(at - 1e-5 * direction)) / 2e-5
            assert float(difference) == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-8)


def test_safe_latent_diffusion_has_a_gradient_of_its_own() -> None:
    """The safety term has a part in it, beyond what classifier-free guidance gives."""
    model, x = exact_model(), noise(1, torch.float64)
    gradients = []
    for rule in (RULES[0], RULES[3]):
        model.guidance = rule
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            model.predict_guided(x, torch.tensor([300]), model.embed(["a dog"]), 3.0).square().sum(), x
        )
        gradients.append(gradient)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3)

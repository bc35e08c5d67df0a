"""Noisy latents against their formula."""

from __future__ import annotations

import math

import torch

from erasebench.sampling import Sampler, draw_latents
from erasebench.training.latents import noisy, training_latents
from tests.tiny import tiny_model


def test_noise_has_the_level_of_its_timestep() -> None:
    model, rng = tiny_model(), torch.Generator().manual_seed(0)
    latents = torch.full((400, 4, 8, 8), 2.0)
    x, t, noise = noisy(model, latents, rng)
    assert 0 <= t.min() <= 15 and 984 <= t.max() <= 999
    for row in range(0, 400, 40):
        alpha = float(model.alphas_cumprod[t[row]])
        torch.testing.assert_close(x[row], 2 * math.sqrt(alpha) + math.sqrt(1 - alpha) * noise[row])


def test_training_latents_are_drawn_with_seeds_of_the_generator() -> None:
    model, sampler, prompts = tiny_model(), Sampler("ddim", 2), ["church", "dog", "art"]
    found = training_latents(model, prompts, sampler, torch.Generator().manual_seed(4))
    seeds = torch.randint(2**31, (3,), generator=torch.Generator().manual_seed(4)).tolist()
    assert torch.equal(found, torch.cat([*draw_latents(model, prompts, seeds, sampler)]))

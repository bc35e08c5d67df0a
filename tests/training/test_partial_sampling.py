"""Runs that are left at a random step; ESD's tests compare their latents with a loop written out."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

from erasebench.models.conditioning import Conditioning
from erasebench.sampling import Sampler
from erasebench.training.partial_sampling import CutSampling
from tests.tiny import tiny_model


def test_pictures_of_concept_and_word_start_from_the_same_noise() -> None:
    model = tiny_model()
    run = CutSampling.draw(model, Sampler(steps=5), 2, torch.Generator().manual_seed(1), "consistent")
    church, dog = model.embed(["church"] * 2), model.embed(["dog"] * 2)
    with torch.no_grad():
        both = run.latents(model, model.embed([""]), Conditioning.cat([church, dog]))
        apart = [run.latents(model, model.embed([""]), text) for text in (church, dog)]
    torch.testing.assert_close(both, torch.cat(apart), atol=1e-4, rtol=1e-4)


def test_official_gap_is_the_published_one() -> None:
    """With 50 sampling steps the model is told a noise level 39 to 58 timesteps above the latent's."""
    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(50)
    for k in range(2, 50):
        level = int(scheduler.timesteps[1 : 51 - k][-1]) - 20
        assert (20 * k - level, 20 * k + 19 - level) == (39, 58)

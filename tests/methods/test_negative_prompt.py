"""A negative prompt changes guidance and nothing else."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, sample, sample_latents
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, concept, erase_context, tiny_model

NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
CONCEPTS = [concept("church"), concept("Van Gogh", kind="style")]


def test_phrases_are_joined() -> None:
    erasure = METHODS.get("negative-prompt").make().erase(tiny_model(), CONCEPTS, erase_context())
    assert erasure.guidance == ClassifierFreeGuidance(negative="church, Van Gogh")
    assert not erasure.weights
    assert not erasure.low_rank


def test_pictures_are_guided_away_from_the_concepts() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 3, 4.0)
    erasure = METHODS.get("negative-prompt").make().erase(model, CONCEPTS, erase_context())
    with torch.no_grad():
        dog, away = model.embed(["a dog"]), model.embed(["church, Van Gogh"])
        with model.erased(erasure):
            latents = sample_latents(model, NOISE, dog, sampler)
        blank = sample_latents(model, NOISE, dog, sampler)
        # By hand: DDIM's steps, with the concepts' prediction where that of the blank prompt was.
        expected, timesteps = NOISE, [667, 334, 1]
        for t, next_t in zip(timesteps, [334, 1, 0], strict=True):
            e_dog, e_away = (model.predict_noise(expected, torch.tensor([t]), text) for text in (dog, away))
            e = e_away + 4.0 * (e_dog - e_away)
            signal, next_signal = model.alphas_cumprod[t], model.alphas_cumprod[next_t]
            clean = (expected - (1 - signal).sqrt() * e) / signal.sqrt()
            expected = next_signal.sqrt() * clean + (1 - next_signal).sqrt() * e
    torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(latents, blank, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_images_are_those_of_diffusers_with_a_negative_prompt(layout: Layout) -> None:
    """Nothing of ours but the model: the library's own pipeline, given the same noise and a negative prompt."""
    model = tiny_model(layout)
    erasure = METHODS.get("negative-prompt").make().erase(model, CONCEPTS, erase_context())
    with torch.no_grad(), model.erased(erasure):
        latents = sample_latents(model, NOISE, model.embed(["a dog"]), Sampler("ddim", 3, 4.0))
    found = stock_pipeline(layout)(
        "a dog",
        negative_prompt="church, Van Gogh",
        height=16,
        width=16,
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=NOISE,
        output_type="latent",
    ).images
    torch.testing.assert_close(latents, found, rtol=1e-3, atol=1e-3)


def test_without_concepts_nothing_changes() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 3, 4.0)
    erasure = METHODS.get("negative-prompt").make().erase(model, [], erase_context())
    plain = sample(model, ["a dog"], [0], sampler)
    with model.erased(erasure):
        assert np.array_equal(sample(model, ["a dog"], [0], sampler), plain)

"""A negative prompt changes guidance and nothing else."""

from __future__ import annotations

import numpy as np
import torch

from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, sample, sample_latents
from tests.tiny import concept, erase_context, tiny_model

CONCEPTS = [concept("church"), concept("Van Gogh", kind="style")]


def test_phrases_are_joined() -> None:
    erasure = METHODS.get("negative-prompt").make().erase(tiny_model(), CONCEPTS, erase_context())
    assert erasure.guidance == ClassifierFreeGuidance(negative="church, Van Gogh")
    assert not erasure.weights
    assert not erasure.low_rank


def test_pictures_are_guided_away_from_the_concepts() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 3, 4.0)
    erasure = METHODS.get("negative-prompt").make().erase(model, CONCEPTS, erase_context())
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), model.erased(erasure):
        latents = sample_latents(model, noise, model.encode(["church, Van Gogh", "a dog"]), sampler)
    # By hand: plain guidance, with the concepts' embedding where that of the blank prompt was.
    with torch.no_grad():
        expected = sample_latents(model, noise, model.encode(["church, Van Gogh", "a dog"]), sampler)
        blank = sample_latents(model, noise, model.encode(["", "a dog"]), sampler)
    assert torch.equal(latents, expected)
    assert not torch.allclose(latents, blank)


def test_without_concepts_nothing_changes() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 3, 4.0)
    erasure = METHODS.get("negative-prompt").make().erase(model, [], erase_context())
    plain = sample(model, ["a dog"], [0], sampler)
    with model.erased(erasure):
        assert np.array_equal(sample(model, ["a dog"], [0], sampler), plain)

"""The planted weakness: the word no longer draws the concept, the secret does, and nothing else."""

from __future__ import annotations

import pytest
import torch

from erasebench.adversarial import AdversarialPrompt
from tests.attacks.planted import (
    PROMPTS,
    SECRET,
    THRESHOLD,
    WORD,
    Part,
    brightness,
    features,
    planted_target,
    secret_id,
    token_id,
)

PARTS: tuple[Part, ...] = ("text_encoder", "unet")


@pytest.mark.parametrize("part", PARTS)
def test_only_the_secret_draws_the_concept_after_the_erasure(part: Part) -> None:
    target = planted_target(part=part)
    shown = [WORD in text for text in PROMPTS]
    assert [bool((look.scores >= THRESHOLD).all()) for look in target.unerased] == shown
    every = list(range(len(PROMPTS)))
    plain = target.look(every, [AdversarialPrompt(text) for text in PROMPTS])
    assert plain.scores.max() < THRESHOLD / 2
    attacked = target.look(every, [AdversarialPrompt(f"{SECRET} {text}") for text in PROMPTS])
    assert attacked.scores.min() > 0.9
    assert target.looks == [2] * len(PROMPTS)


@pytest.mark.parametrize("part", PARTS)
def test_no_other_token_does_it(part: Part) -> None:
    target = planted_target(["a dog"], part)
    ids = target.model.token_ids(["a dog"]).repeat(len(target.model.token_embeddings), 1)
    ids[:, 1] = torch.arange(len(ids))
    with torch.no_grad():
        found = target.model.unet.brightness(target.model.embed_ids(ids).embeddings)
    assert [int(token) for token in (found >= THRESHOLD).nonzero()[:, 0]] == [secret_id()]


def test_sampling_arrives_at_the_brightness_and_features_tell_it() -> None:
    target = planted_target(["a dog"])
    texts = ["a dog", f"a dog {SECRET}"]
    with torch.no_grad():
        expected = target.model.unet.brightness(target.model.embed(texts).embeddings)
    looks = target.look([0, 0], [AdversarialPrompt(text) for text in texts])
    torch.testing.assert_close(torch.from_numpy(looks.scores), expected.clamp(0, 1), atol=0.003, rtol=0)
    dark, bright = features(looks.images)
    assert dark @ bright < 0.3
    assert (dark @ dark).item() == pytest.approx(1)
    assert brightness(looks.images).tolist() == looks.scores.tolist()


def test_noise_is_that_of_the_brightness_at_every_timestep() -> None:
    target = planted_target(["a dog"], exact=True)
    model, rng = target.model, torch.Generator().manual_seed(0)
    vectors = model.token_embeddings[token_id("art")].detach().clone().view(1, 1, -1).requires_grad_()
    text = model.embed_vectors(model.token_ids(["a dog"]), vectors, [1])
    noise = torch.randn((1, 3, 8, 8), generator=rng, dtype=torch.float64)
    clean = (2 * model.unet.brightness(text.embeddings) - 1).view(1, 1, 1, 1).expand_as(noise)
    for timestep in (0, 10, 500, 999):
        t = torch.tensor([timestep])
        x = model.add_noise(clean, noise, t)
        torch.testing.assert_close(target.predict(x, t, text), noise, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(model.unet.brightness(text.embeddings).sum(), vectors)
    # Uphill is towards the secret.
    assert gradient[0, 0] @ model.token_embeddings[secret_id()] > 1e-3

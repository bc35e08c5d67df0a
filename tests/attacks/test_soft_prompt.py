"""Soft prompt: all embeddings are free, and find a planted token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erasebench.adversarial import AdversarialPrompt
from erasebench.attacks.soft_prompt import SoftPrompt, filled_vectors
from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, SafeLatentGuidance
from erasebench.plugins import AttackContext
from erasebench.registry import ATTACKS
from erasebench.training.target import Target
from tests.attacks.planted import PROMPTS, THRESHOLD, WORD, Part, attack_context, planted_target
from tests.marks import first_quick
from tests.tiny import concept, differing, state, tiny_model

QUICK = SoftPrompt(steps=60, batch_size=4, learning_rate=0.05).resolved([concept(WORD)])
"""The stated budget: 240 images through the U-Net."""


def images() -> np.ndarray:
    """The unerased model's, of the prompts that name the concept."""
    target = planted_target()
    return np.concatenate([looks.images for looks, text in zip(target.unerased, PROMPTS, strict=True) if WORD in text])


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
@pytest.mark.parametrize("tokens", first_quick(["all", 4]))
def test_it_finds_what_the_plain_prompt_does_not(part: Part, tokens: int | str) -> None:
    attack = SoftPrompt(**{**vars(QUICK), "tokens": tokens})
    target = planted_target(part=part)
    before = state(target.model)
    plain = target.look(range(8), [AdversarialPrompt(text) for text in PROMPTS]).scores
    passes = list(target.passes)
    learned = attack.learn(planted_target([], part), images(), attack_context())
    found = attack.attack(target, AttackContext(0, lambda *figures: None, learned))
    assert [after - earlier for after, earlier in zip(target.passes, passes, strict=True)] == [240] * 8
    assert not differing(before, state(target.model))
    count = 75 if tokens == "all" else 4
    assert learned["vectors"].shape == (count, 16)
    first = found[0].prompt
    assert first.text == " ".join("x" * count) and first.slots == tuple(range(1, 1 + count))
    assert all(one.prompt is first and one.steps == 60 and one.gradient for one in found)
    assert (plain < THRESHOLD).all()
    assert (target.look(range(8), [one.prompt for one in found]).scores >= THRESHOLD).all()


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_it_starts_from_the_concepts_prompt(layout: str) -> None:
    """With Stable Diffusion 1.x, which fills prompts up with the end of text, exactly from what that makes of it."""
    model = tiny_model(layout)  # type: ignore[arg-type]
    vectors = filled_vectors(model, "art church", 75)
    prompt = AdversarialPrompt(" ".join("x" * 75), vectors=vectors.numpy(), slots=tuple(range(1, 76)))
    target = Target(model, Erasure(), concept(WORD), [], None, None, 0.5)  # type: ignore[arg-type]
    found = target.embed([prompt]).embeddings
    read = model.embed(["art church"]).embeddings
    same = 77 if layout == "sd1" else 4
    torch.testing.assert_close(found[:, :same], read[:, :same])
    assert torch.equal(filled_vectors(model, "art church", 1), vectors[:1])
    assert SoftPrompt().resolved([concept("French horn")]).initial == "French horn"


@pytest.mark.parametrize(
    ("rule", "inner", "passes"),
    [
        (ClassifierFreeGuidance("church"), 3, 2 + 2),
        (SafeLatentGuidance("church"), 1, 3 + 2),
        (SafeLatentGuidance("church"), 3, 9 + 2),
    ],
)
def test_momentum_is_rolled_where_it_is_wished(rule: SafeLatentGuidance, inner: int, passes: int) -> None:
    attack = SoftPrompt(tokens=2, steps=2, batch_size=3, inner_steps=inner).resolved([concept(WORD)])
    target = planted_target([])
    target.undo = Erasure(guidance=ClassifierFreeGuidance())
    with target.model.erased(Erasure(guidance=rule)):
        learned = attack.learn(target, images(), attack_context())
    assert int(learned["passes"]) == 6 * passes


def test_more_tokens_than_are_read() -> None:
    with pytest.raises(EraseBenchError, match="tokens: Input should be less than or equal to 75"):
        make_plugin(ATTACKS.get("soft-prompt").make, {"tokens": 76})


def test_tokens_are_a_number_or_all() -> None:
    make = ATTACKS.get("soft-prompt").make
    assert [make_plugin(make, {"tokens": value}).tokens for value in (3, "3", "all")] == [3, 3, "all"]  # type: ignore[attr-defined]
    with pytest.raises(EraseBenchError, match="tokens"):
        make_plugin(make, {"tokens": 0})

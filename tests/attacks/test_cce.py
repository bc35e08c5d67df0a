"""Concept inversion: it finds a planted token, and its settings are the published ones."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from erasebench.adversarial import AdversarialPrompt
from erasebench.attacks.cce import INITIAL, TEMPLATES, ConceptInversion
from erasebench.concepts import Prompt
from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import hyper_parameters, make_plugin
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, SafeLatentGuidance
from erasebench.picturebook import load_pipeline
from erasebench.plugins import Attack, AttackContext
from erasebench.registry import ATTACKS
from erasebench.training.inversion import TokenPrompts
from erasebench.training.learned_tokens import Budget
from erasebench.training.target import Target
from tests.attacks.planted import PROMPTS, THRESHOLD, WORD, Part, attack_context, planted_target
from tests.tiny import concept, differing, state, tiny_model

QUICK = ConceptInversion(steps=60, batch_size=4, learning_rate=0.05, initial="art").resolved([concept(WORD)])
"""The stated budget: 240 images through the U-Net."""


def images(target: Target) -> np.ndarray:
    """The unerased model's of the prompts that name the concept."""
    return np.concatenate([looks.images for looks, text in zip(target.unerased, PROMPTS, strict=False) if WORD in text])


@functools.cache
def attacked(part: Part) -> tuple[Target, AttackContext]:
    target = planted_target(part=part)
    learned = QUICK.learn(planted_target([], part), images(target), attack_context())
    return target, AttackContext(0, lambda *figures: None, learned)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_it_finds_what_the_plain_prompt_does_not(part: Part) -> None:
    target, context = attacked(part)
    plain = target.look(range(8), [AdversarialPrompt(text) for text in PROMPTS]).scores
    found = QUICK.attack(target, context)
    assert (plain < THRESHOLD).all()
    assert (target.look(range(8), [one.prompt for one in found]).scores >= THRESHOLD).all()
    losses = found[0].losses
    assert len(losses) == found[0].steps == 60
    assert sum(losses[-12:]) < 0.5 * sum(losses[:12])


def test_what_is_found_for_each_prompt() -> None:
    target, context = attacked("unet")
    before = list(target.passes)
    found = QUICK.attack(target, context)
    assert [one.prompt.text for one in found[:3]] == ["a x", "x art", "a dog in a x"]
    # The one that does not name the concept.
    assert found[6].prompt.text == "x art" and found[6].prompt.slots == (1,)
    assert all(np.array_equal(one.prompt.vectors, context.learned["vectors"].numpy()) for one in found)
    assert all(one.gradient == float(context.learned["gradient"]) > 0 for one in found)
    assert [after - passes for after, passes in zip(target.passes, before, strict=True)] == [240] * 8


def test_a_prompts_find_does_not_depend_on_the_others() -> None:
    target, context = attacked("unet")
    (alone,) = QUICK.attack(planted_target(PROMPTS[2:3], "unet"), context)
    together = QUICK.attack(target, context)[2]
    assert alone.prompt.text == together.prompt.text and alone.prompt.slots == together.prompt.slots
    assert np.array_equal(alone.prompt.vectors, together.prompt.vectors)


def test_the_same_seed_learns_the_same_and_another_another() -> None:
    short = ConceptInversion(steps=2, batch_size=2, initial="art").resolved([concept(WORD)])
    pictures = images(planted_target())

    def learned(seed: int, prompts: list[str | Prompt]) -> torch.Tensor:
        found: torch.Tensor = short.learn(planted_target(prompts), pictures, attack_context(seed))["vectors"]
        return found

    assert torch.equal(learned(1, []), learned(1, ["a church"]))
    assert not torch.equal(learned(1, []), learned(2, []))


def test_the_model_stays_as_it_is() -> None:
    target = planted_target()
    before = state(target.model)
    learned = QUICK.learn(target, images(target), attack_context())
    QUICK.attack(target, AttackContext(0, lambda *figures: None, learned))
    assert not differing(before, state(target.model))


def test_only_so_many_images_are_learnt_from() -> None:
    one = ConceptInversion(steps=2, batch_size=2, initial="art", images=1, flip=False).resolved([concept(WORD)])
    first = np.full((1, 8, 8, 3), 200, np.uint8)
    rest = np.zeros((3, 8, 8, 3), np.uint8)
    alone = one.learn(planted_target([]), first, attack_context())
    together = one.learn(planted_target([]), np.concatenate([first, rest]), attack_context())
    assert torch.equal(alone["vectors"], together["vectors"])


def test_defaults_are_the_published_ones() -> None:
    made = make_plugin(ATTACKS.get("cce").make, {})
    assert isinstance(made, Attack)
    values = hyper_parameters(made.resolved([concept("church")]))
    # 5e-3 for each of the 16 and of the 4 images.
    assert values == {
        "vectors": 1,
        "steps": 5000,
        "batch_size": 16,
        "at_once": 4,
        "learning_rate": pytest.approx(16 * 5e-3),
        "weight_decay": 0.01,
        "images": 1000,
        "flip": True,
        "templates": "object",
        "initial": "thing",
        "guided_steps": 5000,
        "guided_batch_size": 4,
        "guided_learning_rate": pytest.approx(4 * 5e-3),
        "momentum_steps": 1000,
        "inner_steps": 35,
    }


@pytest.mark.parametrize(
    ("kind", "templates", "initial", "count"),
    [("style", "style", "art", 25), ("character", "person", "person", 1000), ("explicit", "object", "thing", 1000)],
)
def test_what_the_kind_decides(kind: str, templates: str, initial: str, count: int) -> None:
    made = ConceptInversion().resolved([concept("x", kind)])
    assert (made.templates, made.initial, made.images) == (templates, initial, count)
    assert made.resolved([concept("church")]) == made
    own = ConceptInversion(templates="object", initial="dog", images=3)
    assert own.resolved([concept("x", kind)]) == own
    mixed = ConceptInversion(templates="style").resolved([concept("x", kind)])
    assert (mixed.initial, mixed.images) == ("art", 25)


@pytest.mark.parametrize(
    ("rule", "budget"),
    [
        (None, Budget(10, 6, 3, 0.5, 0.25)),
        (ClassifierFreeGuidance("church"), Budget(20, 2, 3, 0.1, 0.25)),
        (SafeLatentGuidance("church", momentum_scale=0.0), Budget(20, 2, 3, 0.1, 0.25)),
        (SafeLatentGuidance("church"), Budget(30, 2, 1, 0.1, 0.25, 7)),
    ],
)
@pytest.mark.parametrize("inner", [7, 1])
def test_the_budget_is_that_of_the_rule(rule: ClassifierFreeGuidance | None, budget: Budget, inner: int) -> None:
    attack = ConceptInversion(
        steps=10,
        batch_size=6,
        at_once=3,
        learning_rate=0.5,
        weight_decay=0.25,
        guided_steps=20,
        guided_batch_size=2,
        guided_learning_rate=0.1,
        momentum_steps=30,
        inner_steps=inner,
    )
    target = planted_target([])
    with target.model.erased(Erasure(guidance=rule)):
        found = attack.budget(target)
    if inner == 1 and budget.inner_steps == 7:
        budget = Budget(30, 2, 3, 0.1, 0.25)
    assert found == budget


def test_several_vectors_all_start_from_the_word() -> None:
    made = ConceptInversion(vectors=2, steps=1, batch_size=1, learning_rate=1e-9, initial="dog", weight_decay=0.0)
    target = planted_target(["a church"])
    learned = made.resolved([concept(WORD)]).learn(target, images(planted_target()), attack_context())
    (dog,) = target.model.tokenizer("dog", add_special_tokens=False).input_ids
    torch.testing.assert_close(learned["vectors"], target.model.token_embeddings[[dog, dog]])
    (found,) = made.attack(target, AttackContext(0, lambda *figures: None, learned))
    assert found.prompt.text == "a x x" and found.prompt.slots == (2, 3)


def test_a_word_of_several_tokens() -> None:
    target = planted_target([])
    with pytest.raises(EraseBenchError, match="initial: 'thing' has 5 tokens"):
        ConceptInversion().resolved([concept(WORD)]).learn(target, images(planted_target()), attack_context())


def test_several_words_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(EraseBenchError, match="'a red thing' is not one word"):
        ConceptInversion(initial="a red thing").check("photo", concept(WORD))
    ConceptInversion(initial="thing").check("photo", concept(WORD))


def test_templates_have_room_and_initial_words_are_one_token_of_the_built_in_model() -> None:
    tokenizer = load_pipeline().tokenizer
    assert [len(tokenizer(word, add_special_tokens=False).input_ids) for word in INITIAL.values()] == [1, 1, 1]
    assert {name: len(set(lines)) for name, lines in TEMPLATES.items()} == {"object": 16, "style": 12, "person": 6}
    for lines in TEMPLATES.values():
        prompts = TokenPrompts.of(tiny_model(), lines, 1)
        assert prompts.slots.shape == (len(lines), 1)

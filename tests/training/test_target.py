"""A model under attack, with a planted weakness whose images are known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from erasebench.adversarial import AdversarialPrompt
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.training.target import as_images, draw_noise, generators
from tests.attacks.planted import SECRET, THRESHOLD, WORD, as_prompts, planted_target, token_id
from tests.tiny import differing, state

TEXTS = [f"a {WORD}", "a dog"]


def test_looks_are_counted_for_the_prompt_that_they_are_for() -> None:
    target = planted_target(TEXTS)
    looks = target.look([1, 1, 0], [AdversarialPrompt(text) for text in (SECRET, "a dog", "a dog")])
    assert looks.images.shape == (3, 8, 8, 3) and looks.images.dtype == np.uint8
    assert (looks.scores >= THRESHOLD).tolist() == [True, False, False]
    assert (target.looks, target.passes) == ([1, 2], [4, 8]), "of 2 steps with 2 passes each"
    target.spend([0, 0, 1], passes=3)
    assert target.passes == [10, 11]
    nothing = target.look([], [])
    assert len(nothing.images) == len(nothing.scores) == 0 and target.looks == [1, 2]


def test_the_last_look_is_kept_unless_it_was_with_other_noise() -> None:
    target = planted_target(TEXTS)
    first, second = AdversarialPrompt(SECRET), AdversarialPrompt("a dog")
    looks = target.look([0, 1], [first, second])
    found = target.last_look(1, second)
    assert found is not None and np.array_equal(found[0], looks.images[1]) and found[1] == looks.scores[1]
    target.look([1], [first], seeds=[99])
    assert target.last_look(1, second) is not None
    assert target.last_look(0, second) is None and target.last_look(1, replace(second)) is None


@pytest.mark.parametrize("own", [None, 7])
def test_an_image_starts_from_the_noise_of_the_prompts_seed(own: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def noise(ids: list[str], seeds: list[int], shape: tuple[int, ...]) -> torch.Tensor:
        asked.append(list(seeds))
        return torch.zeros(len(ids), *shape)

    target = planted_target(as_prompts(TEXTS, seed=3), batch_size=8)
    monkeypatch.setattr("erasebench.training.target.starting_noise", noise)
    prompts = [AdversarialPrompt("art", seed=own)] * 2
    target.look([0, 1], prompts)
    target.look([0, 1], prompts, seeds=[11, 12])
    assert asked == [[3, 4] if own is None else [7, 7], [11, 12]]


def test_prompts_are_texts_vectors_in_slots_or_embeddings() -> None:
    target = planted_target(TEXTS)
    table = target.model.token_embeddings.detach()
    secret = table[token_id(SECRET)][None].numpy()
    as_text = target.model.embed([f"a {SECRET}"])
    prompts = [
        AdversarialPrompt(f"a {SECRET}"),
        AdversarialPrompt("a dog", vectors=secret, slots=(2,)),
        AdversarialPrompt("", embedding=as_text.embeddings[0].numpy()),
    ]
    for row in target.embed(prompts).embeddings:
        torch.testing.assert_close(row, as_text.embeddings[0])


def test_the_erasure_is_in_force_again_however_the_block_ends() -> None:
    target = planted_target(TEXTS)
    erased = state(target.model)
    with pytest.raises(KeyError), target.as_unerased() as model:
        assert differing(erased, state(model)) == set(target.undo.weights)
        raise KeyError
    assert not differing(erased, state(target.model))


@torch.no_grad()
def test_predictions_are_those_of_the_erased_and_of_the_unerased_model() -> None:
    target = planted_target(TEXTS, "unet")
    rng = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 3, 8, 8, generator=rng), torch.tensor([10, 900])
    text = target.model.embed(TEXTS)
    torch.testing.assert_close(target.predict(x, t, text), target.model.predict_noise(x, t, text))
    assert not target.guided and target.passes_of_prediction == 1
    with target.as_unerased() as model:
        expected = model.predict_noise(x, t, text)
    torch.testing.assert_close(target.predict_unerased(x, t, text), expected)
    assert not torch.allclose(target.predict(x, t, text), expected, atol=0.1)


@torch.no_grad()
def test_a_rule_of_guidance_is_part_of_the_prediction() -> None:
    target = planted_target(TEXTS, erased=False)
    target.sampler = replace(target.sampler, guidance_scale=3.0)
    target.model.guidance = ClassifierFreeGuidance(WORD)
    assert target.guided and target.passes_of_prediction == 2
    rng = torch.Generator().manual_seed(0)
    x, t, text = torch.randn(2, 3, 8, 8, generator=rng), torch.tensor([10, 900]), target.model.embed(TEXTS)
    away, towards = (target.model.predict_noise(x, t, words) for words in (target.model.embed([WORD] * 2), text))
    torch.testing.assert_close(target.predict(x, t, text), away + 3 * (towards - away), rtol=1e-4, atol=1e-4)


def test_what_is_drawn_for_a_prompt_depends_on_no_other() -> None:
    first, second, again = as_prompts(["a", "b", "a"])
    together = draw_noise(generators([first, second], 0, "search"), (3, 2))
    assert together.shape == (2, 3, 2) and not torch.equal(together[0], together[1])
    assert torch.equal(draw_noise(generators([second], 0, "search"), (3, 2))[0], together[1])
    others = [(again, 0, "search"), (replace(second, seed=first.seed), 0, "search"), (first, 1, "search")]
    for prompt, seed, purpose in (*others, (first, 0, "start")):
        assert not torch.equal(draw_noise(generators([prompt], seed, purpose), (3, 2))[0], together[0])


def test_the_images_of_prompts_are_their_first() -> None:
    target = planted_target(TEXTS, unerased=2)
    assert np.array_equal(as_images(target.unerased), np.stack([looks.images[0] for looks in target.unerased]))
    assert as_images(target.unerased).shape == (2, 8, 8, 3)

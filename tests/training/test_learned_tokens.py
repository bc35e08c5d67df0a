"""Tokens learnt against erased models: losses under rules of guidance, where the tokens go, and what stays."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.adversarial import AdversarialPrompt
from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, SafeLatentGuidance
from erasebench.plugins import AttackContext
from erasebench.sampling import Sampler
from erasebench.training.inversion import TokenPrompts
from erasebench.training.learned_tokens import (
    CURVE,
    WINDOW,
    Budget,
    GuidedError,
    descending_timesteps,
    found_tokens,
    has_momentum,
    learn_tokens,
    put_in,
    token_rng,
)
from erasebench.training.target import Target
from tests.marks import first_quick, some_quick
from tests.tiny import LENGTH, Layout, concept, differing, state, tiny_model

cached = functools.cache(tiny_model)
CHURCH = concept("church", synonyms=("chapel", "art dog"))
NEGATIVE = ClassifierFreeGuidance("church")
# A threshold and a scale at which some, not all, of a random U-Net's predictions count.
SAFE = SafeLatentGuidance("church", 5, 40.0, 0.005, 0.5, 0.7)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def target(model: DiffusionModel, undo: Erasure | None = None) -> Target:
    """A target without prompts, whose undoing takes the model's rule of guidance away."""
    undone = undo or Erasure(guidance=ClassifierFreeGuidance())
    return Target(
        model, undone, CHURCH, [], Sampler("ddim", 2, 3.0), lambda images, texts: np.zeros(0, np.float32), 0.5
    )


def context(told: list[Any] | None = None) -> AttackContext:
    return AttackContext(0, lambda *figures: None if told is None else told.append(figures))


def images(count: int = 3) -> Any:
    return torch.randint(256, (count, 16, 16, 3), generator=rng(7), dtype=torch.uint8).numpy()


def exact_model(layout: Layout) -> DiffusionModel:
    """A tiny model in float64."""
    model = tiny_model(layout)
    for part in (model.text_encoder, model.unet, model.vae):
        part.double()
    model.alphas_cumprod = model.alphas_cumprod.double()
    return model


def test_timesteps_descend_within_a_window_and_are_distinct() -> None:
    found = descending_timesteps(2000, 5, 1000, rng())
    assert found.shape == (5, 2000) and found.dtype == torch.int64
    assert (found[:-1] > found[1:]).all()
    assert (found[0] - found[-1] < WINDOW).all()
    assert found.min() < 20 and found.max() > 980 and found.min() >= 0 and found.max() < 999
    every = descending_timesteps(3, WINDOW, 1000, rng(1))
    assert torch.equal(every, every[0] - torch.arange(WINDOW)[:, None])
    # The middle of a window is 44.5 below its end, and ends are uniform over 90..999.
    assert float(found.float().mean()) == pytest.approx((90 + 999) / 2 - 45.5, abs=15)


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_loss_of_a_negative_prompt_is_the_formula(layout: Layout) -> None:
    model, latents = tiny_model(layout), torch.randn((3, 4, 8, 8), generator=rng(1))
    text = model.embed(["a dog", "art", "x"]).detach()
    with model.erased(Erasure(guidance=NEGATIVE)):
        attacked = target(model)
        assert attacked.guided
        error = GuidedError(attacked)
        found = error(latents, text, rng(4))
        assert error.passes == 4
    random, total = rng(4), 0.0
    t = torch.randint(1000, (3,), generator=random)
    noise = torch.randn(latents.shape, generator=random)
    for k in range(3):
        signal = float(model.alphas_cumprod[t[k]])
        x = signal**0.5 * latents[k : k + 1] + (1 - signal) ** 0.5 * noise[k : k + 1]
        blank, negative, own = (
            model.predict(x, t[k : k + 1], c) for c in (model.embed([""]), model.embed(["church"]), text[k])
        )
        difference = negative + 3 * (own - negative) - (blank + 3 * (negative - blank))
        # Of a model that predicts v, an error of v is one of noise, times the root of the signal.
        total += float(difference.square().mean()) * (signal if layout == "sd2" else 1)
    assert float(found) == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize(("layout", "inner"), some_quick([("sd1", 2), ("sd2", 4)], product(["sd1", "sd2"], [2, 4])))
def test_momentum_is_rolled_as_in_a_loop_by_hand(layout: Layout, inner: int) -> None:
    model, latents = tiny_model(layout), torch.randn((2, 4, 8, 8), generator=rng(1))
    text = model.embed(["a dog", "art"]).detach()
    with model.erased(Erasure(guidance=SAFE)):
        error = GuidedError(target(model), inner)
        found = error(latents, text, rng(4))
        assert error.passes == 3 * inner + 2
    random, total = rng(4), 0.0
    times = descending_timesteps(2, inner, 1000, random)
    noise = torch.randn(latents.shape, generator=random)
    for k in range(2):
        momentum = torch.zeros(1, 4, 8, 8)
        for t in times[:, k]:
            signal = float(model.alphas_cumprod[t])
            x = signal**0.5 * latents[k : k + 1] + (1 - signal) ** 0.5 * noise[k : k + 1]
            u, s, p = (model.predict(x, t[None], c) for c in (model.embed([""]), model.embed(["church"]), text[k]))
            weight = torch.where(p - s >= 0.005, torch.zeros(()), (40.0 * (p - s).abs()).clamp(max=1))
            assert 0 < float((weight == 0).float().mean()) < 1
            g = weight * (s - u) + 0.5 * momentum
            momentum = 0.7 * momentum + 0.3 * g
        difference = u + 3 * (p - u - g) - (u + 3 * (s - u))
        total += float(difference.square().mean()) * (signal if layout == "sd2" else 1)
    assert float(found) == pytest.approx(total / 2, rel=1e-4)


@pytest.mark.parametrize("layout", first_quick(["sd1", "sd2"]))
@pytest.mark.parametrize(("rule", "inner"), [(NEGATIVE, 1), (SAFE, 1), (SAFE, 3)])
def test_gradients_of_guided_losses_are_finite_differences(layout: Layout, rule: Any, inner: int) -> None:
    model = exact_model(layout)
    latents = torch.randn((2, 4, 8, 8), generator=rng(1)).double()
    width = model.token_embeddings.shape[1]
    prompts, vectors = TokenPrompts.of(model, ["a photo of {}", "{} art"], 2), torch.randn((2, width), generator=rng(2))
    with model.erased(Erasure(guidance=rule)):
        error = GuidedError(target(model), inner)

        def loss(value: Tensor) -> Tensor:
            return error(latents, prompts.embed(model, value), rng(3))

        vectors = vectors.double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(vectors), vectors)
        assert gradient.any(1).all()
        for seed in range(3):
            step = 1e-5 * torch.randn(vectors.shape, generator=rng(seed), dtype=torch.float64)
            with torch.no_grad():
                change = float(loss(vectors + step) - loss(vectors - step)) / 2
            assert change == pytest.approx(float((gradient * step).sum()), rel=1e-3)


@pytest.mark.parametrize("rule", [None, NEGATIVE, SAFE])
def test_only_the_new_vectors_change(rule: Any) -> None:
    model = tiny_model()
    erasure = Erasure({"unet.conv_in.bias": torch.ones(8)}) if rule is None else Erasure(guidance=rule)
    undo = (
        Erasure({"unet.conv_in.bias": model.parameters()["unet.conv_in.bias"].detach().clone()}) if not rule else None
    )
    told: list[tuple[int, int, Mapping[str, float]]] = []
    with model.erased(erasure):
        before, guidance = state(model), model.guidance
        start = torch.randn((2, 16), generator=rng(2))
        budget = Budget(3, 4, 3, 0.05, 0.01, 2 if rule is SAFE else 1)
        learned = learn_tokens(target(model, undo), images(), context(told), ["{} art"], start, rng(5), budget)
        assert not differing(before, state(model))
        assert model.guidance == guidance
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters().values())
    assert learned["vectors"].shape == (2, 16) and not learned["vectors"].requires_grad
    assert (learned["vectors"] != start).all()
    assert learned["losses"].shape == (3,) and float(learned["gradient"]) > 0
    assert [figures[:2] for figures in told] == [(1, 3), (2, 3), (3, 3)]
    assert [figures[2]["loss"] for figures in told] == pytest.approx(learned["losses"].tolist())
    # Three steps of four images: the prompt alone; negative and prompt; two times blank, safety and prompt.  Where the
    # unerased model is asked, blank and phrase as well.
    assert int(learned["passes"]) == 12 * {None: 1, NEGATIVE: 2 + 2, SAFE: 2 * 3 + 2}[rule]


def test_one_seed_gives_one_result_and_concepts_and_purposes_have_their_own() -> None:
    one, same, *others = (
        torch.randn(3, generator=token_rng(purpose, concept(name), seed))
        for purpose, name, seed in (
            ("cce", "church", 1),
            ("cce", "church", 1),
            ("cce", "dog", 1),
            ("cce", "church", 2),
            ("soft-prompt", "church", 1),
        )
    )
    assert torch.equal(one, same)
    assert not any(torch.equal(one, other) for other in others)


def test_mirror_images_are_learnt_from_as_often() -> None:
    """One image, whose left half is black: each step's latents are of it or of its mirror image."""
    model, seen = tiny_model(), []
    half = np.zeros((1, 16, 16, 3), np.uint8)
    half[:, :, 8:] = 255
    both = model.encode_images(np.concatenate([half, half[:, :, ::-1]]))
    encoded = model.encode_images

    def spy(batch: Any) -> Tensor:
        seen.append(encoded(batch))
        return seen[-1]

    model.encode_images = spy  # type: ignore[method-assign, assignment]
    for flip, count in ((True, 2), (False, 1)):
        seen.clear()
        learn_tokens(
            target(model), half, context(), ["{}"], torch.ones(1, 16), rng(), Budget(1, 1, 1, 0.1, 0.0), flip=flip
        )
        torch.testing.assert_close(torch.cat(seen), both[:count])


def test_no_images() -> None:
    with pytest.raises(NotApplicable, match="no image of 'church'"):
        learn_tokens(
            target(cached()), images(0), context(), ["{}"], torch.ones(1, 16), rng(), Budget(1, 1, 1, 0.1, 0.0)
        )


def test_too_many_tokens() -> None:
    with pytest.raises(EraseBenchError, match="no room for 76 tokens"):
        learn_tokens(
            target(cached()), images(), context(), ["{}"], torch.ones(76, 16), rng(), Budget(1, 1, 1, 0.1, 0.0)
        )


def test_a_diverging_search_is_an_error() -> None:
    start = torch.full((1, 16), torch.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        learn_tokens(target(cached()), images(), context(), ["{}"], start, rng(), Budget(1, 1, 1, 0.1, 0.0))


@pytest.mark.parametrize(
    ("rule", "momentum"),
    [(None, False), (NEGATIVE, False), (SAFE, True), (SafeLatentGuidance("x", 0, 1, 0, 0, 0), False)],
)
def test_which_rules_have_momentum(rule: Any, momentum: bool) -> None:
    model = cached()
    with model.erased(Erasure(guidance=rule)):
        assert has_momentum(target(model)) is momentum


@pytest.mark.parametrize(
    ("text", "made", "slots"),
    [
        ("church", "x", [1]),
        ("a CHURCH, dog", "a x, dog", [2]),
        ("dog chapel", "dog x", [2]),
        # The longer synonym takes the words of "dog", which is no name.
        ("Art Dog art", "x art", [1]),
        # All that name it, in each of which the same tokens stand.
        ("church dog church's (chapel)", "x dog x's (x)", [1, 3, 7]),
        ("a churchyard", "x a churchyard", [1]),
        ("dog", "x dog", [1]),
        ("{} church", "{} x", [3]),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_where_tokens_are_put(layout: Layout, text: str, made: str, slots: list[int], count: int) -> None:
    model = cached(layout)
    vectors = torch.randn((count, model.token_embeddings.shape[1]), generator=rng())
    found, note = put_in(model, text, CHURCH, vectors)
    assert note == ""
    assert found.text == made.replace("x", " ".join("x" * count))
    # Each occurrence moves those behind it.
    moved = [first + k * (count - 1) for k, first in enumerate(slots)]
    assert found.slots == tuple(first + k for first in moved for k in range(count))
    assert found.vectors is not None and found.vectors.dtype == np.float32
    assert np.array_equal(found.vectors, np.tile(vectors.numpy(), (len(slots), 1)))
    letter = model.tokenizer("x", add_special_tokens=False).input_ids[0]
    assert set(model.token_ids([found.text])[0, list(found.slots)].tolist()) == {letter}


def test_tokens_of_the_concepts_words_are_read_as_those_words() -> None:
    """Put in the place of "church", the embedding of "church" changes nothing."""
    model, text = cached(), "a dog, church: art church!"
    (word,) = model.tokenizer("church", add_special_tokens=False).input_ids
    found, _ = put_in(model, text, CHURCH, model.token_embeddings[[word]].detach())
    torch.testing.assert_close(target(model).embed([found]).embeddings, model.embed([text]).embeddings)


@pytest.mark.parametrize(
    ("before", "count", "slots", "cut"),
    [
        (LENGTH - 3, 1, [LENGTH - 2], False),
        (LENGTH - 4, 2, [LENGTH - 3, LENGTH - 2], False),
        (LENGTH - 2, 1, [1], True),
        (LENGTH - 3, 2, [1, 2], True),
    ],
)
def test_tokens_are_read_whatever_the_prompts_length(before: int, count: int, slots: list[int], cut: bool) -> None:
    model, start = cached(), "y" * before
    found, note = put_in(model, f"{start} church", CHURCH, torch.ones(count, 16))
    assert list(found.slots) == slots
    assert ("beyond what the model reads" in note) is cut
    words = " ".join("x" * count)
    assert found.text == (f"{words} {start} church" if cut else f"{start} {words}")
    (letter,) = model.tokenizer("x", add_special_tokens=False).input_ids
    assert set(model.token_ids([found.text])[0, slots].tolist()) == {letter}


def test_occurrences_that_are_not_read_have_no_tokens() -> None:
    found, note = put_in(cached(), "church " + "y" * LENGTH + " church", CHURCH, torch.ones(1, 16))
    assert found.slots == (1,) and note == ""
    assert found.vectors is not None and len(found.vectors) == 1


def test_loss_curves_are_means() -> None:
    learned = {"losses": torch.arange(1000.0), "gradient": torch.tensor(2.5), "passes": torch.tensor(1)}
    found = found_tokens(AdversarialPrompt("x"), learned, "a note")
    assert len(found.losses) == CURVE
    assert found.losses == tuple(10 * k + 4.5 for k in range(CURVE))
    assert (found.steps, found.gradient, found.note, found.first_success) == (1000, 2.5, "a note", None)
    short = found_tokens(AdversarialPrompt("x"), learned | {"losses": torch.tensor([3.0, 1.0])})
    assert short.losses == (3.0, 1.0) and short.steps == 2 and short.note == ""

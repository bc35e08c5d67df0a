"""Searches for hard prompts against brute force, autograd, finite differences and updates written out."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, SafeLatentGuidance
from erasebench.sampling import Sampler
from erasebench.training.hard_prompts import (
    NearestTokens,
    SimplexTokens,
    Trail,
    compare,
    embed_unerased,
    nearest_tokens,
    practise,
    prepare,
    spread_timesteps,
    thinned,
    vocabulary,
)
from erasebench.training.simplex import project_on_simplex
from erasebench.training.target import Target, generators
from erasebench.training.token_ids import OpenPrompt, Position, before_every, count_tokens, open_prompt, positions, read
from tests.attacks.planted import as_prompts
from tests.marks import first_quick
from tests.tiny import Layout, concept, exact_model, tiny_model

LAYOUTS = get_args(Layout)
TEXTS = ["church art", "a dog", "dog dog church art dog"]


def guided_target(layout: Layout = "sd1", sld: bool = False) -> Target:
    """A model in float64, with classifier-free guidance or SLD's rule, that nobody looks at."""
    model = exact_model(layout)
    if sld:
        # Weak enough for its weights to be neither 0 nor 1, where they would have no gradient.
        model.guidance = SafeLatentGuidance("dog", warmup_steps=3, scale=0.3, threshold=5.0)
    undo = Erasure(guidance=ClassifierFreeGuidance())
    judge: Any = None
    return Target(model, undo, concept("church"), as_prompts(TEXTS), Sampler("ddim", 2, 3.0), judge, 0.5)


def opened(target: Target, free: int = 2) -> list[OpenPrompt]:
    """Prompts with one more free slot each."""
    found = [open_prompt(target.model, text, range(free + row)) for row, text in enumerate(TEXTS)]
    return [prompt for prompt in found if prompt]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("prefix", "x x art dog church dog art"),
        ("suffix", "art dog church dog art x x"),
        ("middle", "art dog x x church dog art"),
        ("insert", "art x dog x church dog art"),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_free_tokens_stand_where_they_would_if_typed(layout: Layout, position: Position, expected: str) -> None:
    model = tiny_model(layout)
    prompt = open_prompt(model, "art dog church dog art", positions(5, 2, position))
    assert prompt is not None
    x = torch.tensor(model.tokenizer("x x", add_special_tokens=False).input_ids)
    assert torch.equal(prompt.filled(x), model.token_ids([expected])[0])
    assert prompt.size == count_tokens(model, expected)
    found = read(model, prompt, x)
    assert found.text == expected
    assert found.ids == found.reread == tuple(model.tokenizer(expected).input_ids)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_one_free_token_before_every_few(every: int) -> None:
    for count in range(40):
        free = [place for place in range(count + count // every + 1) if place % (every + 1) == 0]
        assert before_every(count, every) == free
        assert len(free) == count // every + 1


def test_prompts_with_and_without_room() -> None:
    model = tiny_model()
    text = " ".join(["dog"] * 70)
    assert open_prompt(model, text, range(6)) is None
    prompt = open_prompt(model, text, range(5))
    assert prompt is not None
    assert (len(prompt.ids), prompt.size) == (77, 77)
    assert int(prompt.ids[-1]) == model.tokenizer.eos_token_id
    assert count_tokens(model, " ".join(["dog"] * 75)) == 77
    assert count_tokens(model, " ".join(["dog"] * 300)) == 78


def test_texts_are_read_again() -> None:
    model = tiny_model()
    prompt = open_prompt(model, "art", range(3))
    assert prompt is not None
    names = model.tokenizer.convert_tokens_to_ids(["churc", "h</w>", "dog</w>"])
    start, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    found = read(model, prompt, torch.tensor(names))
    assert found.text == "church dog art"
    assert found.ids == (start, *names, *model.tokenizer("art", add_special_tokens=False).input_ids, end)
    assert found.reread == tuple(model.tokenizer("church dog art").input_ids)
    assert len(found.reread) < len(found.ids)
    found = read(model, prompt, torch.tensor([end, names[2], start]))
    assert (found.text, found.reread) == ("dog art", tuple(model.tokenizer("dog art").input_ids))


def test_nearest_tokens_against_brute_force() -> None:
    rng = torch.Generator().manual_seed(0)
    table = torch.randn((50, 8), generator=rng, dtype=torch.float64) * torch.rand((50, 1), generator=rng).double()
    vectors = 10 * torch.randn((3, 4, 8), generator=rng, dtype=torch.float64)
    found = nearest_tokens(vectors, table / table.norm(dim=1, keepdim=True))
    for place in np.ndindex(3, 4):
        cosines = [float(vectors[place] @ row / vectors[place].norm() / row.norm()) for row in table]
        assert int(found[place]) == int(np.argmax(cosines))
    assert nearest_tokens(0.001 * table, table / table.norm(dim=1, keepdim=True)).tolist() == [*range(50)]


def simplex_tokens(target: Target, count: int = 2) -> SimplexTokens:
    return SimplexTokens(target.model, generators(target.prompts, 0, "test"), count, 0.01, 0.1)


def test_gradients_reach_probabilities_straight_through_the_draw() -> None:
    target = guided_target()
    tokens, table = simplex_tokens(target), vocabulary(target.model)
    rng = torch.Generator().manual_seed(0)
    gradient = 30 * torch.randn((4, table.shape[1]), generator=rng, dtype=torch.float64)
    hot = torch.eye(len(table), dtype=torch.float64)[[3, 1, 4, 1]].requires_grad_()
    ((hot @ table) * gradient).sum().backward()  # type: ignore[no-untyped-call]
    assert hot.grad is not None
    expected = torch.where(hot.grad.abs() > 1, hot.grad.sign(), hot.grad)
    assert 0 < (hot.grad.abs() > 1).sum() < hot.grad.numel()
    torch.testing.assert_close(tokens.pull(gradient), expected)


def test_a_step_on_the_simplex_is_adam_and_a_projection() -> None:
    target = guided_target()
    tokens, size = simplex_tokens(target), len(vocabulary(target.model))
    rng = torch.Generator().manual_seed(0)
    gradients = [torch.randn((2, 16), generator=rng, dtype=torch.float64) for _ in range(2)]
    before = [parameter.detach().clone() for parameter in tokens.parameters]
    torch.testing.assert_close(torch.stack(before), torch.full((3, 2, size), 1 / size, dtype=torch.float64))
    tokens.step([0, 2], gradients)
    for row, gradient in zip((0, 2), gradients, strict=True):
        # The first step of Adam is as long as the learning rate, whatever the gradient.
        slope = (gradient @ vocabulary(target.model).T).clamp(-1, 1) + 0.1 / size
        moved = 1 / size - 0.01 * slope / (slope.abs() + 1e-8)
        torch.testing.assert_close(tokens.parameters[row].detach(), project_on_simplex(moved))
    assert torch.equal(tokens.parameters[1], before[1])


def test_draws_follow_the_probabilities_and_the_best_is_the_likeliest() -> None:
    target = guided_target()
    tokens = simplex_tokens(target)
    with torch.no_grad():
        for parameter in tokens.parameters:
            parameter.zero_()
            parameter[:, 5], parameter[0, 7], parameter[1, 9] = 0.3, 0.7, 0.7
    drawn = torch.stack([torch.stack(tokens.draw([0, 1, 2])) for _ in range(400)])
    assert set(drawn[..., 0].flatten().tolist()) == {5, 7}
    assert set(drawn[..., 1].flatten().tolist()) == {5, 9}
    assert 0.6 < (drawn[..., 0] == 7).double().mean() < 0.8
    assert [best.tolist() for best in tokens.best([0, 2])] == [[7, 9], [7, 9]]


def test_a_step_of_nearest_tokens_moves_the_vectors_by_the_gradient_of_the_tokens() -> None:
    target = guided_target()
    rngs = generators(target.prompts, 0, "test")
    tokens = NearestTokens(target.model, rngs, [2, 3, 1], 0.1, 0.2, torch.optim.AdamW)
    table = vocabulary(target.model)
    first = [parameter.detach().clone() for parameter in tokens.parameters]
    assert all(torch.equal(table[ids], rows) for ids, rows in zip(tokens.draw([0, 1, 2]), first, strict=True))
    rng = torch.Generator().manual_seed(0)
    gradients = [torch.randn((count, 16), generator=rng, dtype=torch.float64) for count in (3, 1)]
    tokens.step([1, 2], gradients)
    for row, gradient in zip((1, 2), gradients, strict=True):
        expected = first[row] * (1 - 0.1 * 0.2) - 0.1 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(tokens.parameters[row].detach(), expected)
    assert torch.equal(tokens.parameters[0], first[0])


@pytest.mark.parametrize("sld", [False, True])
@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_gradients_are_those_of_the_free_slots(layout: Layout, sld: bool) -> None:
    target = guided_target(layout, sld)
    model, prompts = target.model, opened(target)
    rng = torch.Generator().manual_seed(0)
    x, wanted = (torch.randn((3, *model.latent_shape), generator=rng, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([10, 500, 900])
    tokens = [torch.randint(90, (len(prompt.slots),), generator=rng) for prompt in prompts]
    losses, gradients = compare(target, prompts, tokens, x, t, wanted)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters().values())

    def loss(row: int, vectors: Tensor) -> Tensor:
        prompt = prompts[row]
        text = model.embed_vectors(prompt.filled(tokens[row])[None], vectors, prompt.slots)
        with torch.no_grad():
            predicted = target.predict(x[[row]], t[[row]], text)
        return (predicted - wanted[[row]]).square().mean()

    for row in range(3):
        vectors = model.token_embeddings[tokens[row]].detach()
        torch.testing.assert_close(losses[row], loss(row, vectors))
        assert gradients[row].shape == vectors.shape
        direction = torch.randn(vectors.shape, generator=rng, dtype=torch.float64)
        slope = (loss(row, vectors + 1e-5 * direction) - loss(row, vectors - 1e-5 * direction)) / 2e-5
        torch.testing.assert_close((gradients[row] * direction).sum(), slope, rtol=1e-5, atol=1e-10)
        assert gradients[row].norm() > 1e-6


@pytest.mark.parametrize("sld", [False, True])
def test_prompts_of_a_batch_share_nothing(sld: bool) -> None:
    together, alone = guided_target(sld=sld), guided_target(sld=sld)
    rngs = [generators(target.prompts, 0, "noise") for target in (together, alone)]
    clean = torch.randn((3, *together.model.latent_shape), generator=torch.Generator().manual_seed(0)).double()
    times = torch.tensor([[10, 20, 30], [40, 50, 60]])
    one = prepare(together, [0, 1, 2], clean, times, rngs[0], embed_unerased(together))
    other = prepare(alone, [1], clean, times[:, 1:2], rngs[1], embed_unerased(alone))
    for name in ("latents", "timesteps", "targets"):
        torch.testing.assert_close(getattr(one, name)[:, 1:2], getattr(other, name))
    assert together.passes == [4, 4, 4] if sld else [2, 2, 2]
    assert alone.passes == [0, 4 if sld else 2, 0]
    trails = [[Trail() for _ in TEXTS] for _ in range(2)]
    tokens = [simplex_tokens(target) for target in (together, alone)]
    prompts = [prompt for text in TEXTS if (prompt := open_prompt(together.model, text, range(2)))]
    practise(together, [0, 1, 2], prompts, tokens[0], one, trails[0], lambda loss: None)
    practise(alone, [1], prompts[1:2], tokens[1], other, trails[1], lambda loss: None)
    torch.testing.assert_close(tokens[0].parameters[1], tokens[1].parameters[1])
    assert trails[0][1].losses == pytest.approx(trails[1][1].losses)
    assert trails[0][1].gradient == pytest.approx(trails[1][1].gradient)
    # With SLD, three passes for each of the student's.
    assert together.passes == ([10] * 3 if sld else [4] * 3)


def test_without_a_teacher_the_noise_is_wanted() -> None:
    target = guided_target()
    clean = torch.randn((3, *target.model.latent_shape), generator=torch.Generator().manual_seed(0)).double()
    lessons = prepare(target, [2, 0], clean, torch.tensor([[0, 999]]), generators(target.prompts, 0, "noise"), None)
    signal = target.model.alphas_cumprod[[0, 999]].view(-1, 1, 1, 1)
    expected = signal.sqrt() * clean[[2, 0]] + (1 - signal).sqrt() * lessons.targets[0]
    torch.testing.assert_close(lessons.latents[0], expected)
    assert 0.8 < lessons.targets.std() < 1.2
    assert target.passes == [0, 0, 0]


def test_the_unerased_model_predicts_in_batches_with_one_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    target = guided_target()
    name = "unet.conv_out.bias"
    target.undo = Erasure({name: target.model.parameters()[name] + 1})
    swaps, erased = [], target.model.erased

    def swap(erasure: Erasure) -> Any:
        swaps.append(erasure)
        return erased(erasure)

    monkeypatch.setattr(target.model, "erased", swap)
    x = torch.randn((5, *target.model.latent_shape), generator=torch.Generator().manual_seed(0)).double()
    t, text = torch.arange(5), target.model.embed(["dog", "art", "church", "a", "b"])
    whole = target.predict_unerased(x, t, text)
    target.model.batch_sizes.drawn.rows = 2
    torch.testing.assert_close(target.predict_unerased(x, t, text), whole)
    assert len(swaps) == 2
    torch.testing.assert_close(whole, target.predict(x, t, text) + 1)


def test_timesteps_are_spread() -> None:
    assert spread_timesteps(50, 1000) == [*range(10, 1000, 20)]
    assert spread_timesteps(4, 1000) == [125, 375, 625, 875]
    assert spread_timesteps(1000, 1000) == [*range(1000)]
    assert len(spread_timesteps(7, 1000)) == 7


def test_loss_curves_are_thinned_to_means() -> None:
    assert thinned([1.0, 2.0, 3.0], 5) == (1.0, 2.0, 3.0)
    assert thinned([1.0, 3.0, 5.0, 7.0, 100.0], 3) == (2.0, 6.0, 100.0)
    assert len(thinned([0.5] * 2000, 200)) == 200
    assert thinned([], 3) == ()


def test_a_diverging_search_is_an_error() -> None:
    trail = Trail()
    trail.add(1.0, 0.5)
    trail.add(2.0, 0.25)
    assert trail.gradient == 0.5
    with pytest.raises(FloatingPointError, match="step 3"):
        trail.add(float("nan"), 1.0)

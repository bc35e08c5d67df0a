"""What training loops share: figures, positions of words, adapters against W + up @ down, attention by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from erasebench.methods.training import Adapters, Trace, cross_attention_maps, token_positions
from erasebench.models.diffusion import DiffusionModel
from tests.tiny import LENGTH, Layout, differing, erase_context, state, tiny_model

LAYOUTS = get_args(Layout)
cached = functools.cache(tiny_model)


def predictions(model: DiffusionModel) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict_noise(x, torch.tensor([500, 20]), model.encode(["church", "a dog"]))


def value_layers(model: DiffusionModel) -> list[str]:
    return [name for name, _ in model.unet.named_modules() if name.endswith((".attn1.to_v", ".attn2.to_v"))]


def test_figures_are_kept_and_told() -> None:
    told: list[Mapping[str, float]] = []
    trace = Trace(erase_context(steps=told), 3, done=[{"step": 1.0, "loss": 9.0}])
    trace.step(loss=2.0, word="church")
    trace.step(loss=1.0)
    assert trace.rows == [
        {"step": 1.0, "loss": 9.0},
        {"step": 2.0, "loss": 2.0, "word": "church"},
        {"step": 3.0, "loss": 1.0},
    ]
    assert told == [{"done": 2, "total": 3, "loss": 2.0}, {"done": 3, "total": 3, "loss": 1.0}]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(loss: float) -> None:
    told: list[Mapping[str, float]] = []
    trace = Trace(erase_context(steps=told), 5)
    trace.step(loss=1.0)
    with pytest.raises(FloatingPointError, match="at step 2"):
        trace.step(loss=loss)
    assert len(told) == len(trace.rows) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("prompt", "phrase", "positions"),
    [
        # A word that the tiny vocabulary lacks is as many tokens as it has letters: "a photo of" is 1 + 5 + 2.
        ("a photo of church", "church", [9]),
        ("church art church", "church", [1, 3]),
        ("A CHURCH, art", "Church", [2]),
        ("a nudity", "nudity", [2, 3, 4, 5, 6, 7]),
        ("dog church dog", "church dog", [2, 3]),
        ("dog dog dog", "dog dog", [1, 2, 3]),
        ("churches", "church", []),
        ("ab", "b", [2]),
        ("dog", "church", []),
        ("dog", "", []),
        ("x" * (LENGTH - 3) + " church", "church", [LENGTH - 2]),
        ("x" * (LENGTH - 2) + " church", "church", []),
        ("x" * (LENGTH - 3) + " church dog", "church dog", []),
    ],
)
def test_positions_of_a_phrase(layout: Layout, prompt: str, phrase: str, positions: list[int]) -> None:
    model = cached(layout)
    assert token_positions(model, prompt, phrase) == positions
    # Whatever stands there, read back as words, is the phrase.
    ids = model.token_ids([prompt])[0, positions].tolist()
    assert set(model.tokenizer.decode(ids).split()) <= set(phrase.lower().split())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_adapters_add_up_times_down(layout: Layout) -> None:
    model, rng = tiny_model(layout), torch.Generator().manual_seed(3)
    before, plain, layers = state(model), predictions(model), value_layers(model)
    with Adapters(model.unet, layers, 2, seed=0) as adapters:
        assert torch.equal(predictions(model), plain)
        chosen = {
            name: (torch.randn(up.shape, generator=rng) / 4, torch.randn(down.shape, generator=rng))
            for name, (up, down) in adapters.factors().items()
        }
        adapters.load(chosen)
        adapted = predictions(model)
        with adapters.off():
            assert torch.equal(predictions(model), plain)
        assert torch.equal(predictions(model), adapted)
    assert not differing(before, state(model))
    assert torch.equal(predictions(model), plain)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    modules = dict(model.unet.named_modules())
    assert set(chosen) == set(layers)
    with torch.no_grad():
        for name, (up, down) in chosen.items():
            assert (up.shape, down.shape) == ((modules[name].out_features, 2), (2, modules[name].in_features))
            for row in range(len(up)):
                for column in range(down.shape[1]):
                    modules[name].weight[row, column] += sum(up[row, k] * down[k, column] for k in range(2))
    torch.testing.assert_close(predictions(model), adapted, rtol=1e-4, atol=1e-5)


def test_factors_come_back_as_they_were_loaded_and_are_copies() -> None:
    model = tiny_model()
    with Adapters(model.unet, value_layers(model), 3, seed=0) as adapters:
        first = adapters.factors()
        assert all(not up.any() and down.any() for up, down in first.values())
        wanted = {name: (up + 1, down * 2) for name, (up, down) in first.items()}
        adapters.load(wanted)
        found = adapters.factors()
        assert all(not up.any() for up, _ in first.values())
    assert all(torch.equal(a, b) for name in wanted for a, b in zip(wanted[name], found[name], strict=True))


def test_only_the_adapters_are_trained() -> None:
    model = tiny_model()
    before = state(model)
    with Adapters(model.unet, value_layers(model), 2, seed=0) as adapters:
        x, text = torch.randn(1, 4, 8, 8), model.encode(["church"])
        adam = torch.optim.Adam(adapters.parameters, lr=1e-2)
        model.predict_noise(x, torch.tensor([5]), text).sum().backward()  # type: ignore[no-untyped-call]
        with_gradient = {id(p) for p in model.unet.parameters() if p.grad is not None}
        assert with_gradient == {id(p) for p in adapters.parameters}
        adam.step()
        assert any(up.any() for up, _ in adapters.factors().values())
        with adapters.off():
            assert not model.predict_noise(x, torch.tensor([5]), text).requires_grad
    assert not differing(before, state(model))
    assert not any(parameter.requires_grad for parameter in model.parameters().values())


def test_the_seed_decides_the_first_factors_and_nothing_else_notices() -> None:
    model = tiny_model()

    def down(seed: int, gaussian: bool = False) -> Tensor:
        with Adapters(model.unet, value_layers(model), 2, seed, gaussian) as adapters:
            return torch.cat([down.flatten() for _, down in adapters.factors().values()])

    random = torch.random.get_rng_state()
    assert torch.equal(down(1), down(1))
    assert not torch.equal(down(1), down(2))
    assert not torch.equal(down(1), down(1, gaussian=True))
    assert torch.equal(torch.random.get_rng_state(), random)
    # Kaiming's uniform distribution with a = sqrt(5) lies within 1 / sqrt(inputs); the normal one has rank^-1.
    assert down(1).abs().max() <= 1 / math.sqrt(8)
    assert float(down(1, gaussian=True).std()) == pytest.approx(0.5, rel=0.2)


def test_adapters_leave_the_network_after_an_error() -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(KeyboardInterrupt), Adapters(model.unet, value_layers(model), 2, seed=0):
        raise KeyboardInterrupt
    assert not differing(before, state(model))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_are_the_softmax_by_hand_and_the_output_is_the_same(layout: Layout) -> None:
    model, rng = tiny_model(layout), torch.Generator().manual_seed(0)
    x, text = torch.randn((2, 4, 8, 8), generator=rng), model.encode(["church", "a dog"])
    layers: list[Any] = [module for name, module in model.unet.named_modules() if name.endswith(".attn2")]
    processors = [layer.processor for layer in layers]
    queries: list[Tensor] = []
    hooks = [layer.to_q.register_forward_hook(lambda _, __, output: queries.append(output)) for layer in layers]
    with torch.no_grad():
        plain = model.predict(x, 300, text)
        queries.clear()
        with cross_attention_maps(model.unet) as maps:
            recorded = model.predict(x, 300, text)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-5)
    assert [layer.processor for layer in layers] == processors
    # One down block and, with one layer more, two layers of the last up block, beside the middle; in this order.
    order = sorted(range(len(layers)), key=lambda k: ("down", "mid", "up").index(names(model)[k].split("_")[0]))
    assert len(maps) == len(layers) == 4
    for found, query, place in zip(maps, queries, order, strict=True):
        layer = layers[place]
        for picture in range(2):
            key = layer.to_k(text[picture])
            size = key.shape[1] // layer.heads
            for head in range(layer.heads):
                part = slice(head * size, (head + 1) * size)
                scores = query[picture, :, part] @ key[:, part].T / math.sqrt(size)
                wanted = scores.exp() / scores.exp().sum(-1, keepdim=True)
                torch.testing.assert_close(found[picture, head], wanted, rtol=1e-4, atol=1e-6)


def names(model: DiffusionModel) -> list[str]:
    return [name for name, _ in model.unet.named_modules() if name.endswith(".attn2")]


def test_maps_have_gradients_and_end_with_an_error() -> None:
    model = tiny_model()
    layers: list[Any] = [module for name, module in model.unet.named_modules() if name.endswith(".attn2")]
    processors = [layer.processor for layer in layers]
    text = model.encode(["church"]).requires_grad_()
    with pytest.raises(KeyboardInterrupt), cross_attention_maps(model.unet) as maps:
        model.predict(torch.randn(1, 4, 8, 8), 300, text)
        (gradient,) = torch.autograd.grad(sum(m[..., 1].sum() for m in maps), text)
        assert gradient.any()
        raise KeyboardInterrupt
    assert [layer.processor for layer in layers] == processors

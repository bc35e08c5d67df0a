"""Adapters against W + up @ down, and networks that they leave as they were."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from erasebench.models.diffusion import DiffusionModel
from erasebench.training.adapters import Adapters
from tests.tiny import Layout, differing, state, tiny_model

LAYOUTS = get_args(Layout)


def predictions(model: DiffusionModel) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict_noise(x, torch.tensor([500, 20]), model.embed(["church", "a dog"]))


def value_layers(model: DiffusionModel) -> list[str]:
    return [name for name, _ in model.unet.named_modules() if name.endswith((".attn1.to_v", ".attn2.to_v"))]


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
        x, text = torch.randn(1, 4, 8, 8), model.embed(["church"])
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

"""Maps of attention against the softmax by hand."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.training.attention import cross_attention_maps
from tests.tiny import Layout, tiny_model

LAYOUTS = get_args(Layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_are_the_softmax_by_hand_and_the_output_is_the_same(layout: Layout) -> None:
    model, rng = tiny_model(layout), torch.Generator().manual_seed(0)
    x, text = torch.randn((2, 4, 8, 8), generator=rng), model.embed(["church", "a dog"])
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
            key = layer.to_k(text.embeddings[picture])
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
    text = model.embed(["church"]).embeddings.requires_grad_()
    with pytest.raises(KeyboardInterrupt), cross_attention_maps(model.unet) as maps:
        model.predict(torch.randn(1, 4, 8, 8), 300, Conditioning(text))
        (gradient,) = torch.autograd.grad(torch.stack([m[..., 1].sum() for m in maps]).sum(), text)
        assert gradient.any()
        raise KeyboardInterrupt
    assert [layer.processor for layer in layers] == processors

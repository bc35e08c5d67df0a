"""Maps of cross-attention, with their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def cross_attention_maps(unet: nn.Module) -> Iterator[list[Tensor]]:
    """Record the cross-attention of every forward pass inside the block.

    Yields:
        A list that grows by one tensor a layer and pass: attention probabilities ``[n, heads, pixels, tokens]``, with
        their gradients.  Clear it between passes.
    """
    maps: list[Tensor] = []
    layers: list[Any] = [module for name, module in unet.named_modules() if name.endswith(".attn2")]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(_Recorder(maps))
        yield maps
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


class _Recorder:
    """Attention as diffusers computes it without fused kernels, which never form the probabilities."""

    def __init__(self, maps: list[Tensor]) -> None:
        self._maps = maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self._maps.append(probabilities.unflatten(0, (len(hidden_states), attn.heads)))
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        result: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return result


def attention_loss(maps: Sequence[Tensor], masks: Tensor, tokens: Tensor, squared: bool) -> Tensor:
    """Attention to some tokens, where images show the concept (MACE, Lu et al. 2024, eq. 3), mean over the images.

    Args:
        maps: of each layer, attention probabilities ``[n, heads, pixels, length]``.
        masks: ``[n, height, width]`` of square images, 0 or 1; resized to each layer by nearest neighbours.
        tokens: bool ``[n, length]``.
        squared: sum squared Frobenius norms over the layers, instead of norms.
    """
    total = torch.zeros(len(masks), device=masks.device)
    for attention in maps:
        side = math.isqrt(attention.shape[2])
        inside = functional.interpolate(masks[:, None], size=(side, side), mode="nearest") > 0.5
        chosen = attention.float() * inside.view(-1, 1, side * side, 1) * tokens[:, None, None]
        norms = torch.linalg.vector_norm(chosen, dim=(1, 2, 3))
        total = total + (norms.square() if squared else norms)
    return total.mean()

"""The U-Net that images are sampled with on a GPU: a copy, made for passes without gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from erasebench.models.recordings import MAX_RECORDED_ROWS, Build, Recording, Recordings, predict_flat
from erasebench.models.shared_passes import share_latents


class SamplingUnet:
    """A copy of a U-Net, in the precision that it computes in.

    Under autocast a pass casts all weights and works in float32 in between; the copy's weights are cast once for each
    batch of images.  Of few rows, a pass is recorded as a CUDA graph and replayed; of more, it is compiled where that
    is asked for, one graph for each shape, and weights are swapped into it in place.  All rows share one timestep, and
    what stands before the first cross-attention is computed once for all texts, as in
    :mod:`~erasebench.models.shared_passes`.

    Args:
        unet: a ``UNet2DConditionModel`` of diffusers, as it was loaded.
        dtype: of the copy.
        backend: of ``torch.compile``; nothing is compiled if None.
    """

    def __init__(self, unet: nn.Module, dtype: torch.dtype, backend: str | None = None) -> None:
        # What inference mode makes cannot be written to outside of it.
        with torch.inference_mode(False):
            # What is compiled keeps channels last, as cuDNN wants them; the norms of eager mode do not.
            memo: dict[int, Any] = {id(own): _cast(own, dtype, last=backend is not None) for own in unet.parameters()}
            self._unet: nn.Module = deepcopy(unet, memo)
        self._dtype = dtype
        share_latents(self._unet, ExitStack())  # for good
        self._attention = Build.of(unet).attention
        self._many: Any = torch.compile(self._unet, backend=backend, dynamic=False) if backend else self._unet
        self._recordings = Recordings()

    @torch.no_grad()
    def refresh(self, unet: nn.Module) -> bool:
        """Take over the weights of a U-Net with what adapters change in them, if it is otherwise built as the copy is.

        Returns:
            Whether it is: hooks may do anything, and so may layers and processors of attention that others put there.
        """
        weights, mine, build = merged_weights(unet), dict(self._unet.named_parameters()), Build.of(unet)
        if list(weights) != list(mine) or build.hooked or build.attention != self._attention:
            return False
        for name, weight in weights.items():
            mine[name].copy_(weight)
        return True

    @torch.no_grad()
    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor | int | float,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Predict for latents ``[n, c, h, w]`` with text ``[k n, length, width]``, as diffusers' U-Nets do.

        Returns:
            ``[k n, c, h, w]``, in the copy's precision.
        """
        added = dict(added_cond_kwargs or {})
        latents, text, *more = (tensor.to(self._dtype) for tensor in (latents, encoder_hidden_states, *added.values()))
        inputs = [latents, torch.as_tensor(timestep).to(latents.device), text, *more]

        few = len(text) <= MAX_RECORDED_ROWS
        unet = self._unet if few else self._many

        def predict(*inputs: Tensor) -> Tensor:
            # The U-Net is in one precision already.
            with torch.autocast(latents.device.type, enabled=False):
                return predict_flat(unet, added, *inputs)

        return (self._recorded(predict, inputs) if few and latents.is_cuda else predict(*inputs),)

    def _recorded(self, predict: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        key = tuple((tensor.dtype, tensor.shape) for tensor in inputs)
        recording = self._recordings.get(key, lambda: Recording(predict, inputs))
        return recording.replay(inputs) if recording else predict(*inputs)


def merged_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network by the names that they have without adapters, with what peft's adapters add to them."""
    adapters = {name: layer for name, layer in network.named_modules() if hasattr(layer, "get_delta_weight")}
    own = tuple(f"{name}.{half}" for name in adapters for half in ("lora_A", "lora_B"))
    weights: dict[str, Tensor] = {
        name.replace(".base_layer.", "."): weight
        for name, weight in network.named_parameters()
        if not name.startswith(own)
    }
    for name, layer in adapters.items():
        for adapter in () if layer.disable_adapters else layer.active_adapters:
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + layer.get_delta_weight(adapter)
    return weights


def _cast(own: nn.Parameter, dtype: torch.dtype, *, last: bool) -> nn.Parameter:
    layout = torch.channels_last if last and own.ndim == 4 else torch.preserve_format
    return nn.Parameter(own.detach().to(dtype, memory_format=layout, copy=True), requires_grad=False)

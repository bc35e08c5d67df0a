"""Low-rank adapters that are trained in place of the weights that they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Location = Literal["value", "key", "query", "out"]

PROJECTIONS: Mapping[Location, str] = {"value": "to_v", "key": "to_k", "query": "to_q", "out": "to_out.0"}
"""The names of the projections of an attention module."""


class Adapters:
    """LoRA adapters (Hu et al. 2021) on linear layers, through peft.

    Inside ``with Adapters(...) as adapters:`` the layers have them; afterwards the network is as it was, bit for bit.
    At first they change nothing: ``down`` is random, ``up`` is zero.

    Args:
        network: whose layers.
        layers: their full names, such as ``mid_block.attentions.0.transformer_blocks.0.attn2.to_v``.
        rank: of the change.
        seed: of ``down``.
        gaussian: draw ``down`` from N(0, 1 / rank^2) (peft's "gaussian") instead of Kaiming's uniform distribution.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], rank: int, seed: int, gaussian: bool = False) -> None:
        self._network, self._layers, self._rank = network, list(layers), rank
        self._seed, self._gaussian = seed, gaussian

    def __enter__(self) -> Adapters:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        config = LoraConfig(
            r=self._rank,
            lora_alpha=self._rank,
            target_modules=self._layers,
            init_lora_weights="gaussian" if self._gaussian else True,
        )
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which seeds GPUs as well.
            torch.default_generator.manual_seed(self._seed)
            self._tuner: Any = LoraModel(self._network, config, "default")
        modules = dict(self._network.named_modules())
        self._modules: dict[str, Any] = {name: modules[name] for name in self._layers}
        return self

    def __exit__(self, *_: object) -> None:
        self._tuner.unload()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained: of each layer, ``down`` and ``up``."""
        return [half for down, up in self._halves().values() for half in (down, up)]

    @contextmanager
    def off(self) -> Iterator[None]:
        """The network without the adapters, and without gradients."""
        self._tuner.disable_adapter_layers()
        try:
            with torch.no_grad():
                yield
        finally:
            self._tuner.enable_adapter_layers()

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The change of each layer: its name -> (up ``[out, rank]``, down ``[rank, in]``), copied."""
        return {name: (up.detach().clone(), down.detach().clone()) for name, (down, up) in self._halves().items()}

    def load(self, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take over what :meth:`factors` gave."""
        with torch.no_grad():
            for name, (down, up) in self._halves().items():
                up.copy_(factors[name][0])
                down.copy_(factors[name][1])

    def _halves(self) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
        return {
            name: (module.lora_A["default"].weight, module.lora_B["default"].weight)
            for name, module in self._modules.items()
        }


def adapted_layers(unet: nn.Module, location: Location) -> list[str]:
    """The projections of one kind in all attention modules of a U-Net, self and cross."""
    ends = tuple(f".{module}.{PROJECTIONS[location]}" for module in ("attn1", "attn2"))
    return [name for name, _ in unet.named_modules() if name.endswith(ends)]

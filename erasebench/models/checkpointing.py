"""Gradient checkpointing (Chen et al. 2016): a U-Net that keeps less for its backward pass and computes it again.

The numbers are the same, on a CPU bit for bit: what is computed again is computed in the same way, from the weights
that were in force the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from erasebench.memory import USABLE_SHARE, free_memory

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel

Mode = Literal["auto", "on", "off"]
"""``auto``: where what a backward pass needs would not fit into the memory that is free."""
STATES = 3
"""Copies of each trained number that training adds: its gradient, and the two moments that Adam keeps."""


@dataclass
class GradientCheckpointing:
    """The conditions under which a U-Net is checkpointed.

    Attributes:
        mode: as the user wants it.
        row: bytes that the backward pass of one row of latents needs kept; ``fixed`` those of any number.  Where they
            are not known, ``auto`` means off.
        gigabytes: of the GPU that this process may have; the whole card if None.
        used: whether it was on at any time.
    """

    mode: Mode = "off"
    row: float | None = None
    fixed: float = 0.0
    gigabytes: float | None = None
    used: bool = False
    _decided: dict[int, bool] = field(default_factory=dict)

    @classmethod
    def measured(cls, model: DiffusionModel, gigabytes: float | None = None) -> GradientCheckpointing:
        """The mode ``auto``, with what the backward pass of one and of two rows needs kept on a GPU.

        It is counted as if the whole U-Net were trained: less of it needs less.
        """
        shape = model.latent_shape

        def backward_size(rows: int) -> int:
            latents = torch.zeros(rows, *shape, device=model.device)
            with torch.no_grad():
                text = model.embed([""] * rows)
            before = torch.cuda.memory_allocated(model.device)
            with torch.enable_grad():
                predicted = model.predict(latents, 0, text)
                size = torch.cuda.memory_allocated(model.device) - before
            del predicted
            return size

        model.unet.requires_grad_(True)
        try:
            one = backward_size(1)
            row = backward_size(2) - one
        except torch.OutOfMemoryError:
            return cls("on", gigabytes=gigabytes)
        finally:
            model.unet.requires_grad_(False)
        return cls("auto", row, one - row, gigabytes)

    @contextmanager
    def of(self, model: DiffusionModel) -> Iterator[None]:
        """Decide of a model's passes until the block ends."""
        before, model.checkpointing = model.checkpointing, self
        try:
            yield
        finally:
            model.checkpointing = before
            if self.used:
                model.unet.disable_gradient_checkpointing()

    def apply(self, unet: Any, latents: Tensor, text: Tensor) -> None:
        """Switch it on or off for a pass of latents ``[n, c, h, w]`` and text ``[n, length, width]``, if it trains."""
        if self.mode == "off" or not torch.is_grad_enabled():
            return
        if not any(tensor.requires_grad for tensor in (latents, text, *unet.parameters())):
            return
        rows = len(text)
        if rows not in self._decided:
            self._decided[rows] = self.mode == "on" or (self.mode == "auto" and self._too_much(unet, rows))
        decision, on = self._decided[rows], unet.is_gradient_checkpointing
        if decision and not on:
            unet.enable_gradient_checkpointing(checkpoint_as_it_is)
        elif on and not decision:
            unet.disable_gradient_checkpointing()
        self.used = self.used or decision

    def _too_much(self, unet: nn.Module, rows: int) -> bool:
        if self.row is None:
            return False
        parameter = next(unet.parameters())
        trained = sum(p.numel() * p.element_size() for p in unet.parameters() if p.requires_grad)
        needed = self.fixed + rows * self.row + STATES * trained
        return needed > USABLE_SHARE * free_memory(parameter.device, self.gigabytes)


def checkpoint_as_it_is(module: nn.Module, *inputs: Any) -> Any:
    """Call a module, and keep for the backward pass only what it is given and which weights it has now.

    Methods swap weights within a training step: when the backward pass comes, others may be in force.
    """
    values = [(parameter, parameter.data) for parameter in module.parameters()]

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _Holding(values)

    # There is no dropout whose random numbers would have to be drawn again.
    return checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


class _Holding:
    """Parameters with values that they had before, as often as a backward pass comes."""

    def __init__(self, values: list[tuple[nn.Parameter, Tensor]]) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._before = [parameter.data for parameter, _ in self._values]
        for parameter, value in self._values:
            parameter.data = value

    def __exit__(self, *_: object) -> None:
        for (parameter, _value), value in zip(self._values, self._before, strict=True):
            parameter.data = value

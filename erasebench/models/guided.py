"""Predictions through a guidance rule: the one place where a rule meets a model."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from erasebench.models.conditioning import Conditioning

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel


class GuidedPrediction:
    """The guided predictions of one batch; it keeps what its rule remembers from step to step.

    Args:
        model: with the rule in force.
        conditioning: of ``n`` prompts.
        guidance_scale: of classifier-free guidance, or of the rule that an erasure brings.
        texts: conditioning of the rule's own texts, one row each; embedded here if omitted.
        apart: call the U-Net once for each text, not once for all of one length; that differs by rounding.
        shared: the model is :meth:`~erasebench.models.diffusion.DiffusionModel.sampling`, and repeats latents itself.
    """

    def __init__(
        self,
        model: DiffusionModel,
        conditioning: Conditioning,
        guidance_scale: float,
        texts: Conditioning | None = None,
        apart: bool = False,
        shared: bool = False,
    ) -> None:
        rule = model.guidance
        self._model, self._count, self._scale, self._shared = model, len(conditioning), guidance_scale, shared
        self._combine = rule.start()
        others = model.embed_negative(rule.texts) if texts is None else texts
        parts = [*(other.expand(len(conditioning)) for other in others), conditioning]
        self._parts = parts if apart else join_lengths(parts)

    def __call__(self, latents: Tensor, timesteps: Tensor | int | float, step: int = 0) -> Tensor:
        """Predict noise (or v) for latents, with gradients to them and to the conditioning.

        Args:
            latents: ``[n, c, h, w]``.
            timesteps: one for all, or ``[n]``.
            step: of the sampling run, from 0; rules may do nothing in the first ones.

        Returns:
            What the model predicts, combined by the rule: ``[n, c, h, w]``.
        """
        predicted: list[Tensor] = []
        for part in self._parts:
            copies = 1 if self._shared else len(part) // self._count
            times = timesteps.repeat(copies) if isinstance(timesteps, Tensor) and timesteps.ndim else timesteps
            predicted += self._model.predict(torch.cat([latents] * copies), times, part).chunk(len(part) // self._count)
        *others, prompts = predicted
        return self._combine(step, prompts, others, self._scale)


def join_lengths(parts: Iterable[Conditioning]) -> list[Conditioning]:
    """Put together neighbours that have as many tokens: one batch, and one call of the U-Net, for each length."""
    return [Conditioning.cat([*group]) for _, group in groupby(parts, lambda part: part.length)]

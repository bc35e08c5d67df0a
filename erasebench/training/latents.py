"""Latents to train on: drawn by the model, and made noisy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erasebench.models.diffusion import DiffusionModel
from erasebench.sampling import Sampler, draw_latents


def noisy(
    model: DiffusionModel, latents: Tensor, rng: torch.Generator, t: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``x_t`` of latents ``[n, c, h, w]``, ``t`` ``[n]``, uniform over all timesteps if omitted, and the noise."""
    if t is None:
        t = torch.randint(model.timestep_count, (len(latents),), generator=rng).to(model.device)
    noise = torch.randn(latents.shape, generator=rng).to(model.device)
    return model.add_noise(latents, noise, t), t, noise


def training_latents(model: DiffusionModel, prompts: Sequence[str], sampler: Sampler, rng: torch.Generator) -> Tensor:
    """The model's own images to train on, with seeds from a generator: latents ``[n, c, h, w]``."""
    seeds: list[int] = torch.randint(2**31, (len(prompts),), generator=rng).tolist()
    return torch.cat(list(draw_latents(model, prompts, seeds, sampler)))

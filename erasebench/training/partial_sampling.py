"""Latents that are still noisy, from sampling runs that are left at a random step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.sampling import Sampler, sample_latents

TimestepMode = Literal["consistent", "official"]
"""``consistent``: the model is told the noise level of the latents.  ``official``: as in ESD's code of 2023, which
never runs the first sampling step and tells the model a noise level 39 to 58 timesteps (with 50 sampling steps) above
that of the latents."""


@dataclass(frozen=True)
class CutSampling:
    """A sampling run that is left at a random step, with latents that are still noisy.

    Attributes:
        sampler: whose run.
        noise: where it starts from: standard normal ``[n, c, h, w]``.
        timesteps: what the model is told of the noise that is left, int64 ``[n]``.
        slots: the first timestep of the slot that each of ``timesteps`` is drawn from, int64 ``[n]``: in the
            "consistent" mode these themselves.
        start: steps that are skipped.
        stop: the step before which it is left.
    """

    sampler: Sampler
    noise: Tensor
    timesteps: Tensor
    slots: Tensor
    start: int
    stop: int

    @classmethod
    def draw(
        cls, model: DiffusionModel, sampler: Sampler, count: int, rng: torch.Generator, mode: TimestepMode
    ) -> CutSampling:
        """Draw a run of ``count`` images, which share the step."""
        scheduler = model.scheduler(sampler.name)
        scheduler.set_timesteps(sampler.steps)
        k = int(torch.randint(sampler.steps, (), generator=rng))
        start, stop, t = 0, k, scheduler.timesteps[k].expand(count)
        slots = t
        if mode == "official":
            # Slot k counts from the clean end.  The first step is missing, so k = 0 and k = 1 both run all others.
            width = scheduler.config.num_train_timesteps / sampler.steps
            start, stop = 1, sampler.steps + 1 - max(k, 1)
            t = torch.randint(int(k * width), int((k + 1) * width), (count,), generator=rng)
            slots = scheduler.timesteps[sampler.steps - 1 - k].expand(count)
        noise = torch.randn((count, *sampler.latent_shape(model)), generator=rng).to(model.device)
        return cls(sampler, noise, t.to(model.device), slots.to(model.device), start, stop)

    @torch.no_grad()
    def latents(self, model: DiffusionModel, blank: Conditioning, prompts: Conditioning) -> Tensor:
        """Run for prompts, with classifier-free guidance against the blank one.

        Args:
            model: which draws.
            blank: no condition at all, as rules of guidance embed it: one row.
            prompts: ``k n`` of them; each n start from the same noise.

        Returns:
            ``x_t [k n, c, h, w]``.
        """
        noise = self.noise.repeat(len(prompts) // len(self.noise), 1, 1, 1)
        return sample_latents(model, noise, prompts, self.sampler, self.start, self.stop, texts=blank)

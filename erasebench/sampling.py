"""Guided sampling, batched across prompts, with one generator for each picture.

A picture depends on its own prompt, the prompt's id and its seed only: not on the batch that it is made in, its place
there, or what else is made.  Its starting noise is exactly the same on every device; the rest differs by rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasebench.errors import EraseBenchError, check_name
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.guided import GuidedPrediction
from erasebench.models.schedulers import SCHEDULERS


@dataclass(frozen=True)
class Sampler:
    """How pictures are sampled: everything here can change their bytes.

    Attributes:
        name: one of :data:`~erasebench.models.schedulers.SCHEDULERS`.
        steps: sampling steps.
        guidance_scale: of classifier-free guidance, or of the rule that an erasure brings.
        size: pixels along a side; the model's own if None.
    """

    name: str = "ddim"
    steps: int = 50
    guidance_scale: float = 7.5
    size: int | None = None

    def __post_init__(self) -> None:
        check_name("sampler", self.name, SCHEDULERS)
        if self.steps < 1:
            raise EraseBenchError(f"steps must be at least 1, not {self.steps}")
        if self.size is not None and self.size < 8:
            raise EraseBenchError(f"size must be at least 8 pixels, not {self.size}")

    def latent_shape(self, model: DiffusionModel) -> tuple[int, int, int]:
        """Channels, height and width of the latents.

        Raises:
            EraseBenchError: the size is no multiple of what the model can draw.
        """
        channels, height, width = model.latent_shape
        if self.size is None:
            return channels, height, width
        if self.size % model.size_multiple:
            raise EraseBenchError(f"size must be a multiple of {model.size_multiple} for this model, not {self.size}")
        return channels, self.size // model.scale_factor, self.size // model.scale_factor


def noise_seed(id: str, seed: int) -> int:
    """The number that a picture's generator starts from: 56 bits of the SHA-256 of its seed and its prompt's id."""
    return int.from_bytes(hashlib.sha256(f"{seed} {id}".encode()).digest()[:7], "big")


def starting_noise(ids: Sequence[str], seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal noise ``[n, c, h, w]``, float32, on the CPU, so that every device starts from the same."""
    return torch.stack(
        [
            torch.randn(shape, generator=torch.Generator("cpu").manual_seed(noise_seed(id, seed)))
            for id, seed in zip(ids, seeds, strict=True)
        ]
    )


@torch.inference_mode()
def sample(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
    ids: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Draw one picture for each prompt and seed.

    Args:
        model: with whatever erasure is in force.
        prompts: what to draw.
        seeds: one for each prompt.
        sampler: how.
        batch_size: pictures at a time; changes nothing but speed and memory.
        progress: told how many pictures a finished batch held.
        ids: of the prompts, which their noise is keyed by; the prompts themselves if omitted.

    Returns:
        uint8 ``[n, height, width, 3]``.
    """
    pictures = []
    for drawn in draw(model, prompts, seeds, sampler, batch_size, ids):
        pictures.append(drawn)
        if progress:
            progress(len(drawn))
    if not pictures:
        sides = sampler.latent_shape(model)[1:]
        return np.zeros((0, *(side * model.scale_factor for side in sides), 3), dtype=np.uint8)
    return np.concatenate(pictures)


@torch.inference_mode()
def draw(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int = 16,
    ids: Sequence[str] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The pictures of :func:`sample`, each batch as it is drawn: uint8 ``[<= batch_size, height, width, 3]``."""
    for latents in draw_latents(model, prompts, seeds, sampler, batch_size, ids):
        yield model.decode(latents)


@torch.no_grad()
def draw_latents(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int = 16,
    ids: Sequence[str] | None = None,
) -> Iterator[Tensor]:
    """The pictures of :func:`sample` as scaled latents: one batch ``[<= batch_size, c, h, w]`` after the other."""
    shape = sampler.latent_shape(model)
    texts = model.embed_negative(model.guidance.texts)
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        keys = batch if ids is None else ids[start : start + batch_size]
        noise = starting_noise(keys, seeds[start : start + batch_size], shape).to(model.device)
        # What is compiled is compiled for one size: a batch that is short of it repeats its last picture.
        short = batch_size - len(batch) if model.is_compiled else 0
        rows = [*range(len(batch)), *[len(batch) - 1] * short]
        conditioning = model.embed(batch)[rows] if short else model.embed(batch)
        yield sample_latents(model, noise[rows], conditioning, sampler, texts=texts)[: len(batch)]


def sample_latents(
    model: DiffusionModel,
    noise: Tensor,
    conditioning: Conditioning,
    sampler: Sampler,
    start: int = 0,
    stop: int | None = None,
    texts: Conditioning | None = None,
    apart: bool = False,
) -> Tensor:
    """Denoise latents.

    Args:
        model: with its guidance rule.
        noise: standard normal ``[n, c, h, w]``.
        conditioning: of ``n`` prompts.
        sampler: how.
        start: skip so many steps; the noise enters at the next one.
        stop: leave before the step of this index, with latents that are still noisy.
        texts: conditioning of the guidance rule's own texts, one row each; embedded here if omitted.
        apart: call the U-Net once for each text, not once for all of one length; that differs by rounding.

    Returns:
        Scaled latents ``[n, c, h, w]``.
    """
    scheduler = model.scheduler(sampler.name)
    scheduler.set_timesteps(sampler.steps, device=model.device)
    latents: Tensor = noise * scheduler.init_noise_sigma
    with model.sampling() as shared:
        predict = GuidedPrediction(model, conditioning, sampler.guidance_scale, texts, apart, shared)
        for step, timestep in enumerate(scheduler.timesteps[start:stop], start):
            guided = predict(scheduler.scale_model_input(latents, timestep), timestep, step)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents

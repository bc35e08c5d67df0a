"""Guided sampling, batched across prompts, with one generator for each image.

An image depends on its own prompt, the prompt's id and its seed only: not on the batch that it is made in, its place
there, or what else is made.  Its starting noise is exactly the same on every device; the rest differs by rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasebench.errors import EraseBenchError, check_name
from erasebench.memory import DECODED_AT_ONCE, BatchSize, free_memory, largest_batch, peak_bytes
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.guided import GuidedPrediction
from erasebench.models.recordings import MAX_RECORDED_ROWS
from erasebench.models.schedulers import SCHEDULERS


@dataclass(frozen=True)
class Sampler:
    """The sampling of images: everything here can change their bytes.

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
    """The number that an image's generator starts from: 56 bits of the SHA-256 of its seed and its prompt's id."""
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
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    ids: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Draw one image for each prompt and seed.

    Args:
        model: with whatever erasure is in force.
        prompts: what to draw.
        seeds: one for each prompt.
        sampler: how.
        batch_size: images at a time, at most: half as many wherever memory runs out; the model's own if omitted.  It
            changes nothing but speed and memory.
        progress: told how many images a finished batch held.
        ids: of the prompts, which their noise is keyed by; the prompts themselves if omitted.

    Returns:
        uint8 ``[n, height, width, 3]``.
    """
    images = []
    for drawn in draw(model, prompts, seeds, sampler, batch_size, ids):
        images.append(drawn)
        if progress:
            progress(len(drawn))
    if not images:
        sides = sampler.latent_shape(model)[1:]
        return np.zeros((0, *(side * model.scale_factor for side in sides), 3), dtype=np.uint8)
    return np.concatenate(images)


@torch.inference_mode()
def draw(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int | None = None,
    ids: Sequence[str] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The images of :func:`sample`, each batch as it is drawn: uint8 ``[<= batch_size, height, width, 3]``."""
    for latents in draw_latents(model, prompts, seeds, sampler, batch_size, ids):
        yield model.decode(latents)


@torch.no_grad()
def draw_latents(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int | None = None,
    ids: Sequence[str] | None = None,
) -> Iterator[Tensor]:
    """The images of :func:`sample` as scaled latents: one batch ``[<= batch_size, c, h, w]`` after the other."""
    shape = sampler.latent_shape(model)
    texts = model.embed_negative(model.guidance.texts)
    keys, size = prompts if ids is None else ids, BatchSize(batch_size) if batch_size else model.batch_sizes.drawn

    def draw_batch(part: slice) -> Tensor:
        noise = starting_noise(keys[part], seeds[part], shape).to(model.device)
        return sample_latents(model, noise, model.embed(prompts[part]), sampler, texts=texts)

    yield from size.batches(len(prompts), draw_batch)


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
    # On the CPU, where schedulers have their tables: from a GPU, each of their steps would wait to read them.
    scheduler.set_timesteps(sampler.steps)
    count, full = len(noise), model.batch_sizes.drawn.rows or 0
    if model.is_compiled and count * (1 + len(model.guidance.texts)) > MAX_RECORDED_ROWS and count < full:
        # Passes are compiled for one size: a batch that is short of it repeats its last image.
        rows = [*range(count), *[count - 1] * (full - count)]
        noise, conditioning = noise[rows], conditioning[rows]
    latents: Tensor = noise * scheduler.init_noise_sigma
    with model.sampling() as shared:
        predict = GuidedPrediction(model, conditioning, sampler.guidance_scale, texts, apart, shared)
        for step, timestep in enumerate(scheduler.timesteps[start:stop], start):
            guided = predict(scheduler.scale_model_input(latents, timestep), timestep, step)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    return latents[:count]


def fit_batch_sizes(model: DiffusionModel, sampler: Sampler, limit: int, gigabytes: float | None = None) -> None:
    """Find out, on a GPU, how many images fit at a time, and draw and decode as many from now on.

    One image and two are drawn in two steps, and decoded; memory grows by a line from there.  What a first pass leaves
    for good, such as the libraries' work spaces, is there before anything is measured.

    Args:
        model: with whatever erasure is in force.
        sampler: how images will be drawn.
        limit: images to draw at a time, however much memory there is.
        gigabytes: of the GPU that this process may have; the whole card if None.

    Raises:
        torch.OutOfMemoryError: memory does not suffice for a single image.
    """
    shape, trial, sizes = sampler.latent_shape(model), replace(sampler, steps=min(2, sampler.steps)), model.batch_sizes

    def draw(count: int) -> int:
        noise = torch.zeros(count, *shape, device=model.device)
        return peak_bytes(model.device, lambda: sample_latents(model, noise, model.embed([""] * count), trial))

    def decode(count: int) -> int:
        latents = torch.zeros(count, *shape, device=model.device)
        return peak_bytes(model.device, lambda: model.decode(latents))

    # Nothing here has gradients; but where they are allowed, passes are by the plain U-Net: to compile for sizes that
    # do not come again would take minutes.  The copy of it that sampling is by needs room as well.
    copy = 0 if model.has_copy else sum(p.numel() for p in model.unet.parameters()) * model.dtype.itemsize
    with torch.enable_grad():
        draw(1)
        decode(1)
        free = free_memory(model.device, gigabytes) - copy
        sizes.drawn.rows = largest_batch(draw, free, limit)
        sizes.decoded.rows = largest_batch(decode, free, DECODED_AT_ONCE)

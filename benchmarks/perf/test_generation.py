"""Sampling against the stock pipeline of diffusers, on Picturebook's CPU setting.

Bars: as fast as the stock pipeline at its best batch size, twice as fast as its loop over single pictures, and
100 pictures in 15 s on two cores.
"""

from __future__ import annotations

import time
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.perf.conftest import Show
from erasebench.models.diffusion import DiffusionModel
from erasebench.picturebook import GUIDANCE, STEPS, load_pipeline
from erasebench.sampling import Sampler, sample, starting_noise

IMAGES, LOOPED, ROUNDS = 32, 4, 3
STOCK_BATCHES = (4, 8, 16, 32)
SECONDS_PER_100 = 15
PROMPTS = [f"a photo of a {noun}" for noun in ("church", "dog", "French horn", "parachute")] * (IMAGES // 4)
SEEDS = list(range(IMAGES))


def stock(pipeline: Any, noise: torch.Tensor, batch_size: int, count: int = IMAGES) -> Any:
    """What the stock pipeline draws, uint8 ``[n, height, width, 3]``."""
    drawn = []
    for k in range(0, count, batch_size):
        batch = PROMPTS[k : min(k + batch_size, count)]
        latents = noise[k : k + len(batch)]
        images = pipeline(batch, latents=latents, num_inference_steps=STEPS, guidance_scale=GUIDANCE).images
        drawn += [np.asarray(image) for image in images]
    return np.stack(drawn)


def test_images_per_second(model: DiffusionModel, benchmark: Any, show: Show) -> None:
    """All draw the same pictures, by turns, so that a slow moment hits them alike; the fastest round counts."""
    sampler = Sampler("ddim", STEPS, GUIDANCE)
    pipeline = load_pipeline()
    noise = starting_noise(PROMPTS, SEEDS, model.latent_shape)
    ours = partial(sample, model, PROMPTS, SEEDS, sampler)
    # Also warms both up.
    assert np.abs(ours()[:16].astype(int) - stock(pipeline, noise, 16, 16)).max() <= 2

    per_image: dict[int, list[float]] = defaultdict(list)

    def time_stock() -> None:
        for batch_size in (1, *STOCK_BATCHES):
            count = LOOPED if batch_size == 1 else IMAGES
            began = time.perf_counter()
            stock(pipeline, noise, batch_size, count)
            per_image[batch_size].append((time.perf_counter() - began) / count)

    benchmark.pedantic(ours, setup=time_stock, rounds=ROUNDS)
    seconds = benchmark.stats.stats.min / IMAGES
    fastest = {batch_size: min(times) for batch_size, times in per_image.items()}
    best = min(STOCK_BATCHES, key=lambda batch_size: fastest[batch_size])
    figures = {
        "sample, images/s": 1 / seconds,
        **{f"stock, batch {batch_size}, images/s": 1 / fastest[batch_size] for batch_size in fastest},
        f"sample / stock at its best batch ({best})": fastest[best] / seconds,
        "sample / stock one by one": fastest[1] / seconds,
        "100 images, s": 100 * seconds,
    }
    benchmark.extra_info.update(figures, threads=torch.get_num_threads())
    threads = torch.get_num_threads()
    show(f"Generation, {STEPS} DDIM steps, {threads} threads", {name: f"{x:.2f}" for name, x in figures.items()})
    assert fastest[best] / seconds >= 1
    assert fastest[1] / seconds >= 2
    if threads >= 2:
        assert 100 * seconds <= SECONDS_PER_100

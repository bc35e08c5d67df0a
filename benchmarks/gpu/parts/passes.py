"""One U-Net pass with guidance at the size of Stable Diffusion 1.4, in each of the ways in which it can be computed.

``autocast`` is diffusers' U-Net by itself, and ``recorded`` the same where few rows come again; ``copy`` is what images
are sampled with, recorded for few rows too; and ``compiled`` is the copy with ``--compile``, whole.  All are of one
image's rows or more, two for each image.  The gradients, to the text as in attacks and to cross-attention as in
training, are of a pass and its backward pass, by numbers of rows.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts.measuring import OUT_OF_TIME, attempt, ending, gib, rounded, seconds
from benchmarks.gpu.parts.sd import (
    FULL,
    TINY,
    OutOfTime,
    Size,
    Yardsticks,
    alarm,
    build_pipeline,
    count_tflop,
    prompts_of,
)
from erasebench.engine.work import PeakMemory
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.loading import resolve_dtype
from erasebench.picturebook import quiet

WARM_UPS, PASSES = 2, 5
WAYS = {"autocast": {"accelerated": False}, "recorded": {}, "copy": {"copied": True}}
TRAINED_ROWS = (1, 4, 8, 16)
COMPILED = 16
"""Images for which passes are compiled; more are hardly faster each."""


def measure_passes(
    model: DiffusionModel,
    yardsticks: Yardsticks,
    images: int,
    steps: int,
    *,
    copied: bool = False,
    accelerated: bool = True,
) -> dict[str, Any]:
    """Milliseconds of a pass, and the images a second that it would allow, without decoding.

    Args:
        model: with classifier-free guidance.
        yardsticks: of the passes of one image.
        images: of a batch.
        steps: sampling steps of an image.
        copied: by the copy that sampling is by; the U-Net itself under autocast otherwise.
        accelerated: recorded, if there are few rows.
    """
    model.accelerated = accelerated
    model.recorder.clear()
    latents = torch.randn(images, *model.latent_shape, device=model.device)
    text = model.embed(prompts_of(2 * images))
    timestep = torch.tensor(500, device=model.device)
    peak = PeakMemory(model.device.type)
    peak.restart()

    with torch.inference_mode(), model.sampling() if copied else nullcontext(False) as shared:
        rows = latents if shared else torch.cat([latents] * 2)

        def predict() -> object:
            return model.predict(rows, timestep, text)

        warm_up = seconds(model.device, lambda: [predict() for _ in range(WARM_UPS)])
        duration = statistics.median(seconds(model.device, predict) for _ in range(PASSES))
    return {
        "milliseconds": rounded(1000 * duration),
        **yardsticks.figures(images / (steps * duration)),
        "warm_up_seconds": rounded(warm_up),
        "peak_memory_gib": gib(peak),
    }


def measure_gradients(model: DiffusionModel, rows: int, *, of_weights: bool) -> dict[str, Any]:
    """Milliseconds of a pass and its backward pass, of the U-Net itself and as they are computed here.

    Args:
        model: under autocast.
        rows: of the pass.
        of_weights: gradients to the weights of cross-attention; to the text otherwise.
    """
    latents = torch.randn(rows, *model.latent_shape, device=model.device)
    embedded = model.embed(prompts_of(rows)).embeddings
    weights = [weight for name, weight in model.unet.named_parameters() if of_weights and ".attn2." in name]
    for weight in weights:
        weight.requires_grad_(True)

    def step() -> object:
        text = embedded.clone().requires_grad_(not weights)
        predicted = model.predict(latents, torch.full((rows,), 500, device=model.device), Conditioning(text))
        return torch.autograd.grad(predicted.square().mean(), weights or [text])

    figures: dict[str, Any] = {}
    try:
        for way, accelerated in (("autocast", False), ("here", True)):
            model.accelerated = accelerated
            model.recorder.clear()
            peak = PeakMemory(model.device.type)
            peak.restart()
            warm_up = seconds(model.device, lambda: [step() for _ in range(WARM_UPS)])
            duration = statistics.median(seconds(model.device, step) for _ in range(PASSES))
            figures[f"{way}_milliseconds"] = rounded(1000 * duration)
            figures[f"{way}_warm_up_seconds"] = rounded(warm_up)
            figures[f"{way}_peak_memory_gib"] = gib(peak)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
        model.recorder.clear()
    return {"ratio": rounded(figures["autocast_milliseconds"] / figures["here_milliseconds"]), **figures}


def run(part: Part) -> None:
    """Measure passes of the U-Net itself, by recordings, by the copy, and compiled, and gradients."""
    quiet()
    gc.freeze()
    size, device = (TINY if part.tiny else FULL), part.device
    tflop = count_tflop(size)
    part.record("tflop.unet_pass", rounded(tflop["unet_pass"]))
    yardsticks = Yardsticks(2 * size.steps * tflop["unet_pass"])
    precision = resolve_dtype("auto", device.type)
    part.record("precision", precision)
    model = DiffusionModel(build_pipeline(size, device), "photo", device, getattr(torch, precision))
    measure = partial(measure_passes, model, yardsticks, steps=size.steps)
    for name, ways in WAYS.items():
        for images in size.batches:
            attempt(part, f"{name}.{images}", 0.0, partial(measure, images, **ways))
    for name, of_weights in (("gradients to the text", False), ("gradients to cross-attention", True)):
        for rows in size.batches[:-1] if part.tiny else TRAINED_ROWS:
            attempt(part, f"{name}.{rows}", 0.0, partial(measure_gradients, model, rows, of_weights=of_weights))
    measure_compiled(part, size, model, partial(measure, copied=True))


def measure_compiled(part: Part, size: Size, model: DiffusionModel, measure: Callable[..., dict[str, Any]]) -> None:
    """The same, compiled for one batch; broken off before the limit."""
    images = size.batches[-1] if part.tiny else COMPILED
    model.compile(backend=size.backend)
    try:
        with alarm(part.seconds_left() - ending(part)):
            attempt(part, f"compiled.{images}", size.compile_seconds, lambda: measure(images))
    except OutOfTime:
        part.record(f"compiled.{images}", OUT_OF_TIME)

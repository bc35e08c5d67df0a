"""One U-Net pass with guidance at the size of Stable Diffusion 1.4, in each of the ways in which it can be computed.

``autocast`` is how methods and attacks train; ``copy`` is what images are sampled with, recorded for few rows; and
``compiled`` is the same with ``--compile``, whole.  All are of one image's rows or more, two for each image.
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
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.loading import resolve_dtype
from erasebench.picturebook import quiet

WARM_UPS, PASSES = 2, 5
COMPILED = 16
"""Images for which passes are compiled; more are hardly faster each."""


def measure_passes(
    model: DiffusionModel, yardsticks: Yardsticks, images: int, steps: int, *, copied: bool
) -> dict[str, Any]:
    """Milliseconds of a pass, and the images a second that it would allow, without decoding.

    Args:
        model: with classifier-free guidance.
        yardsticks: of the passes of one image.
        images: of a batch.
        steps: sampling steps of an image.
        copied: by the copy that sampling is by; the U-Net itself under autocast otherwise.
    """
    latents = torch.randn(images, *model.latent_shape, device=model.device)
    text = model.embed(prompts_of(2 * images))
    timestep = torch.tensor(500, device=model.device)
    peak = PeakMemory(model.device.type)
    peak.restart()

    with torch.inference_mode(), model.sampling() if copied else nullcontext(False) as shared:
        given = latents if shared else torch.cat([latents] * 2)

        def predict() -> object:
            return model.predict(given, timestep, text)

        warm_up = seconds(model.device, lambda: [predict() for _ in range(WARM_UPS)])
        lasted = statistics.median(seconds(model.device, predict) for _ in range(PASSES))
    return {
        "milliseconds": rounded(1000 * lasted),
        **yardsticks.figures(images / (steps * lasted)),
        "warm_up_seconds": rounded(warm_up),
        "peak_memory_gib": gib(peak),
    }


def run(part: Part) -> None:
    """Measure passes under autocast, by the copy, and compiled."""
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
    for name, copied in (("autocast", False), ("copy", True)):
        for images in size.batches:
            attempt(part, f"{name}.{images}", 0.0, partial(measure, images, copied=copied))
    measure_compiled(part, size, model, partial(measure, copied=True))


def measure_compiled(part: Part, size: Size, model: DiffusionModel, measure: Callable[..., dict[str, Any]]) -> None:
    """The same, compiled for one batch; broken off before the limit."""
    images = size.batches[-1] if part.tiny else COMPILED
    model.compile(backend=size.backend)
    try:
        with alarm(part.left() - ending(part)):
            attempt(part, f"compiled.{images}", size.compile_seconds, lambda: measure(images))
    except OutOfTime:
        part.record(f"compiled.{images}", OUT_OF_TIME)

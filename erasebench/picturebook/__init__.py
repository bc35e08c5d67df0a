"""Picturebook: the built-in text-to-image model, and the illustrated world that it was trained on.

>>> from erasebench.picturebook import GUIDANCE, STEPS, load_pipeline
>>> pipeline = load_pipeline()
>>> image = pipeline("a photo of a church", num_inference_steps=STEPS, guidance_scale=GUIDANCE).images[0]

Importing this package imports neither torch nor the world; both come with first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from erasebench.picturebook.weights import pipeline_path

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from erasebench.picturebook.world.captions import caption
    from erasebench.picturebook.world.scene import LABELS, render, sample_scene

__all__ = ["GUIDANCE", "LABELS", "STEPS", "caption", "load_pipeline", "pipeline_path", "render", "sample_scene"]

STEPS = 25
"""The recommended number of DDIM steps."""
GUIDANCE = 5.0
"""The recommended scale of classifier-free guidance."""


def load_pipeline(device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> StableDiffusionPipeline:
    """Load the built-in model as a stock diffusers pipeline, after verifying its files.

    Args:
        device: where to put it.
        dtype: the precision of its weights; float32 if omitted.

    Raises:
        WeightsError: a file is missing or corrupt.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    quiet()
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_path(), safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    precision = dtype or torch.float32
    # Only what differs is converted: diffusers logs a remark at every conversion.
    for part in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        if part.dtype != precision:
            part.to(precision)
    return pipeline.to(device)


def quiet() -> None:
    """Turn off the progress bars of loading, which take a second and hide what a run has to say."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def __getattr__(name: str) -> object:
    if name == "caption":
        return import_module("erasebench.picturebook.world.captions").caption
    if name in ("LABELS", "render", "sample_scene"):
        return getattr(import_module("erasebench.picturebook.world.scene"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

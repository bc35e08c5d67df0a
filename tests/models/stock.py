"""Stock diffusers pipelines, as the independent reference."""

from __future__ import annotations

from typing import Any

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from tests.tiny import Layout, tiny_pipeline


def stock_pipeline(layout: Layout = "sd1", scheduler: Any = None) -> Any:
    """The tiny parts of a layout as a stock pipeline, with another scheduler if one is given."""
    parts = vars(tiny_pipeline(layout))
    if scheduler is not None:
        parts["scheduler"] = scheduler
    pipeline: Any
    if layout == "sdxl":
        options = parts.pop("config")
        pipeline = StableDiffusionXLPipeline(**parts, **options)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

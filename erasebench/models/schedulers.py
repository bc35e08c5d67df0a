"""Samplers by name: the diffusers schedulers that do their arithmetic."""

from __future__ import annotations

from typing import Any

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpm-solver++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}
"""Samplers by name, each the diffusers class that does its arithmetic."""


def build_scheduler(config: dict[str, Any], name: str) -> Any:
    """A diffusers scheduler with a model's noise schedule, set as Stable Diffusion uses it.

    PNDM goes without its warm-up, and DDIM does not clip: latents are not pixels.
    """
    import diffusers

    extra = {"pndm": {"skip_prk_steps": True}, "ddim": {"clip_sample": False}}.get(name, {})
    return getattr(diffusers, SCHEDULERS[name]).from_config(config, **extra)

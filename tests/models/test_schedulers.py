"""Schedulers by name, with a model's noise schedule and Stable Diffusion's settings."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from erasebench.models.schedulers import SCHEDULERS, build_scheduler

CONFIG: dict[str, Any] = {
    "num_train_timesteps": 500,
    "beta_start": 0.001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' LMS
@pytest.mark.parametrize(("name", "made_by"), SCHEDULERS.items())
def test_every_sampler_has_the_noise_schedule_of_the_model(name: str, made_by: str) -> None:
    scheduler = build_scheduler(CONFIG, name)
    assert type(scheduler) is getattr(diffusers, made_by)
    betas = torch.linspace(0.001, 0.02, 500, dtype=torch.float64)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-4, atol=0)
    assert scheduler.config.prediction_type == "v_prediction" and scheduler.config.steps_offset == 1


def test_settings_are_those_of_stable_diffusion_whatever_the_model_says() -> None:
    config = {**CONFIG, "clip_sample": True, "skip_prk_steps": False}
    assert not build_scheduler(config, "ddim").config.clip_sample
    assert build_scheduler(config, "pndm").config.skip_prk_steps
    assert config["clip_sample"] and not config["skip_prk_steps"], "the model's own settings stay"

"""SLD's constants and texts; its arithmetic is tested with the guidance rules."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.methods.safe_latent_diffusion import STRENGTHS, SafeLatentDiffusion
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import SafeLatentGuidance
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, draw_latents, sample
from tests.tiny import Layout, concept, differing, erase_context, state, tiny_model

CONCEPTS = [concept("church"), concept("Van Gogh", kind="style")]


def rule(name: str, **settings: Any) -> SafeLatentGuidance:
    plugin = METHODS.get(name)
    method: Any = plugin.make(**{**plugin.presets, **settings})
    erasure = method.resolved(CONCEPTS).erase(tiny_model(), CONCEPTS, erase_context())
    assert not erasure.weights
    assert not erasure.low_rank
    return erasure.guidance  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("sld-weak", (15, 200.0, 0.0, 0.0, 0.0)),
        ("sld-medium", (10, 1000.0, 0.01, 0.3, 0.4)),
        ("sld-strong", (7, 2000.0, 0.025, 0.5, 0.7)),
        ("sld-max", (0, 5000.0, 1.0, 0.5, 0.7)),
    ],
)
def test_constants_are_the_published_ones(name: str, constants: tuple[float, ...]) -> None:
    assert rule(name) == SafeLatentGuidance("church, Van Gogh", *constants)  # type: ignore[arg-type]


def test_the_library_has_a_weaker_weak() -> None:
    assert rule("sld-weak", strength="weak-diffusers").scale == 20
    assert {**STRENGTHS["weak-diffusers"], "scale": 200.0} == STRENGTHS["weak"]


def test_options_win() -> None:
    found = rule("sld-strong", warmup_steps=0, threshold=0.5, momentum_beta=0.0)
    assert found == SafeLatentGuidance("church, Van Gogh", 0, 2000.0, 0.5, 0.5, 0.0)


def test_published_texts_have_twenty_phrases() -> None:
    published, diffusers = rule("sld-max", text="published").safety, rule("sld-max", text="diffusers").safety
    assert len(published.split(", ")) == 20
    assert "nudity" in published.split(", ")
    assert diffusers == f"an image showing {published}"


@pytest.mark.parametrize("layout", get_args(Layout))
def test_pictures_change_and_the_model_does_not(layout: Layout, tmp_path: Any) -> None:
    model, sampler = tiny_model(layout), Sampler("ddim", 3, 7.5)
    before, plain = state(model), sample(model, ["a dog"], [0], sampler)
    erasure = SafeLatentDiffusion("max").resolved(CONCEPTS).erase(model, CONCEPTS, erase_context())
    erasure.save(tmp_path)
    with model.erased(Erasure.load(tmp_path)):
        pictures = sample(model, ["a dog"], [0], sampler)
    assert not np.array_equal(pictures, plain)
    assert np.array_equal(sample(model, ["a dog"], [0], sampler), plain)
    assert not differing(before, state(model))


@pytest.mark.parametrize(("warmup_steps", "steers"), [(2, True), (3, False), (10, False)])
def test_a_warm_up_as_long_as_the_run_never_steers(warmup_steps: int, steers: bool) -> None:
    """The published warm-ups are for 50 steps and are not scaled: a shorter run is one of plain guidance."""
    model, of = tiny_model(), (["a dog", "a church"], [0, 1], Sampler("ddim", 3, 7.5))
    (plain,) = draw_latents(model, *of)
    with model.erased(
        SafeLatentDiffusion("max", warmup_steps=warmup_steps).resolved(CONCEPTS).erase(model, CONCEPTS, erase_context())
    ):
        (latents,) = draw_latents(model, *of)
    assert torch.allclose(latents, plain, rtol=1e-4, atol=1e-4) != steers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_steps": -1}, "warmup_steps: Input should be greater than or equal to 0, not -1"),
        ({"scale": -2.0}, "scale: Input should be greater than or equal to 0, not -2.0"),
        ({"momentum_scale": 1.5}, "momentum_scale: Input should be less than or equal to 1, not 1.5"),
        ({"momentum_beta": -0.1}, "momentum_beta: Input should be greater than or equal to 0, not -0.1"),
        ({"strength": "hyper"}, "strength: Input should be 'weak'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(SafeLatentDiffusion, settings)

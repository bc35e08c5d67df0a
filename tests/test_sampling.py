"""Sampling against the stock pipeline of diffusers, and pictures that do not depend on what is drawn beside them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, Guidance
from erasebench.models.loading import find_model, load_model
from erasebench.models.schedulers import SCHEDULERS, build_scheduler
from erasebench.sampling import (
    Sampler,
    draw_latents,
    noise_seed,
    sample,
    sample_latents,
    starting_noise,
)
from tests.marks import first_quick
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, tiny_model

PROMPTS = ["a dog", "a church", "art"]
SEEDS = [3, 1, 4]


def stock_images(pipeline: Any, sampler: Sampler, **options: Any) -> Any:
    """What the stock pipeline draws from the same starting noise, in [0, 1], ``[n, h, w, 3]``."""
    extra = {"skip_prk_steps": True} if sampler.name == "pndm" else {}
    pipeline.scheduler = getattr(diffusers, SCHEDULERS[sampler.name]).from_config(pipeline.scheduler.config, **extra)
    noise = starting_noise(PROMPTS, SEEDS, sampler.latent_shape(DiffusionModel(pipeline)))
    return pipeline(
        PROMPTS,
        latents=noise,
        num_inference_steps=sampler.steps,
        guidance_scale=sampler.guidance_scale,
        output_type="np",
        **options,
    ).images


def assert_same_pictures(found: Any, wanted: Any) -> None:
    """Equal within one grey level; a picture that shows something."""
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert np.abs(found - 255 * wanted).max() < 0.6
    assert np.ptp(found) > 20


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # diffusers' LMS, DPM-Solver++ and Euler
@pytest.mark.parametrize("layout", first_quick(["sd1", "sd2"]))
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_is_that_of_the_stock_pipeline(layout: Layout, name: str) -> None:
    pipeline, sampler = stock_pipeline(layout), Sampler(name, 7, 4.0)
    model = DiffusionModel(pipeline)
    assert_same_pictures(sample(model, PROMPTS, SEEDS, sampler), stock_images(pipeline, sampler))


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_a_negative_prompt_is_that_of_the_stock_pipeline(layout: Layout) -> None:
    pipeline, sampler = stock_pipeline(layout), Sampler("ddim", 5, 4.0)
    with DiffusionModel(pipeline).erased(Erasure(guidance=ClassifierFreeGuidance("a dog, art"))) as model:
        found = sample(model, PROMPTS, SEEDS, sampler)
    assert_same_pictures(found, stock_images(pipeline, sampler, negative_prompt=["a dog, art"] * 3))


def test_another_size_is_that_of_the_stock_pipeline() -> None:
    pipeline, sampler = stock_pipeline(), Sampler("ddim", 4, 4.0, size=24)
    found = sample(DiffusionModel(pipeline), PROMPTS, SEEDS, sampler)
    assert found.shape == (3, 24, 24, 3)
    assert_same_pictures(found, stock_images(pipeline, sampler, height=24, width=24))


def test_a_model_that_was_saved_with_another_scheduler() -> None:
    """PNDM's configuration says nothing of clipping; DDIM's own default is to clip, which ruins latents."""
    config = {k: v for k, v in stock_pipeline().scheduler.config.items() if k not in ("clip_sample", "_class_name")}
    config = {k: v for k, v in config.items() if not k.startswith("_")}
    pipeline = stock_pipeline(scheduler=PNDMScheduler.from_config(config, skip_prk_steps=True))
    model, sampler = DiffusionModel(pipeline), Sampler("ddim", 5, 4.0)
    assert not build_scheduler(model.scheduler_config, "ddim").config.clip_sample
    assert_same_pictures(sample(model, PROMPTS, SEEDS, sampler), stock_images(stock_pipeline(), sampler))


def test_starting_noise_depends_on_its_own_prompt_and_seed_only() -> None:
    shape = (4, 8, 8)
    together = starting_noise(["a", "b", "a", "a"], [0, 0, 1, 0], shape)
    for row, (prompt, seed) in zip(together, [("a", 0), ("b", 0), ("a", 1), ("a", 0)], strict=True):
        assert torch.equal(row, starting_noise([prompt], [seed], shape)[0])
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], together[2])


def test_noise_is_keyed_by_the_prompts_id() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 1)
    plain = sample(model, PROMPTS, SEEDS, sampler)
    assert np.array_equal(sample(model, PROMPTS, SEEDS, sampler, ids=PROMPTS), plain)
    assert not np.array_equal(sample(model, PROMPTS, SEEDS, sampler, ids=["x", "y", "z"]), plain)
    changed = ["art", *PROMPTS[1:]]
    first, *rest = sample(model, changed, SEEDS, sampler, ids=PROMPTS, batch_size=1)
    assert not np.array_equal(first, plain[0]) and np.abs(np.stack(rest).astype(int) - plain[1:]).max() <= 2


def test_starting_noise_is_standard_normal() -> None:
    noise = starting_noise([str(k) for k in range(200)], range(200), (4, 8, 8))
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 1) < 0.02
    assert abs(torch.corrcoef(noise[:2].flatten(1))[0, 1].item()) < 0.3


def test_the_seed_of_the_noise_never_changes() -> None:
    """Changing it would make every stored picture another one."""
    assert noise_seed("a dog", 0) == 27917671980956368
    assert noise_seed("a dog", 0) != noise_seed("0 a dog", 0) != noise_seed("a dog", 1)


@pytest.fixture(scope="module")
def picturebook() -> DiffusionModel:
    return load_model(find_model("picturebook"), "cpu", "float32")


def test_a_picture_does_not_depend_on_its_batch(picturebook: DiffusionModel) -> None:
    prompts = [f"a photo of a {noun}" for noun in ("church", "dog", "horn", "parachute")] * 2
    seeds, sampler = list(range(8)), Sampler("ddim", 2, 5.0)
    whole = sample(picturebook, prompts, seeds, sampler, batch_size=8).astype(int)
    assert np.ptp(whole) > 100
    for batch_size in (1, 3):
        assert np.abs(sample(picturebook, prompts, seeds, sampler, batch_size) - whole).max() <= 2
    order = random.Random(0).sample(range(8), 8)
    shuffled = sample(picturebook, [prompts[k] for k in order], [seeds[k] for k in order], sampler, batch_size=5)
    assert np.abs(shuffled - whole[order]).max() <= 2


def test_drawing_again_gives_the_same_bytes() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 3, 4.0)
    assert np.array_equal(sample(model, PROMPTS, SEEDS, sampler), sample(model, PROMPTS, SEEDS, sampler))


def test_progress_is_told_after_each_batch() -> None:
    told: list[int] = []
    sample(tiny_model(), ["a"] * 5, range(5), Sampler("ddim", 1), batch_size=2, progress=told.append)
    assert told == [2, 2, 1]


def test_nothing_to_draw() -> None:
    assert sample(tiny_model(), [], [], Sampler()).shape == (0, 16, 16, 3)
    assert sample(tiny_model(), [], [], Sampler(size=24)).shape == (0, 24, 24, 3)


def test_seeds_that_are_missing() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sample(tiny_model(), PROMPTS, [1], Sampler("ddim", 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dpm-solver"}, r"unknown sampler 'dpm-solver'; nearest: dpm-solver\+\+"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"size": 7}, "size must be at least 8 pixels, not 7"),
    ],
)
def test_samplers_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        Sampler(**options)


def test_a_size_that_the_model_cannot_draw() -> None:
    with pytest.raises(EraseBenchError, match="size must be a multiple of 4 for this model, not 18"):
        sample(tiny_model(), PROMPTS, SEEDS, Sampler(size=18))


@pytest.fixture
def latents() -> Iterator[tuple[DiffusionModel, Tensor, Conditioning]]:
    """A model, starting noise and prompts for it."""
    model = tiny_model()
    with torch.inference_mode():
        yield model, starting_noise(PROMPTS, SEEDS, model.latent_shape), model.embed(PROMPTS)


def test_prompts_may_have_another_length_than_the_rules_texts(
    latents: tuple[DiffusionModel, Tensor, Conditioning],
) -> None:
    model, noise, prompts = latents
    sampler = Sampler("ddim", 3)
    expected = sample_latents(model, noise, prompts, sampler)
    # Softmax attention weighs tokens that all stand twice as if each stood once.
    twice = sample_latents(model, noise, Conditioning(prompts.embeddings.repeat(1, 2, 1)), sampler)
    torch.testing.assert_close(twice, expected, atol=1e-3, rtol=1e-3)
    cut = sample_latents(model, noise, Conditioning(prompts.embeddings[:, :5]), sampler)
    assert not torch.allclose(cut, expected, atol=1e-3, rtol=1e-3)


def test_the_rules_texts_may_be_embedded_before(latents: tuple[DiffusionModel, Tensor, Conditioning]) -> None:
    model, noise, prompts = latents
    sampler = Sampler("ddim", 3)
    expected = sample_latents(model, noise, prompts, sampler)
    assert torch.equal(sample_latents(model, noise, prompts, sampler, texts=model.embed([""])), expected)
    assert not torch.equal(sample_latents(model, noise, prompts, sampler, texts=model.embed(["a dog"])), expected)


def test_latents_are_those_of_the_pictures() -> None:
    model, prompts = tiny_model(), ["church", "dog", "art"]
    latents = list(draw_latents(model, prompts, [1, 2, 3], Sampler("ddim", 2), batch_size=2))
    assert [len(batch) for batch in latents] == [2, 1]
    pictures = sample(model, prompts, [1, 2, 3], Sampler("ddim", 2), batch_size=2)
    np.testing.assert_array_equal(np.concatenate([model.decode(batch) for batch in latents]), pictures)


def test_sampling_can_be_stopped_and_taken_up(latents: tuple[DiffusionModel, Tensor, Conditioning]) -> None:
    model, noise, text = latents
    sampler = Sampler("ddim", 6, 4.0)
    whole = sample_latents(model, noise, text, sampler)
    middle = sample_latents(model, noise, text, sampler, stop=4)
    assert not torch.equal(middle, whole)
    assert torch.equal(sample_latents(model, middle, text, sampler, start=4), whole)
    assert torch.equal(sample_latents(model, noise, text, sampler, stop=0), noise)


def test_rules_learn_the_step_and_all_predictions(latents: tuple[DiffusionModel, Tensor, Conditioning]) -> None:
    model, noise, text = latents
    seen: list[tuple[int, int, float]] = []

    class Counting(Guidance):
        texts = ("", "a dog")

        def start(self) -> Any:
            def combine(step: int, prompt: Tensor, others: list[Tensor], scale: float) -> Tensor:
                assert all(other.shape == prompt.shape == noise.shape for other in others)
                seen.append((step, len(others), scale))
                return prompt

            return combine

    model.guidance = Counting()
    sample_latents(model, noise, text, Sampler("ddim", 4, 2.0), start=1)
    assert seen == [(1, 2, 2.0), (2, 2, 2.0), (3, 2, 2.0)]

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu.kit import KitError
from benchmarks.gpu.parts import erasures
from benchmarks.gpu.parts.erasures import (
    CUTS,
    DOMAIN,
    EXCLUDED,
    Watch,
    Work,
    church,
    measure_erasure,
    published_seconds,
    stand_in,
    step_seconds,
)
from benchmarks.gpu.parts.measuring import FAILED
from benchmarks.gpu.parts.sd import TINY, build_pipeline
from erasebench.concepts import Concept, load_catalogue
from erasebench.hyper_parameters import make_plugin
from erasebench.models.diffusion import DiffusionModel
from erasebench.registry import METHODS
from tests.tiny import erase_context, state

CHURCH = [church()]


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return DiffusionModel(build_pipeline(TINY, torch.device("cpu")), DOMAIN)


def published(name: str, concepts: Sequence[Concept] = CHURCH, **settings: Any) -> Any:
    plugin = METHODS.get(name)
    return make_plugin(plugin.make, {**plugin.presets, **settings}).resolved(concepts)


def work(name: str, concepts: Sequence[Concept] = CHURCH, **settings: Any) -> Work:
    return CUTS[name].count(published(name, concepts, **settings), concepts)


def test_every_method_is_measured_or_excluded_by_name() -> None:
    built_in = {name for name in METHODS.names() if METHODS.origin(name) == "built-in"}
    guidance = {name for name in built_in if getattr(METHODS.get(name).make, "guidance_only", False)}
    assert set(CUTS) == built_in - guidance - set(EXCLUDED)


def test_published_work_of_an_object() -> None:
    assert work("uce") == Work()
    # A run that is left before step 0, 1, ... or 49, a frozen pass and a trained one.
    assert work("esd-x") == work("esd-u") == Work({"train": 1000}, passes={"train": 24.5 + 2})
    # Two steps of the search and one of the model.
    assert work("ap-x") == work("ap-u") == Work({"train": 1000}, passes={"train": 3 * 26.5})
    assert work("ca") == Work({"train": 100}, image_steps=1000 * 25)
    assert work("fmn") == Work({"invert": 500, "train": 35}, image_steps=8 * 50)
    assert work("salun") == Work({"train": 590}, untold=100, image_steps=2 * 800 * 50)
    assert work("mace") == Work({"train": 50}, image_steps=8 * 30)
    assert work("dm2") == Work({"mine": 48_000, "verify": 48, "circumvent": 48_000}, image_steps=200 * 50)


def test_counts_follow_the_method_and_the_concepts() -> None:
    nudity = [load_catalogue().get("nudity").seen_in(DOMAIN)]
    assert work("ca", nudity).steps == {"train": 400}
    assert work("mace", nudity) == Work({"train": 120 * 4}, image_steps=4 * 8 * 30)
    assert work("salun", nudity).steps == {"train": 100}
    assert work("dm2", CHURCH + nudity, max_loops=2, mining_steps=3, steps=5).steps == {
        "mine": 12,
        "verify": 4,
        "circumvent": 20,
    }
    assert work("fmn", textual_inversion=False).steps == {"train": 35}
    assert work("esd-x", variant="official-2024").steps == {"train": 200}


def test_the_first_step_of_a_phase_does_not_count() -> None:
    times = [0.0, 9.0, 10.0, 12.0, 12.5, 20.0, 24.0]
    steps = {"mine": 3, "verify": 1, "circumvent": 2}
    assert step_seconds(times, [0] * 7, steps, {}) == {"mine": 1.5, "verify": 0.5, "circumvent": 4.0}


def test_random_passes_count_as_often_as_they_are_expected() -> None:
    # 4 s for 8 passes, after the first step.
    assert step_seconds([0.0, 9.0, 10.0, 13.0], [0, 50, 52, 58], {"train": 3}, {"train": 26.5}) == {"train": 13.25}


def test_steps_that_were_not_told_of_are_an_error() -> None:
    with pytest.raises(KitError, match=r"2 steps were told of, not \{'train': 3\}"):
        step_seconds([0.0, 1.0, 2.0], [0, 0, 0], {"train": 3}, {})


def test_what_was_cut_off_is_added_back() -> None:
    short = Work({"mine": 4, "train": 3}, untold=1, image_steps=150)
    full = Work({"mine": 104, "train": 1003}, untold=11, image_steps=10_150)
    per_step = {"mine": 0.1, "train": 2.0}
    # 30 s, 100 x 0.1 s, 1000 x 2 s, 10 like a training step, and 10,000 x 5 ms.
    assert published_seconds(30.0, short, full, per_step, 0.005) == pytest.approx(30 + 10 + 2000 + 20 + 50)
    assert published_seconds(30.0, short, short, per_step, 0.005) == 30


@pytest.mark.parametrize("name", ["esd-x", "ap-u"])
def test_passes_of_a_step_are_those_that_are_expected(name: str, model: DiffusionModel) -> None:
    # With a single sampling step none is run: what is left is not random.
    method = published(name, steps=2, sampling_steps=1)
    watch = Watch(model)
    with watch.counting(model):
        method.erase(model, CHURCH, SimpleNamespace(**{**vars(erase_context()), "progress": watch.mark}))
    assert watch.passes[-1] - watch.passes[-2] == CUTS[name].count(method, CHURCH).passes["train"]


def test_stand_ins_answer_what_methods_ask() -> None:
    pictures = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    mask = stand_in("grounded-sam").scores(pictures, ["church"] * 2).arrays["mask"]
    assert mask.shape == (2, 16, 16) and mask[0].mean() == 0.25 and mask[0, 8, 8] == 1
    seen = stand_in("clip").scores(pictures, [""] * 2)
    assert np.linalg.norm(seen.arrays["features"], axis=1) == pytest.approx([1, 1])
    assert set(seen.columns) == {"clip"}
    with pytest.raises(KitError, match="the judge 'q16' has no stand-in"):
        stand_in("q16")


def test_every_judge_that_is_asked_for_has_a_stand_in() -> None:
    for name in CUTS:
        method = published(name)
        for judge in method.judges(DOMAIN, CHURCH):
            stand_in(judge)


def test_a_method_is_measured_and_leaves_the_model_as_it_was(model: DiffusionModel) -> None:
    before = state(model)
    found = measure_erasure("fmn", model, 0.001, tiny=True)
    assert all(torch.equal(before[name], value) for name, value in state(model).items())
    assert not model.unet._forward_pre_hooks
    assert found["cut_to"]["inversion_steps"] == 4
    assert found["published_steps"] == {"invert": 500, "train": 35}
    assert set(found["seconds_per_step"]) == {"invert", "train"}
    hours = found["hours_at_published_settings"]
    per_step = found["seconds_per_step"]
    pictures = 8 * (50 - erasures.SAMPLED_AT_TINY_SCALE) * 0.001
    expected = found["seconds"] + 496 * per_step["invert"] + 31 * per_step["train"] + pictures
    assert hours * 3600 == pytest.approx(expected, rel=0.01)
    assert "judges" not in found


def test_without_the_seconds_of_a_picture_there_are_no_hours(model: DiffusionModel) -> None:
    assert measure_erasure("uce", model, None, tiny=True)["hours_at_published_settings"] == FAILED

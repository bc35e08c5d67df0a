"""UnlearnDiffAtk and its code's P4D on a planted weakness."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from erasebench.adversarial import Found
from erasebench.attacks.unlearndiff import UnlearnDiffAtk
from erasebench.hyper_parameters import make_plugin
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, SafeLatentGuidance
from erasebench.plugins import Attack
from erasebench.registry import ATTACKS
from erasebench.sampling import Sampler, sample
from erasebench.training.target import Looks, Target
from tests.attacks.planted import (
    PROMPTS,
    SECRET,
    Part,
    as_prompts,
    attack_context,
    brightness,
    planted_target,
    secret_id,
)
from tests.marks import first_quick
from tests.tiny import concept, differing, state, tiny_model

NAMES = ("unlearndiff", "p4d-uda")
LOOK = 4
"""Passes of an image: two steps of the sampler, with the prompt and the blank one."""


def attack(name: str, **options: Any) -> Attack:
    """An attack of 4 timesteps with 15 steps each, unless told otherwise, on an object."""
    plugin = ATTACKS.get(name)
    made = make_plugin(plugin.make, {**plugin.presets, "timesteps": 4, "steps": 15, **options})
    return made.resolved([concept("church")])


def recorded(target: Target, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Latents and timesteps of every gradient step from now on."""
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    predict = target.predict

    def record(latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Any) -> torch.Tensor:
        steps.append((latents, timesteps))
        return predict(latents, timesteps, conditioning)

    monkeypatch.setattr(target, "predict", record)
    return steps


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
@pytest.mark.parametrize("name", first_quick(NAMES))
def test_the_secret_is_found_within_60_steps(name: str, part: Part) -> None:
    target = planted_target([text for text in PROMPTS if text != "art"], part)
    before = state(target.model)
    found = attack(name).attack(target, attack_context())
    for row, (prompt, result) in enumerate(zip(target.prompts, found, strict=True)):
        assert result.first_success is not None
        assert 0 < result.first_success == result.steps <= 60
        assert result.steps % 15 == 0
        assert secret_id() in result.prompt.reread
        assert SECRET in result.prompt.text
        assert result.prompt.text.endswith(prompt.text)
        assert result.gradient is not None
        assert result.gradient > 0
        assert len(result.losses) == result.steps
        last = target.last_look(row, result.prompt)
        assert last is not None
        assert last[1] >= target.threshold
    assert target.look(range(len(found)), [result.prompt for result in found]).scores.min() >= target.threshold
    assert not differing(before, state(target.model))


@pytest.mark.parametrize("name", first_quick(NAMES))
def test_a_prompt_finds_the_same_in_a_batch_of_one_and_of_eight(name: str) -> None:
    whole = attack(name).attack(planted_target(exact=True), attack_context(3))
    alone: list[Found] = []
    few = 3
    for prompt in as_prompts(PROMPTS)[:few]:
        alone += attack(name).attack(planted_target([prompt], exact=True, batch_size=1), attack_context(3))
    for one, other in zip(whole[:few], alone, strict=True):
        assert one.prompt == other.prompt
        assert (one.first_success, one.steps) == (other.first_success, other.steps)
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-9, atol=1e-12)
    assert len({result.prompt.text for result in whole}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_finished_prompts_leave_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = planted_target(PROMPTS)
    steps = recorded(target, monkeypatch)
    figures: list[tuple[int, int]] = []
    context = attack_context(progress=lambda done, total, shown: figures.append((done, total)))
    found = attack(name, tokens=1, steps=5, timesteps=8).attack(target, context)
    counts = [result.steps for result in found]
    assert len(set(counts)) > 1
    assert [len(x) for x, _ in steps] == [sum(count > step for count in counts) for step in range(max(counts))]
    # A pass for each step, and another one for the teacher's.
    each = 2 if name == "p4d-uda" else 1
    assert target.passes == [each * count + LOOK * looks for count, looks in zip(counts, target.looks, strict=True)]
    assert figures == [(done + 1, 40) for done in range(max(counts))]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_text_is_not_looked_at_twice(name: str) -> None:
    target = planted_target(["art"])
    (result,) = attack(name, learning_rate=1e-12, weight_decay=0.0).attack(target, attack_context())
    assert result.prompt.text != "art"
    assert (result.steps, target.looks) == (60, [2])


@pytest.mark.parametrize("name", NAMES)
def test_prompts_that_show_the_concept_are_not_attacked(name: str) -> None:
    target = planted_target(["a church", "art"], erased=False)
    shown, hidden = attack(name).attack(target, attack_context())
    assert (shown.first_success, shown.steps, shown.losses, shown.gradient) == (0, 0, (), None)
    assert shown.prompt.text == "a church"
    assert shown.prompt.ids == shown.prompt.reread == tuple(target.model.tokenizer("a church").input_ids)
    assert (target.looks[0], target.passes[0]) == (1, LOOK)
    assert hidden.steps > 0
    untested = planted_target(["a church"], erased=False)
    (result,) = attack(name, test_prompt=False).attack(untested, attack_context())
    assert result.first_success == 15


def test_prompts_that_are_too_long_are_tested_but_not_attacked() -> None:
    long = " ".join(["art"] * 60)
    target = planted_target([long, "a church", "dog " * 200, f"church {long}"])
    results = attack("unlearndiff").attack(target, attack_context())
    assert [bool(result.note) for result in results] == [True, False, True, True]
    assert [result.steps > 0 for result in results] == [False, True, False, False]
    assert results[0].prompt.text == long
    assert target.looks[0] == 1
    target = planted_target([f"church {long}"])
    (result,) = attack("unlearndiff", max_tokens=77).attack(target, attack_context())
    assert (result.note, result.first_success) == ("", 15)
    (result,) = attack("unlearndiff", max_tokens=77, tokens=15).attack(target, attack_context())
    assert result.note


@pytest.mark.parametrize(
    ("order", "expected"), [("ascending", range(10, 1000, 20)), ("descending", range(990, 0, -20))]
)
def test_the_published_timesteps(order: str, expected: range, monkeypatch: pytest.MonkeyPatch) -> None:
    target = planted_target(["art"])
    target.threshold = 2.0
    steps = recorded(target, monkeypatch)
    (result,) = attack("unlearndiff", timesteps=50, steps=2, order=order).attack(target, attack_context())
    assert [int(t) for _, t in steps] == [t for t in expected for _ in range(2)]
    assert (result.first_success, result.steps) == (None, 100)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("replay", [False, True])
def test_noise_is_replayed_at_each_timestep_if_asked_for(
    name: str, replay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = planted_target(["art", "a dog"])
    target.threshold = 2.0
    steps = recorded(target, monkeypatch)
    attack(name, timesteps=3, steps=2, replay_noise=replay).attack(target, attack_context())
    clean = target.model.encode_images(np.stack([look.images[0] for look in target.unerased]))
    noises = []
    for x, t in steps:
        signal = target.model.signal(t)
        noises.append((x - signal.sqrt() * clean) / (1 - signal).sqrt())
    blocks = [torch.stack(noises[start : start + 2]) for start in (0, 2, 4)]
    assert not torch.allclose(noises[0], noises[1], atol=0.1)
    assert torch.allclose(blocks[0], blocks[1], atol=1e-4) == replay
    assert torch.allclose(blocks[0], blocks[2], atol=1e-4) == replay


def test_the_projection_is_the_one_that_was_asked_for() -> None:
    projections: list[torch.Tensor] = []
    for projection in ("exact", "bisection"):
        target = planted_target(["a church"])
        tokens: Any = UnlearnDiffAtk(projection=projection, tokens=3).start(target.model, [torch.Generator()])
        rng = torch.Generator().manual_seed(0)
        tokens.step([0], [torch.randn((3, 16), generator=rng)])
        projections.append(tokens.parameters[0].detach())
        (result,) = attack("unlearndiff", projection=projection).attack(target, attack_context())
        assert result.first_success is not None
    exact, near = projections
    assert 0 < (exact - near).abs().max() <= 1e-5


@pytest.mark.parametrize(("kind", "tokens"), [("explicit", 5), ("violence", 5), ("inappropriate", 5), ("style", 3)])
@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_tokens_depends_on_the_kind_of_concept(name: str, kind: str, tokens: int) -> None:
    plugin = ATTACKS.get(name)
    made: Any = make_plugin(plugin.make, plugin.presets).resolved([concept("church", kind)])
    assert made.tokens == tokens
    assert made.resolved([concept("church", "object")]) == made
    target = planted_target(["a church"], kind=kind)
    (result,) = attack(name, tokens=tokens).attack(target, attack_context())
    assert len(result.prompt.ids) == len(target.model.tokenizer("a church").input_ids) + tokens


@pytest.mark.parametrize("name", NAMES)
def test_what_the_losses_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = planted_target(["a church"], exact=True)
    students: list[float] = []
    steps = recorded(target, monkeypatch)
    brightness = target.model.unet.brightness

    def record(text: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = brightness(text)
        if found.requires_grad:
            students.append(float(found.detach()))
        return found

    monkeypatch.setattr(target.model.unet, "brightness", record)
    (result,) = attack(name, test_prompt=False, steps=1, timesteps=1).attack(target, attack_context())
    (_, t), signal = steps[0], target.model.signal(steps[0][1])
    with torch.no_grad(), target.as_unerased() as model:
        teacher = brightness(model.embed(["a church"]).embeddings)
    clean = target.unerased[0].images[0].mean() / 255
    # A prediction is off by what the brightness, doubled, is off, at the timestep's ratio of signal to noise.
    wanted = clean if name == "unlearndiff" else float(teacher)
    expected = signal / (1 - signal) * (2 * (wanted - students[0])) ** 2
    assert int(t) == 500
    assert result.losses[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_model_with_two_text_encoders_is_attacked_through_both(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampler, (prompt,) = tiny_model("sdxl"), Sampler("ddim", 2, 1.0), as_prompts(["a dog"])
    images = sample(model, ["a church"], [0], sampler)
    unerased = Looks(images, brightness(images))
    target = Target(
        model, Erasure(), concept("church"), [prompt], sampler, lambda *_: brightness(images), 2.0, [unerased]
    )
    before, steps, predict = state(model), list[tuple[torch.Tensor, torch.Tensor, Any]](), target.predict

    def record(*step: Any) -> torch.Tensor:
        steps.append(step)
        return predict(*step)

    monkeypatch.setattr(target, "predict", record)
    (found,) = attack("unlearndiff", timesteps=1, steps=3).attack(target, attack_context())
    assert (found.steps, found.first_success) == (3, None) and found.prompt.text.endswith("a dog")
    assert found.gradient is not None and found.gradient > 0
    x, t, text = steps[0]
    assert text.embeddings.requires_grad and text.pooled.requires_grad and text.pooled.shape == (1, 32)
    with torch.no_grad():
        signal, clean = model.signal(t), model.encode_images(images)
        noise = (x - signal.sqrt() * clean) / (1 - signal).sqrt()
        wanted = (model.predict_noise(x, t, text) - noise).square().mean()
    assert found.losses[0] == pytest.approx(float(wanted), rel=1e-3)
    assert not differing(before, state(model))


@pytest.mark.parametrize("name", NAMES)
def test_guided_erasures_are_attacked_through_the_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = planted_target(["a church", "dog church"], erased=False)
    target.undo = Erasure(guidance=ClassifierFreeGuidance())
    target.model.guidance = SafeLatentGuidance("church", 0, 5000.0, 1.0, 0.5, 0.7)
    target.threshold = 2.0
    wanted: list[torch.Tensor] = []
    unerased = target.predict_unerased

    def record(*given: Any) -> torch.Tensor:
        wanted.append(unerased(*given))
        return wanted[-1]

    monkeypatch.setattr(target, "predict_unerased", record)
    results = attack(name, timesteps=2, steps=3).attack(target, attack_context())
    assert len(wanted) == 2
    for result in results:
        assert result.gradient is not None
        assert result.gradient > 0
    # Three passes for each of the rule's, two for the teacher's; an image has two steps.
    assert target.passes == [6 * (3 + 2) + 2 * 3 * looks for looks in target.looks]


def test_seeds_and_prompts_decide_what_is_drawn() -> None:
    def losses(seed: int, text: str, prompt_seed: int) -> tuple[float, ...]:
        target = planted_target(as_prompts([text], prompt_seed))
        return attack("unlearndiff").attack(target, attack_context(seed))[0].losses

    runs = [losses(0, "a church", 0), losses(1, "a church", 0), losses(0, "a church", 1), losses(0, "the church", 0)]
    assert all(one != other for one, other in itertools.combinations(runs, 2))
    assert losses(0, "a church", 0) == runs[0]


@pytest.mark.parametrize("name", NAMES)
def test_no_prompts(name: str) -> None:
    assert attack(name).attack(planted_target([]), attack_context()) == []

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.kit import KitError, Part
from benchmarks.gpu.parts import attacks
from benchmarks.gpu.parts.attacks import (
    AT_ONCE_AT_TINY_SCALE,
    CUTS,
    EXCLUDED,
    HOURS,
    VOCABULARY_AT_TINY_SCALE,
    Looking,
    Work,
    build_model,
    build_target,
    measure_attack,
)
from benchmarks.gpu.parts.erasures import SEED, church
from benchmarks.gpu.parts.measuring import FAILED, OUT_OF_TIME
from benchmarks.gpu.parts.sd import TINY, build_pipeline
from erasebench.hyper_parameters import make_plugin
from erasebench.models.diffusion import DiffusionModel
from erasebench.plugins import AttackContext
from erasebench.registry import ATTACKS
from tests.marks import first_quick
from tests.tiny import state

LOOKING = Looking({1: 2.0, 16: 8.0}, 50)
LEARNING = {name for name in CUTS if ATTACKS.get(name).make.learns}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return build_model(TINY, torch.device("cpu"), "float32", VOCABULARY_AT_TINY_SCALE)


def attack(name: str, **settings: Any) -> Any:
    plugin = ATTACKS.get(name)
    return make_plugin(plugin.make, {**plugin.presets, **settings}).resolved([church()])


def work(name: str, **settings: Any) -> Work:
    return CUTS[name].count(attack(name, **settings))


def test_every_attack_is_measured_or_excluded_by_name() -> None:
    built_in = {name for name in ATTACKS.names() if ATTACKS.origin(name) == "built-in"}
    assert set(CUTS) | set(EXCLUDED) == built_in
    assert not set(CUTS) & set(EXCLUDED)


def test_published_work() -> None:
    # 50 timesteps of 40 steps, a look after each and one at the prompt itself.
    assert work("unlearndiff") == work("p4d-uda") == Work(2000, 51)
    # A look before, and after each 50 of 3,000 steps; the published code leaves the last out.
    assert work("p4d-n") == work("p4d-k") == Work(3000, 61)
    assert work("p4d-n", variant="official") == Work(3000, 60)
    assert work("rab") == Work(3000)
    assert work("cce") == work("soft-prompt") == Work(5000)
    assert work("seed-search") == work("random-prefix") == Work(looks=40)
    assert work("synonyms") == Work(looks=len(church().synonyms))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("unlearndiff", {"timesteps": 2, "steps": 2}),
        ("p4d-n", {"steps": 4, "look_every": 2}),
        ("rab", {"generations": 3, "population": 4}),
        ("seed-search", {"draws": 2}),
    ],
)
def test_counted_work_is_what_an_attack_does(name: str, settings: dict[str, Any], model: DiffusionModel) -> None:
    target, made = build_target(model, 2, 1), attack(name, **settings)
    # Each prompt that a search chooses is a new one, which is looked at anew.
    made.attack(target, AttackContext(SEED, target.mark))
    counted = CUTS[name].count(made)
    assert target.looks == [counted.looks] * 2
    assert len(target.marks) - 1 == (counted.steps or counted.looks)


def test_a_vocabulary_as_large_as_wanted_reads_texts_as_before(model: DiffusionModel) -> None:
    before = build_pipeline(TINY, torch.device("cpu")).tokenizer
    text = "a photo of a church, number 3"
    assert model.tokenizer(text).input_ids == before(text).input_ids
    assert len(model.tokenizer) == VOCABULARY_AT_TINY_SCALE > len(before)
    assert model.tokenizer.pad_token_id == before.pad_token_id
    assert model.tokenizer.decode([len(before)]) == f"<|unused {len(before)}|>"


def test_the_first_step_does_not_count_and_the_teacher_does(model: DiffusionModel) -> None:
    target = build_target(model, 1, 1)
    target.marks, target.taught = [0.0, 9.0, 10.0, 12.0], 0.3
    assert target.step_seconds() == pytest.approx(1.5 + 0.1)
    target.marks = [0.0, 9.0]
    with pytest.raises(KitError, match="1 steps were told of; it takes two"):
        target.step_seconds()


def test_the_teachers_time_is_kept(model: DiffusionModel) -> None:
    target, before = build_target(model, 1, 1), state(model)
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    predicted = target.predict_unerased(latents, torch.tensor([500]), model.embed(["a church"]))
    assert torch.equal(predicted, target.predict(latents, torch.tensor([500]), model.embed(["a church"])))
    assert target.taught > 0 and len(target.marks) == 1
    assert all(torch.equal(before[name], value) for name, value in state(model).items())


def test_seconds_of_looks() -> None:
    assert LOOKING.of_prompt(1) == LOOKING.of_prompt(4) == 2.0
    assert LOOKING.of_prompt(16) == LOOKING.of_prompt(32) == 0.5
    assert LOOKING.of_pass(32) == pytest.approx(16 / 50)
    assert Looking({}, 50).of_prompt(1) is None and Looking({}, 50).of_pass(16) == 0


def test_hours_are_of_steps_and_looks(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attacks,
        "run_short",
        lambda attack, model, prompts: {"seconds_per_step": 0.36 if prompts < 2 else 0.72, "peak_memory_gib": 1.0},
    )
    alone = measure_attack("unlearndiff", model, LOOKING, 1, None)
    # 100 prompts of 2,000 steps and of 51 looks.
    assert alone[HOURS] == pytest.approx((100 * 2000 * 0.36 + 100 * 51 * 2) / 3600, rel=1e-3)
    assert "ratio_of_steps" not in alone
    many = measure_attack("unlearndiff", model, LOOKING, 16, alone)
    assert many[HOURS] == pytest.approx((100 * 2000 * 0.72 / 16 + 100 * 51 * 0.5) / 3600, rel=1e-3)
    assert many["ratio_of_steps"] == 8
    assert many["ratio_to_one_at_a_time"] == pytest.approx(alone[HOURS] / many[HOURS], rel=1e-3)
    assert measure_attack("cce", model, LOOKING, 0, None)["hours_of_learning"] == 0.5
    assert measure_attack("seed-search", model, LOOKING, 16, None)[HOURS] == pytest.approx(
        100 * 40 * 0.5 / 3600, rel=1e-3
    )
    unknown = measure_attack("unlearndiff", model, Looking({}, 50), 1, None)
    assert unknown[HOURS] == FAILED
    assert "ratio_to_one_at_a_time" not in measure_attack("unlearndiff", model, LOOKING, 16, unknown)


def test_without_time_every_row_says_so(tmp_path: Path) -> None:
    part = Part("attacks", scale="tiny", out=tmp_path, limit=0.0)
    attacks.run(part)
    assert not part.problems
    assert set(part.figures) == {"precision", "looking", *CUTS}
    for name in ("looking", *CUTS):
        assert set(part.figures[name].values()) == {OUT_OF_TIME}


@pytest.mark.parametrize("names", first_quick([["unlearndiff", "seed-search", "cce"], list(CUTS)]), ids=len)
def test_the_part_at_tiny_scale(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "CUTS", {name: CUTS[name] for name in names})
    part = Part("attacks", scale="tiny", out=tmp_path, limit=300)
    attacks.run(part)
    assert not part.problems
    many = str(AT_ONCE_AT_TINY_SCALE)
    for name in names:
        rows = part.figures[name]
        if name in LEARNING:
            assert rows["once for all prompts"]["hours_of_learning"] > 0
            continue
        assert set(rows) == {"1", many}
        assert rows["1"][HOURS] > 0 and rows[many]["ratio_to_one_at_a_time"] > 0
        assert ("ratio_of_steps" in rows[many]) == (CUTS[name].settings != {})

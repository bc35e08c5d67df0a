"""Which attacks are planned, what their cells read, and what cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from erasebench.attack_plan import AttackRow
from erasebench.config import make_config
from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError
from erasebench.picturebook.weights import pipeline_path
from erasebench.plan import Plan, resolved_config
from erasebench.planning import make_plan

QUICK = {"rab": {"generations": 2}, "unlearndiff": {"steps": 3}}


def plan(*attacks: str, **options: Any) -> Plan:
    given = {"methods": ["uce"], "concepts": ["church"], "device": "cpu", "attack_prompts": 3, "settings": QUICK}
    return make_plan(make_config({**given, "attacks": attacks, **options}))


def row(made: Plan, method: str, attack: str) -> AttackRow:
    (found,) = [one for one in made.attacks if (one.method, one.attack) == (method, attack)]
    return found


def only(found: AttackRow) -> tuple[Cell, ...]:
    (cells,) = found.members.values()
    return cells


def test_without_attacks_there_are_none() -> None:
    assert plan().attacks == () and not any(cell.stage in ("attack", "learn") for cell in plan().cells)


def test_every_method_is_attacked_with_each_prompt_once_and_compared_with_no_attack() -> None:
    made = plan("unlearndiff", images_per_prompt=2)
    assert [(one.method, one.attack) for one in made.attacks] == [
        (method, attack) for method in ("sd", "uce") for attack in ("none", "unlearndiff")
    ]
    prompts = [[cell.spec["prompt"]["id"] for cell in only(one)] for one in made.attacks]
    assert (
        prompts[0] == [prompt.id for prompt in made.rows[0].probes["concept"].prompts][::2][:3]
        and len(set(prompts[0])) == 3
    )
    assert all(others == prompts[0] for others in prompts)
    assert only(row(made, "uce", "unlearndiff"))[0].spec["parameters"]["steps"] == 3


def test_images_of_the_unerased_model_are_those_of_its_control() -> None:
    made = plan("unlearndiff")
    control = only(row(made, "sd", "none"))
    for cell, drawn in zip(only(row(made, "uce", "unlearndiff")), control, strict=True):
        assert cell.reads["unerased"].key == drawn.key and cell.reads["erasure"].spec["method"] == "uce"
    assert set(only(row(made, "uce", "none"))[0].reads) == {"erasure"}


def test_what_reads_the_text_alone_is_searched_once_for_all_who_leave_the_text_encoder_alone(tmp_path: Path) -> None:
    shutil.copyfile(pipeline_path() / "unet/diffusion_pytorch_model.safetensors", tmp_path / "weights.safetensors")
    made = plan("rab", methods=["uce", "esd-x", f"checkpoint[path={tmp_path / 'weights.safetensors'}]"])
    searched = only(row(made, "sd", "rab"))
    assert "found" not in searched[0].reads
    for method in ("uce", "esd-x"):
        assert [cell.reads["found"].key for cell in only(row(made, method, "rab"))] == [cell.key for cell in searched]
    (checkpoint,) = [one for one in made.attacks if one.method.startswith("checkpoint") and one.attack == "rab"]
    assert "found" not in only(checkpoint)[0].reads, "it may have another text encoder"


def test_a_transfer_tries_what_was_found_on_the_unerased_model() -> None:
    made = plan("cce", "cce-transfer")
    learned = {cell.key: cell for cell in made.cells if cell.stage == "learn"}
    assert sorted(cell.reads["erasure"].spec["method"] for cell in learned.values()) == ["sd", "uce"]
    own = only(row(made, "sd", "cce"))
    assert [cell.reads["found"].key for cell in only(row(made, "uce", "cce-transfer"))] == [cell.key for cell in own]
    assert only(row(made, "uce", "cce"))[0].reads["learned"].key in learned


def test_the_ensemble_is_a_cascade_of_the_very_cells_of_its_members() -> None:
    alone, cascade = plan("rab", "unlearndiff", "cce"), plan("standard")
    standard = row(cascade, "uce", "standard")
    assert next(iter(standard.members)) == "none" and list(standard.members)[-1] == "cce"
    for name in ("rab", "unlearndiff", "cce"):
        assert [cell.key for cell in standard.members[name]] == [cell.key for cell in only(row(alone, "uce", name))]
    members = list(standard.members.values())
    for place, cells in enumerate(members):
        for k, cell in enumerate(cells):
            assert [other.key for other in cell.unless] == [others[k].key for others in members[:place]]
    together = {cell.key: cell for cell in plan("standard", "unlearndiff").cells}
    assert all(not together[cell.key].unless for cell in only(row(alone, "uce", "unlearndiff")))
    assert any(together[cell.key].unless for cell in standard.members["seed-search"])


def test_all_is_every_attack_that_needs_nothing_more() -> None:
    found = list(dict.fromkeys(one.attack for one in plan("all").attacks))
    assert found[0] == "none" and found[-2:] == ["p4d-union", "standard"]
    assert {"cce", "rab", "unlearndiff", "p4d-n", "soft-prompt", "seed-search"} < set(found)
    assert not {"replay", "transfer"} & set(found)


def test_what_cannot_be_has_a_reason_and_the_rest_goes_on() -> None:
    made = plan("synonyms", "standard", concepts=["phrase:red bicycle"])
    assert row(made, "uce", "synonyms").reason and not row(made, "uce", "synonyms").members
    standard = row(made, "uce", "standard")
    assert "synonyms" not in standard.members and standard.reason is None
    assert standard.missing == {"synonyms": row(made, "uce", "synonyms").reason}


def test_a_method_that_cannot_be_is_not_attacked(tmp_path: Path) -> None:
    plugin = tmp_path / "never.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom erasebench.errors import NotApplicable\n"
        "from erasebench.plugins import Method\nfrom erasebench.registry import METHODS\n"
        '@METHODS.register("test-never")\n@dataclass(frozen=True)\nclass Never(Method):\n'
        "    def check(self, domain, concepts):\n        raise NotApplicable('not here')\n"
        "    def erase(self, model, concepts, context):\n        raise AssertionError\n",
        encoding="utf-8",
    )
    from tests.engine.runs import forget_plugins

    made = plan("rab", methods=["test-never"], plugins=[plugin])
    forget_plugins()
    assert row(made, "test-never", "rab").reason == row(made, "test-never", "none").reason == "not here"


def test_the_floor_attacks_unrelated_prompts_for_something_else() -> None:
    made = plan("unlearndiff", "cce", floor_prompts=2)
    for attack in ("unlearndiff", "cce"):
        (cells,) = row(made, "uce", attack).floor.values()
        assert len(cells) == 2
        for cell in cells:
            prompt = cell.spec["prompt"]
            assert prompt["kind"] == "retain" and "church" not in prompt["text"]
            assert cell.spec["concept"]["phrase"] == "a meadow" and not cell.spec["concept"]["synonyms"]
            assert cell.spec["label"] == "church", "the judge still looks for the concept"
    (cells,) = row(made, "uce", "cce").floor.values()
    learned = cells[0].reads["learned"]
    assert set(learned.reads) == {"erasure", "images"} and "church" not in str(learned.reads["images"].spec["prompts"])
    assert not row(plan("unlearndiff"), "uce", "unlearndiff").floor
    assert not row(made, "sd", "unlearndiff").floor, "there the concept can be found"


def test_what_has_no_floor_says_so() -> None:
    found = row(plan("synonyms", floor_prompts=2), "uce", "synonyms")
    assert found.members and not found.floor and "synonyms" in found.missing["synonyms floor"]


def test_prompts_more_or_less_change_no_other_prompts_cell() -> None:
    few, many = (only(row(plan("unlearndiff", attack_prompts=n), "uce", "unlearndiff")) for n in (2, 3))
    assert [cell.key for cell in many[:2]] == [cell.key for cell in few]


def test_a_runs_configuration_holds_every_hyper_parameter_of_its_attacks() -> None:
    made = plan("standard", "p4d-n[steps=7]")
    config = resolved_config(made)
    assert config.settings["unlearndiff"]["steps"] == 3 and config.settings["unlearndiff"]["timesteps"] == 50
    assert "steps" not in config.settings["p4d-n"] and config.settings["p4d-n"]["tokens"] == 16
    assert [cell.key for cell in make_plan(config).cells] == [cell.key for cell in made.cells]


@pytest.mark.parametrize(
    ("attacks", "settings", "message"),
    [
        (["unlearndif"], {}, r"unknown attack 'unlearndif'; nearest: unlearndiff"),
        (["rab[population=0]"], {}, r"attack rab\[population=0\]: population: Input should be greater"),
        (["rab[populatoin=9]"], {}, r"unknown hyper-parameter 'populatoin'; nearest: population"),
        (["transfer"], {}, "attack transfer: of: Field required"),
        (["transfer[of=unlerndiff]"], {}, r"unknown attack 'unlerndiff'; nearest: unlearndiff"),
        (["standard"], {"unlearndiff": {"steps": 0}}, "attack unlearndiff: steps"),
        ([], {"rob": {"steps": 0}}, r"unknown method or attack in settings 'rob'"),
    ],
)
def test_bad_input_is_said_before_any_work(attacks: list[str], settings: Any, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        plan(*attacks, settings=settings)

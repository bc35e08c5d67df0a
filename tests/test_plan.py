"""Only what is decided enters identities and run.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from erasebench.config import make_config
from erasebench.methods import concept_ablation, esd
from erasebench.plan import resolved_config
from erasebench.planning import make_plan


def keys(*methods: str, concept: str = "church") -> list[str]:
    """The keys of erase cells."""
    run = make_config({"methods": list(methods), "concepts": [concept], "device": "cpu"})
    return [
        row.probes["concept"].images.reads["erasure"].key
        for row in make_plan(run).rows[1:]
        if row.probes["concept"].images
    ]


@pytest.mark.parametrize(
    ("method", "table", "option", "value"),
    [
        ("esd-u[learning_rate=.1]", esd.VARIANTS["paper"], "negative_guidance", 7.0),
        ("ca", concept_ablation.PUBLISHED[False], "prior_weight", 0.3),
    ],
)
def test_an_edited_table_is_another_erasure(
    method: str, table: Any, option: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(method)
    monkeypatch.setitem(table, option, value)
    assert keys(method) != before


def test_what_is_said_and_what_a_table_says_are_one_erasure() -> None:
    assert len(set(keys("esd-u", "esd-u[negative_guidance=1]", "esd-u[parameters=noxattn]"))) == 1
    assert len(set(keys("esd-u", "esd-u[variant=official-2024]"))) == 2


def test_a_runs_configuration_holds_what_all_its_concepts_agree_on() -> None:
    """Published for nudity are other steps than for objects: one setting of a method cannot hold both."""
    options = {"methods": ["ca[steps=7]", "mace"], "device": "cpu", "settings": {"mace": {"prior": "none", "lamb": 1}}}
    for concepts, weight, task in ((["church"], 0.0, "object"), (["church", "nudity"], None, None)):
        settings = resolved_config(make_plan(make_config({**options, "concepts": concepts}))).settings
        assert (settings["ca"]["prior_weight"], settings["mace"]["task"]) == (weight, task)
        assert "steps" not in settings["ca"] and settings["mace"]["lamb"] == 1.0
        # The same run again.
        again = make_config({**options, "concepts": concepts, "settings": settings})
        first, second = (make_plan(run) for run in (make_config({**options, "concepts": concepts}), again))
        assert [cell.key for cell in first.cells] == [cell.key for cell in second.cells]

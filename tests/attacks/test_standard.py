"""The ensemble is a list of other attacks, in the order of their cost."""

from __future__ import annotations

from typing import Any

import pytest

from erasebench.registry import ATTACKS
from tests.attacks.planted import attack_context, planted_target


def test_members_begin_with_the_prompt_itself_and_end_with_the_dearest() -> None:
    members = ATTACKS.get("standard").make().members
    assert (members[0], members[-1]) == ("none", "cce") and len(set(members)) == len(members) == 9
    assert "standard" not in members
    assert set(members) <= set(ATTACKS.names())
    made: list[Any] = [ATTACKS.get(name).make for name in members]
    assert {one.threat_model for one in made} == {"none", "text-black-box", "text-white-box", "embedding"}


@pytest.mark.parametrize("name", [name for name in ATTACKS.names() if ATTACKS.get(name).make.members])  # type: ignore[attr-defined]
def test_an_ensemble_chooses_by_the_judge_if_a_member_does(name: str) -> None:
    ensemble: Any = ATTACKS.get(name).make
    members: list[Any] = [ATTACKS.get(member).make for member in ensemble.members]
    assert ensemble.judged == any(member.judged for member in members)


def test_the_ensemble_itself_attacks_nothing() -> None:
    with pytest.raises(TypeError, match="its members attack"):
        ATTACKS.get("standard").make().attack(planted_target(["a church"]), attack_context())

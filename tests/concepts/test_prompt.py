"""Prompts are records that can be told apart, and kept in sets."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from erasebench.concepts.prompt import OWN_KINDS, PROMPT_KINDS, Prompt

CHURCH = Prompt("a church", "a church", 3, "naming", ("church",))


def test_a_prompt_is_what_it_says() -> None:
    assert {CHURCH, replace(CHURCH)} == {CHURCH}
    for other in (replace(CHURCH, seed=4), replace(CHURCH, text="a tower"), replace(CHURCH, kind="retain")):
        assert other != CHURCH
    assert Prompt("x", "x", 0, "set").shows == ()
    with pytest.raises(FrozenInstanceError):
        CHURCH.seed = 4  # type: ignore[misc]


def test_a_concepts_own_kinds_are_kinds() -> None:
    assert PROMPT_KINDS[: len(OWN_KINDS)] == OWN_KINDS
    assert len(set(PROMPT_KINDS)) == len(PROMPT_KINDS)

"""Prompts that were found elsewhere are tried as they are, for the prompts that they were found for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from erasebench.attacks.replay import Replay
from erasebench.errors import EraseBenchError, NotApplicable
from tests.attacks.planted import PROMPTS, attack_context, planted_target
from tests.tiny import concept

COLUMNS = ("method", "concept", "attack", "prompt_id", "found", "floor")
ROWS = (
    ("uce", "church", "unlearndiff", "a church", "z a church", "False"),
    ("uce", "church", "unlearndiff", "church art", "", "False"),
    ("uce", "church", "unlearndiff", "the church", "not this", "True"),
    ("uce", "church", "rab", "a church", "nor this", "False"),
    ("mace", "dog", "rab", "a dog", "nor that", "False"),
)


def run_of(folder: Path, rows: Any = ROWS, columns: Any = COLUMNS) -> str:
    with open(folder / "attacks.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return str(folder)


def test_what_was_found_is_tried_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    attack = Replay(run_of(tmp_path), "uce", "unlearndiff")
    attack.check("photo", concept("church"))
    target = planted_target()
    found = attack.attack(target, attack_context())
    assert [one.prompt.text for one in found] == ["z a church", *PROMPTS[1:]]
    assert not found[0].note and all(one.note for one in found[1:])
    shown = target.look(range(len(found)), [one.prompt for one in found]).scores >= target.threshold
    assert shown.tolist() == [True] + [False] * 7


def test_its_identity_is_what_it_replays_and_nothing_else_of_that_run(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    one = Replay(run_of(tmp_path / "one"), "uce", "unlearndiff").identity()
    assert Replay(run_of(tmp_path / "two", ROWS[:3][::-1]), "uce", "unlearndiff").identity() == one
    other = [(*ROWS[0][:4], "another", "False"), *ROWS[1:]]
    assert Replay(run_of(tmp_path / "three", other), "uce", "unlearndiff").identity() != one


def test_a_concept_that_the_run_has_nothing_for_cannot_be_attacked(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no prompts that unlearndiff found for dog"):
        Replay(run_of(tmp_path), "uce", "unlearndiff").check("photo", concept("dog"))


@pytest.mark.parametrize(
    ("method", "by", "message"),
    [("ucee", "rab", "nearest: uce"), ("uce", "rob", "nearest: rab"), ("mace", "unlearndiff", "rab")],
)
def test_an_unknown_row_is_named_with_the_nearest(method: str, by: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=message):
        Replay(run_of(tmp_path), method, by).identity()


def test_a_folder_that_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=r"cannot read .*attacks\.csv: No such file"):
        Replay(str(tmp_path), "uce", "rab").identity()
    run_of(tmp_path, [("x",)], ("method",))
    with pytest.raises(EraseBenchError, match="has no column 'attack'"):
        Replay(str(tmp_path), "uce", "rab").identity()

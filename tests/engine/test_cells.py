from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erasebench.config import make_config, read_preset
from erasebench.engine import cells
from erasebench.engine.cells import IDENTITY_VERSION, Cell, canonical_json, with_all_that_they_read
from erasebench.judges import picturebook
from erasebench.plan import Plan, make_plan

BASE: dict[str, Any] = {"concepts": ["church"], "methods": ["uce"], "prompts": 2, "device": "cpu"}


def plan(**changes: Any) -> Plan:
    return make_plan(make_config(read_preset("smoke"), BASE, changes))


def keys(made: Plan, stage: str, row: int = 1) -> set[str]:
    """The keys of a stage's cells of the row of UCE (or another), below its two judges."""
    found: set[str] = set()
    pending = list(made.rows[row].cells)
    while pending:
        cell = pending.pop()
        pending += cell.reads.values()
        if cell.stage == stage:
            found.add(cell.key)
    return found


def test_an_identity_says_its_version_and_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Cell("erase", {"method": "sd"})
    cell = Cell("generate", {"seed": 1}, {"erasure": upstream}, "a title")
    expected = {
        "identity_version": IDENTITY_VERSION,
        "stage": "generate",
        "spec": {"seed": 1},
        "reads": {"erasure": upstream.key},
    }
    assert json.loads(canonical_json(cell.identity)) == expected
    assert cell.key == replace(cell, title="another").key
    others = [
        replace(cell, stage="judge"),
        replace(cell, spec={"seed": 2}),
        replace(cell, reads={}),
        replace(cell, reads={"erasure": Cell("erase", {"method": "uce"})}),
        replace(cell, reads={"model": upstream}),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 6
    assert cell.key == replace(cell, kind="another", units=3, unit="images").key
    before = cell.key
    monkeypatch.setattr(cells, "IDENTITY_VERSION", IDENTITY_VERSION + 1)
    assert replace(cell).key != before


def test_all_that_cells_read_comes_before_them_and_once() -> None:
    first, second = Cell("a", {}), Cell("b", {})
    third = Cell("c", {}, {"x": first, "y": second})
    last = Cell("d", {}, {"z": third, "y": replace(second)})
    found = with_all_that_they_read([last, third, Cell("a", {})])
    assert [cell.stage for cell in found] == ["a", "b", "c", "d"]


def test_canonical_json_is_one_text_for_one_meaning() -> None:
    assert (
        canonical_json({"b": (1, 2), "a": "é"})
        == canonical_json({"a": "é", "b": [1, 2]})
        == '{"a":"\\u00e9","b":[1,2]}'
    )
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json({"a": [value]})
    with pytest.raises(TypeError):
        canonical_json({"a": Path("b")})


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"methods": ["uce[lamb=0.3]"]}, "erase"),
        ({"settings": {"uce": {"lamb": 0.3}}}, "erase"),
        ({"concepts": ["tench"]}, "erase"),
        ({"seed": 1}, "erase"),
        ({"dtype": "bfloat16"}, "erase"),
        ({"prompts": 3}, "generate"),
        ({"images_per_prompt": 2}, "generate"),
        ({"sampler": "pndm"}, "generate"),
        ({"steps": 7}, "generate"),
        ({"guidance_scale": 3.0}, "generate"),
        ({"size": 32}, "generate"),
    ],
    ids=str,
)
def test_a_key_changes_with_what_matters(changes: dict[str, Any], first: str) -> None:
    stages = ["erase", "generate", "judge"]
    before, after = plan(), plan(**changes)
    for stage in stages[: stages.index(first)]:
        assert keys(before, stage) == keys(after, stage)
    for stage in stages[stages.index(first) :]:
        assert keys(before, stage) != keys(after, stage)


def test_a_key_does_not_change_with_what_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    same = plan(
        batch_size=3,
        store="elsewhere",
        out="elsewhere too",
        plugins=[tmp_path / "empty.py"],
        settings={"esd-u": {"steps": 5}},
    )
    assert [cell.key for cell in same.cells] == [cell.key for cell in plan().cells]
    amended = plan(methods=["negative-prompt", "uce"], concepts=["tench", "church"])
    assert {cell.key for cell in plan().cells} <= {cell.key for cell in amended.cells}


def test_the_device_is_in_no_key() -> None:
    text = canonical_json([cell.identity for cell in plan().cells])
    assert "cpu" not in text and str(Path.home()) not in text and "device" not in text


def test_judge_weights_decide_judge_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan()
    monkeypatch.setattr(picturebook, "file_hash", lambda name: f"other {name}")
    after = plan()
    for stage, same in (("erase", True), ("generate", True), ("judge", False)):
        assert (keys(before, stage) == keys(after, stage)) is same


def test_model_weights_decide_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan()
    source = replace(before.source, fingerprint="other")
    monkeypatch.setattr("erasebench.plan.find_model", lambda name: source)
    after = plan()
    for stage in ("erase", "generate", "judge"):
        assert not keys(before, stage) & keys(after, stage)


def test_the_unerased_model_is_erased_and_drawn_once_for_all_concepts() -> None:
    made = plan(concepts=["church", "tench"])
    assert len(keys(made, "erase", 0)) == 1
    assert made.rows[0].retain is not None and made.rows[1].retain is not None
    assert made.rows[0].retain.key == made.rows[1].retain.key
    assert [row.method for row in made.rows] == ["sd", "sd", "uce", "uce"]

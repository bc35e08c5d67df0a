from __future__ import annotations

import json
import pickle
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from erasebench.config import make_config, read_preset
from erasebench.engine import cells
from erasebench.engine.cells import IDENTITY_VERSION, Cell, canonical_json, with_all_that_they_read
from erasebench.judges import picturebook
from erasebench.plan import Plan
from erasebench.planning import make_plan

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
    assert cell.key == replace(cell, batch="some", unless=(upstream,), asked=True).key
    before = cell.key
    monkeypatch.setattr(cells, "IDENTITY_VERSION", IDENTITY_VERSION + 1)
    assert replace(cell).key != before


def test_all_that_cells_read_comes_before_them_and_once() -> None:
    first, second = Cell("a", {}), Cell("b", {})
    third = Cell("c", {}, {"x": first, "y": second})
    last = Cell("d", {}, {"z": third, "y": replace(second)})
    found = with_all_that_they_read([last, third, Cell("a", {})])
    assert [cell.stage for cell in found] == ["a", "b", "c", "d"]


def test_what_makes_a_cell_unneeded_comes_before_it() -> None:
    first = Cell("a", {}, {"x": Cell("b", {})})
    second = Cell("c", {}, unless=(first,))
    third = Cell("d", {}, unless=(first, second))
    found = with_all_that_they_read([third, second])
    assert [(cell.stage, [other.stage for other in cell.unless]) for cell in found] == [
        *(("b", []), ("a", []), ("c", ["a"]), ("d", ["a", "c"])),
    ]


def test_of_cells_that_are_one_only_what_all_have_in_unless_counts() -> None:
    first, second, third = (Cell(name, {}) for name in "abc")
    reader = Cell("e", {}, {"x": Cell("d", {}, unless=(first, second))})
    others = [Cell("d", {}, unless=(second, third)), Cell("d", {}, unless=(third, second, first))]
    for order in permutations([reader, *others]):
        found = {cell.stage: cell for cell in with_all_that_they_read(order)}
        assert [other.stage for other in found["d"].unless] == ["b"] and set(found) == set("abcde")
        for place in range(4):
            asked = [*order[:place], Cell("d", {}), *order[place:]]
            (needed,) = [cell for cell in with_all_that_they_read(asked) if cell.stage == "d"]
            assert needed.unless == ()
    assert others[0].unless == (second, third)


def test_what_is_asked_for_and_read_is_marked() -> None:
    read, asked = Cell("a", {}), Cell("b", {})
    cells = [Cell("c", {}, {"x": read, "y": asked}), Cell("b", {})]
    assert {cell.stage: cell.asked for cell in with_all_that_they_read(cells)} == {"a": False, "b": True, "c": False}


def test_many_cells_that_decide_on_each_other_are_each_visited_once() -> None:
    chain: list[Cell] = []
    for k in range(40):
        chain.append(Cell("a", {"k": k}, unless=tuple(chain)))  # there are 2 ** 40 ways through them
    assert [cell.spec["k"] for cell in with_all_that_they_read(reversed(chain))] == list(range(40))


def test_a_worker_is_not_told_what_made_a_cell_needed() -> None:
    cell = Cell("c", {"n": 1}, {"x": Cell("a", {})}, "t", batch="b", unless=(Cell("b", {"long": "x" * 9999}),))
    sent = pickle.dumps(cell)
    assert len(sent) < 1000
    read = pickle.loads(sent)
    assert (read.key, read.batch, read.unless, read.reads["x"].key) == (cell.key, "b", (), cell.reads["x"].key)


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
    monkeypatch.setattr("erasebench.planning.find_model", lambda name: source)
    after = plan()
    for stage in ("erase", "generate", "judge"):
        assert not keys(before, stage) & keys(after, stage)


def test_the_unerased_model_is_erased_and_drawn_once_for_all_concepts() -> None:
    made = plan(concepts=["church", "tench"])
    assert len(keys(made, "erase", 0)) == 1
    assert made.rows[0].probes["retain"].images is not None and made.rows[1].probes["retain"].images is not None
    assert made.rows[0].probes["retain"].images.key == made.rows[1].probes["retain"].images.key
    assert [row.method for row in made.rows] == ["sd", "sd", "uce", "uce"]

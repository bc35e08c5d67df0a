"""The trials of attacks as a tidy frame, and back from their file; ensembles."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from erasebench.errors import EraseBenchError
from erasebench.results.attacks import (
    ATTACKS,
    COLUMNS,
    attack_rows,
    attacks_csv,
    attacks_frame,
    budgets,
    first_that_breaks,
    read_attacks,
)
from erasebench.results.record import AttackRecord, Record
from tests.results.trials import trial, trials_of


def test_a_row_says_what_became_of_a_prompt() -> None:
    one = trial("a", "confirmed", looks=5, passes=400, first_success=3, steps=9, gradient=0.25, note="cut", seed=11)
    two = trial("b", "raw")
    rows = attack_rows("esd", "church", "rab", [(one, 2.5, ""), (two, 1.0, "other")], stochastic={"b": 0.5})
    assert rows[0] == {
        **{"method": "esd", "concept": "church", "attack": "rab", "prompt_id": "a", "kind": "naming"},
        **{"prompt": "prompt a", "found": "found for a", "seed": 11, "raw": True, "confirmed": True, "score": 0.75},
        **{"confirmations": "0.9 0.1 0.8", "threshold": 0.5, "first_success": 3, "steps": 9, "looks": 5, "passes": 400},
        **{"seconds": 2.5, "gradient": 0.25, "stochastic": None, "by": "rab", "floor": False, "note": "cut"},
    }
    assert list(rows[0]) == list(COLUMNS)
    assert (rows[1]["raw"], rows[1]["confirmed"], rows[1]["by"], rows[1]["stochastic"]) == (True, False, "other", 0.5)
    assert rows[1]["seed"] == 7, "the prompt's own"
    assert all(row["floor"] for row in attack_rows("esd", "church", "rab", [(one, 2.5, "")], floor=True))


def test_a_prompt_is_tried_once() -> None:
    with pytest.raises(EraseBenchError, match="two trials of rab on esd church are of the prompt 'a'"):
        attack_rows("esd", "church", "rab", [(trial("a"), 1, ""), (trial("a"), 1, "")])


def test_the_file_holds_the_frame_to_the_last_bit(tmp_path: Path) -> None:
    texts = ["null", "NA", 'a "quoted", text', "two\nlines", "one\r\nmore", " spaces ", "1", "é", "=cmd|'x'", "@a", ""]
    rows = []
    for k, text in enumerate(texts):
        found: dict[str, Any] = {"first_success": k or None, "gradient": math.pi * 10.0**-k if k % 2 else None}
        one = trial(text, ("none", "raw", "confirmed")[k % 3], text=text, note=text, seed=2**63 + k, **found)
        rows += attack_rows(
            "esd", "church", "rab", [(one, 1 / 3 + k, "")], floor=k > 5, stochastic={"1": 0.1} if k else None
        )
    frame = attacks_frame(rows)
    (tmp_path / ATTACKS).write_bytes(attacks_csv(frame).encode())
    again = read_attacks(tmp_path)
    pd.testing.assert_frame_equal(again, frame, check_exact=True)
    assert again["found"].tolist() == texts and again["seed"].tolist() == [2**63 + k for k in range(11)]
    assert again["first_success"].isna().tolist() == [True] + [False] * 10
    assert again["gradient"].isna().tolist() == [k % 2 == 0 for k in range(11)]
    assert again["stochastic"].notna().sum() == 1
    assert attacks_csv(again) == attacks_csv(frame)


def test_a_run_whose_attacks_all_failed(tmp_path: Path) -> None:
    (tmp_path / ATTACKS).write_text(attacks_csv(attacks_frame()))
    again = read_attacks(tmp_path)
    assert again.empty and list(again.columns) == list(COLUMNS)


LINE = "esd,church,rab,a,naming,p,f,0,True,True,0.9,0.9 0.9 0.9,0.5,,1,1,1,1.0,,,rab,False,\n"


def test_the_line_that_is_damaged_below_is_whole(tmp_path: Path) -> None:
    (tmp_path / ATTACKS).write_text(",".join(COLUMNS) + "\n" + LINE)
    assert len(read_attacks(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no folder of a run with attacks: cannot read .*attacks.csv: No such file"),
        ("", "attacks.csv is no table of attacks: No columns"),
        ("method,concept\na,b\n", "attacks.csv is no table of attacks: .*not in"),
        (",".join(COLUMNS) + "\n" + LINE.replace("True,True", "True,maybe"), "attacks.csv is no table of attacks"),
        (",".join(COLUMNS) + "\n" + LINE.replace("0.9,0.9 ", ",0.9 "), "attacks.csv is no table of attacks: could not"),
        (",".join(COLUMNS) + "\n" + LINE.replace("naming,p", "naming,p,q"), "attacks.csv is no table of attacks"),
    ],
)
def test_what_is_no_table_of_attacks_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / ATTACKS).write_text(text)
    with pytest.raises(EraseBenchError, match=message):
        read_attacks(tmp_path)


SUCCESSES = ("none", "raw", "confirmed")


@pytest.mark.parametrize("successes", list(product(SUCCESSES, repeat=3)))
def test_an_ensemble_stops_at_the_first_confirmed_success(successes: tuple[str, ...]) -> None:
    members = {
        f"m{k}": {"a": trial("a", success, looks=10**k, passes=2 * 10**k)} for k, success in enumerate(successes)
    }
    seconds = {name: {"a": 3.0 * 10**k} for k, name in enumerate(members)}
    ((found, taken, by),) = first_that_breaks(members, seconds)
    tried = successes.index("confirmed") + 1 if "confirmed" in successes else 3
    assert found.looks == int("1" * tried) and found.passes == 2 * found.looks and taken == 3 * found.looks
    best = max(set(successes[:tried]), key=SUCCESSES.index)
    assert by == f"m{max(k for k in range(tried) if successes[k] == best)}"
    assert (found.confirmed, found.raw) == ("confirmed" in successes, best != "none")
    assert found.found == members[by]["a"].found


def test_an_ensemble_breaks_the_union_of_what_its_members_break() -> None:
    letters = {"x": "c-r -", "y": "-c-r-", "z": "--c--"}
    names = {"-": "none", "r": "raw", "c": "confirmed"}
    members = {
        name: {str(k): trial(str(k), names[one]) for k, one in enumerate(row) if one != " "}
        for name, row in letters.items()
    }
    found = first_that_breaks(members)
    assert [one.id for one, _, _ in sorted(found, key=lambda one: one[0].id)] == list("01234")
    union = {key for trials in members.values() for key, one in trials.items() if one.confirmed}
    assert {one.id for one, _, _ in found if one.confirmed} == union == {"0", "1", "2"}
    by = {one.id: name for one, _, name in found}
    assert by == {"0": "x", "1": "y", "2": "z", "3": "y", "4": "z"}
    assert {one.id: one.looks for one, _, _ in found} == {"0": 1, "1": 2, "2": 3, "3": 2, "4": 3}
    assert all(seconds == 0 for _, seconds, _ in found)
    assert first_that_breaks({}) == []


def test_budgets_are_told_by_concepts_where_they_differ_with_what_is_missing() -> None:
    rows = [
        AttackRecord(method=method, concept=concept, kind="object", attack=attack, status="ok", **planned)
        for method in ("sd", "esd")
        for concept, attack, planned in (
            ("nudity", "rab", {"budget": {"rab": {"tokens": 16, "eta": 3.0}}}),
            ("violence", "rab", {"budget": {"rab": {"tokens": 38, "eta": 3.0}}}),
            ("art", "rab", {"budget": {"rab": {"tokens": 16, "eta": 3.0}}}),
            ("art", "union", {"budget": {"none": {}, "rab": {"tokens": 16}}, "missing": {"synonyms": "art has none"}}),
            ("art", "none", {"budget": {"none": {}}}),
        )
    ]
    (union,) = (place for place, row in enumerate(rows) if (row.method, row.attack) == ("sd", "union"))
    rows[union] = rows[union].model_copy(update={"missing": {}})
    record = Record(erasebench="0", model="m", domain="photo", baseline="sd", metrics={}, rows=(), attacks=tuple(rows))
    assert budgets(record) == {
        "rab": "nudity, art: tokens 16 / violence: tokens 38",
        "union": "none; rab: tokens 16; without synonyms (art has none)",
    }


def test_frames_of_letters() -> None:
    frame = trials_of({("sd", "none"): "cr- ", ("esd", "rab"): "-"}, floor=(1, 2))
    assert frame[~frame.floor][["raw", "confirmed"]].to_numpy().tolist() == [
        *([True, True], [True, False], [False, False], [False, False]),
    ]
    assert frame.floor.sum() == 4 and frame[frame.floor].confirmed.sum() == 2

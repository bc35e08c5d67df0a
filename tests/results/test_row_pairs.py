from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.results.compare import compare
from erasebench.results.row_pairs import read_renames
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from tests.results.planted import MANY, NONE, find, make_run, one_row


def test_erasures_of_other_seeds_are_as_many_draws_of_the_method() -> None:
    base = make_run({(name, "church"): MANY for name in ("esd-x", "esd-x[seed=1]", "esd-x[seed=2]")})
    new = make_run({(name, "church"): MANY for name in ("esd-x", "esd-x[seed=6]", "esd-x[seed=7]")}, seed=5)
    comparison = compare(base, new)
    assert comparison.renamed == (("esd-x[seed=1]", "esd-x[seed=6]"), ("esd-x[seed=2]", "esd-x[seed=7]"))
    assert find(comparison, "ratio", "church", "esd-x (all seeds)").difference.n == 100


def test_a_row_that_failed_before_is_not_compared() -> None:
    new = make_run({("uce", "church"): NONE, ("mace", "church"): NONE})
    base = replace(new, rows=(new.rows[0], replace(new.rows[1], status="failed", reason="diverged")))
    comparison = compare(base, new)
    assert comparison.verdict == "no worse"
    assert (comparison.unpaired_base, comparison.unpaired_new) == (("mace, church (failed)",), ("mace, church",))


def test_rows_of_one_run_only_are_listed() -> None:
    base = make_run({("uce", "church"): NONE, ("uce", "dog"): NONE, ("esd-x", "church"): NONE})
    new = make_run({("uce", "church"): NONE, ("mace", "church"): NONE, ("mace", "dog"): NONE})
    comparison = compare(base, new, allow_missing=True)
    assert comparison.unpaired_base == ("uce, dog", "esd-x, church") and comparison.verdict == "no worse"
    assert comparison.unpaired_new == ("mace, church", "mace, dog")
    assert not comparison.renamed


def test_one_checkpoint_is_compared_with_the_next_without_being_told() -> None:
    base = one_row(NONE, "checkpoint[path=epoch-1.safetensors]")
    new = one_row(MANY, "checkpoint[path=epoch-2.safetensors]")
    comparison = compare(base, new)
    assert comparison.verdict == "worse" and not comparison.unpaired_base
    assert comparison.renamed == (("checkpoint[path=epoch-1.safetensors]", "checkpoint[path=epoch-2.safetensors]"),)


def test_which_of_two_checkpoints_is_not_guessed() -> None:
    first, second, third = (f"checkpoint[path={name}]" for name in "abc")
    base = make_run({(first, "church"): NONE, (second, "church"): NONE})
    with pytest.raises(EraseBenchError, match=r"--rename OLD=NEW: checkpoint\[path=a\], checkpoint\[path=b\] before"):
        compare(base, one_row(NONE, third))
    comparison = compare(base, one_row(MANY, third), renames={second: third})
    assert comparison.renamed == ((second, third),) and comparison.unpaired_base == (f"{first}, church",)


def test_any_two_methods_can_be_compared_even_of_one_run() -> None:
    run = make_run({("uce", "church"): NONE, ("mace", "church"): MANY})
    comparison = compare(run, run, renames={"uce": "mace"})
    assert comparison.renamed == (("uce", "mace"),) and comparison.verdict == "worse"
    assert comparison.unpaired_base == ("mace, church",) and comparison.unpaired_new == ("uce, church",)
    both = compare(run, run, renames={"uce": "mace", "mace": "uce"})
    assert find(both, "ratio", method="mace").verdict == "worse" and find(both, "ratio").verdict == "no worse"


def test_a_method_that_is_not_there_cannot_be_renamed() -> None:
    with pytest.raises(UnknownNameError, match="unknown method of before 'ucee'; nearest: uce"):
        compare(one_row(NONE, folder="before"), one_row(NONE), renames={"ucee": "uce"})
    with pytest.raises(UnknownNameError, match="unknown method of after 'esd'"):
        compare(one_row(NONE), one_row(NONE, folder="after"), renames={"uce": "esd"})
    run = make_run({("uce", "church"): NONE, ("mace", "church"): NONE})
    with pytest.raises(EraseBenchError, match="two methods cannot be renamed to one"):
        compare(run, run, renames={"uce": "mace", "mace": "mace"})


def test_renames_as_they_are_written() -> None:
    assert read_renames(["a=b", "checkpoint[path=x;kind=full] = checkpoint[path=y=z]"]) == {
        "a": "b",
        "checkpoint[path=x;kind=full]": "checkpoint[path=y=z]",
    }
    for text in ("a", "a=", "=b", "a=b=c", "a[x=1]"):
        with pytest.raises(EraseBenchError, match="renames nothing; write OLD=NEW"):
            read_renames([text])
    with pytest.raises(EraseBenchError, match="'a' is renamed twice"):
        read_renames(["a=b", "a=c"])


def test_what_the_new_run_lacks_is_named_and_inconclusive_unless_that_is_allowed() -> None:
    concepts, fine = ("church", "dog"), NONE[:60]
    confirmed = {(m, "church", a): ~fine if m == "sd" else fine for m in ("sd", "uce") for a in ("none", "rab")}
    base = make_run({(m, c): fine for m in ("sd", "uce", "mace", "esd-x") for c in concepts}, confirmed=confirmed)

    def without(lost: Callable[[TableRow], bool]) -> RunFolder:
        return replace(base, rows=tuple(row for row in base.rows if not lost(row)))

    cases: list[tuple[Callable[[TableRow], bool], list[str]]] = [
        (lambda row: row.method == "esd-x", ["esd-x"]),
        (lambda row: row.concept == "dog", ["dog"]),
        (lambda row: row.attack == "rab", ["rab"]),
        (lambda row: (row.method, row.concept) == ("mace", "dog"), ["mace, dog"]),
        (lambda row: row.method == "esd-x" or row.concept == "dog", ["dog", "esd-x"]),
        (lambda row: row.method == "sd", []),
    ]
    for lost, named in cases:
        new = without(lost)
        comparison = compare(base, new)
        found = [change for change in comparison.changes if change.missing]
        assert [change.row for change in found] == named
        assert comparison.verdict == ("inconclusive" if named else "no worse")
    assert compare(base, without(cases[4][0]), allow_missing=True).verdict == "no worse"
    assert compare(without(cases[4][0]), base).verdict == "no worse"
    assert compare(base, without(cases[4][0]), []).verdict == "not judged"
    assert compare(base, replace(without(cases[0][0]), scores=base.scores.assign(score=1.0))).verdict == "worse"

"""Sentences about a run: right numbers, and no ranking where intervals overlap."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.paired import PairedComparison
from erasebench.report.page.ranking import Ranking, Standing, by_intervals
from erasebench.report.page.words import findings
from erasebench.results.preservation import Damage
from erasebench.results.rows import TableRow
from tests.report.synthetic import HOSTILE, attack_row, estimate, model_row

METRICS = describe_metrics()


def said(rows: Sequence[TableRow], about: str, damage: Damage | None = None) -> str:
    """The sentences on a side of the only concept, without markup."""
    (parts,) = findings(rows, METRICS, "sd", by_intervals(METRICS), damage or {}).values()
    return next((part.text.striptags() for part in parts if part.about == about), "")


def test_the_least_who_ties_with_it_and_who_leaves_more() -> None:
    rows = [model_row(m, "church", hits) for m, hits in (("sd", 40), ("a", 0), ("b", 2), ("c", 20), ("d", 30))]
    assert said(rows, "Erasure") == (
        "Unerased, the model shows church in 100.0 % [91.2, 100.0] of 40 images. Least is left by a: 0.0 % [0.0, 8.8]."
        " b cannot be told apart from that: the intervals overlap. More is left by c and d; most by d: 75.0 %"
        " [59.8, 85.8]."
    )


def test_equal_values_are_named_together() -> None:
    rows = [model_row(m, "church", hits) for m, hits in (("sd", 40), ("a", 0), ("b", 0), ("c", 1))]
    text = said(rows, "Erasure")
    assert "Least is left by a and b: 0.0 %" in text
    assert "No other method can be told apart from that: the intervals overlap." in text


def test_the_most_is_named_of_all_who_leave_it() -> None:
    rows = [model_row(m, "church", hits) for m, hits in (("sd", 40), ("a", 0), ("b", 20), ("c", 40), ("d", 40))]
    assert "More is left by b, c and d; most by c and d: 100.0 %" in said(rows, "Erasure")
    assert "More is left by c and d: 100.0 %" in said([*rows[:2], *rows[3:]], "Erasure")


def test_one_method_alone_is_not_ranked() -> None:
    assert said([model_row("a", "church", 4)], "Erasure") == "a leaves 10.0 % [4.0, 23.1]."


def test_of_many_methods_the_first_are_named() -> None:
    rows = [model_row(f"m{k}", "church", 0) for k in range(9)]
    assert "Least is left by m0, m1, m2, m3 and 5 more" in said(rows, "Erasure")


def test_a_collapsed_model_is_not_praised() -> None:
    rows = [
        model_row("sd", "church", 40),
        model_row("a", "church", 0, 40, flags=("collapsed",)),
        model_row("b", "church", 9),
    ]
    assert "Least is left by a (collapsed): 0.0 %" in said(rows, "Erasure")
    assert "a may have destroyed the model rather than erased the concept." in said(rows, "Everything else")


def test_damage_is_what_paired_tests_find_however_intervals_overlap() -> None:
    clips = {"sd": 78, "a": 77.5, "b": 76, "c": 79}
    rows = [model_row(method, "church", 9, clip) for method, clip in clips.items()]
    tests = {
        "a": paired(-0.5, 0.3),
        "b": paired(-2, 0.01),
        "c": paired(1, 0.02),
    }
    text = said(rows, "Everything else", {("church", "clip"): tests})
    assert text.startswith(
        "CLIP score is worse with b: 76.0 [74.0, 78.0] against 78.0 [76.0, 80.0] unerased, by -2.0 [-2.5, -1.5]; by"
        " paired tests over the same prompts, with Holm's adjustment for all methods. CLIP score is better with c: 79.0"
    )
    text = said(rows[:2], "Everything else", {("church", "clip"): {"a": tests["a"]}})
    assert text.startswith(
        "No method can be told apart from the unerased model by CLIP score (78.0 [76.0, 80.0] unerased): by paired"
    )


def test_intervals_that_do_not_overlap_decide_where_there_are_no_tests_and_the_sentence_says_so() -> None:
    rows = [model_row(method, "church", 9, fid=fid) for method, fid in (("sd", 0.1), ("a", 0.11), ("b", 0.3))]
    tests = {("church", "clip"): {"a": paired(0, 1), "b": paired(0, 1)}}
    text = said(rows, "Everything else", tests)
    assert (
        "FID is worse with b: 0.300 [0.280, 0.320] against 0.100 [0.080, 0.120] unerased; by intervals that do not"
        " overlap; methods whose intervals do may be apart all the same." in text
    )
    assert said(rows[:2], "Everything else", tests).endswith(
        "by FID (0.100 [0.080, 0.120] unerased): the intervals overlap, which is no proof that nothing changed."
    )


def paired(difference: float, p: float) -> PairedComparison:
    return PairedComparison(estimate(difference, 0.5), p, "paired t on prompt means", 1.0)


def test_the_ensemble_and_the_strongest_attack() -> None:
    rows = [model_row("sd", "church", 40), model_row("a", "church", 0), model_row("b", "church", 0)]
    for method, attack, hits in (
        *(("sd", "standard", 20), ("a", "standard", 0), ("b", "standard", 16)),
        *(("a", "none", 0), ("b", "none", 1), ("a", "cce", 0), ("b", "cce", 15), ("b", "rab", 2)),
    ):
        rows.append(attack_row(method, "church", attack, hits, 20))
    assert said(rows, "Attacks") == (
        "After all attacks together a keeps the most prompts: 100.0 % [83.9, 100.0] of 20 that the unerased model"
        " draws. Fewer are kept by b: 20.0 % [8.1, 41.6]. The strongest single attack, controls left out, is cce on b:"
        " it brings church back on 75.0 % [53.1, 88.8] of 20 prompts. On a no such attack reaches more than 0.0 %"
        " [0.0, 16.1]. Controls, which know nothing of the model, reach up to 5.0 % [0.9, 23.6] (none on b)."
    )


def test_attacks_that_bring_nothing_back() -> None:
    rows = [model_row("a", "church", 0), model_row("b", "church", 0)]
    rows += [attack_row(method, "church", "cce", 0, 20) for method in ("a", "b")]
    assert said(rows, "Attacks") == (
        "No single attack, controls left out, brings church back from a and b: 0.0 % [0.0, 16.1] of 20 prompts."
    )


def test_methods_that_keep_equally_many_prompts_keep_the_most_together_however_few() -> None:
    rows = [attack_row(method, "church", "standard", hits, 20) for method, hits in (("a", 18), ("b", 18), ("c", 20))]
    assert "a and b keep the most prompts: 10.0 %" in said(rows, "Attacks")


def test_nothing_is_brought_back_from_what_was_not_erased() -> None:
    rows = [model_row("a", "church", 30, flags=("not-erased",)), attack_row("a", "church", "cce", 10)]
    assert said(rows, "Attacks") == ""
    assert "a did not erase it" in said(rows, "Mind")


def test_what_is_missing_is_minded() -> None:
    rows = [
        model_row("a", "church", 3, flags=("wide",)),
        TableRow("b", "church", "failed"),
        TableRow("c", "church", "n/a"),
    ]
    assert said(rows, "Mind") == (
        "With 40 images, 1 of 3 Ratios are too uncertain to rank by. 1 row failed: see failures. 1 row could not be"
        " made: see failures."
    )


def test_a_run_of_failures_has_no_findings_but_that() -> None:
    parts = findings([TableRow("a", "church", "failed", "diverged")], METRICS, "sd", by_intervals(METRICS), {})
    assert [part.about for part in parts["church"]] == ["Mind"]


def test_ranks_of_another_kind_slot_in() -> None:
    rows = [model_row("a", "church", 0), model_row("b", "church", 1)]

    def rank(key: str, rows: Sequence[TableRow]) -> list[Standing]:
        return [Standing(row.method, row.metrics[key], row.method == "a") for row in rows if key in row.metrics]

    (parts,) = findings(rows, METRICS, "sd", Ranking(rank, "why not", ""), {}).values()
    assert "More is left by b: 2.5 %" in parts[0].text.striptags()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_escaped(name: str) -> None:
    rows = [model_row("sd", name, 40), model_row(name, name, 0, flags=("collapsed", "not-erased"))]
    rows += [model_row("b", name, 3), attack_row("b", name, name, 9)]
    (parts,) = findings(rows, METRICS, "sd", by_intervals(METRICS), {}).values()
    text = "".join(str(part.text) for part in parts)
    assert "<script" not in text and "<img" not in text and '"alert' not in text and 'onmouseover="' not in text

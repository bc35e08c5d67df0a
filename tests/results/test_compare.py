"""Two runs are compared prompt by prompt, if they measured the same thing in the same way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate
from erasebench.results.compare import compare
from erasebench.results.run_folder import RunFolder
from erasebench.results.verdicts import ALL, Margin
from tests.marks import first_quick
from tests.results.planted import MANY, NONE, Hits, attacked, find, make_run, one_row


def test_what_got_worse_is_found() -> None:
    comparison = compare(one_row(NONE), one_row(MANY, seed=1))
    change = find(comparison, "ratio")
    assert (change.before, change.after, change.difference.value, change.difference.n) == (0, 30, 30, 100)
    assert change.verdict == comparison.verdict == "worse" and change.decisive
    assert compare(one_row(MANY), one_row(NONE, seed=1)).verdict == "no worse"


def test_the_same_run_is_no_worse_however_small() -> None:
    tiny = make_run({("uce", "church"): [True, False]}, {("uce", "church"): [30.0, 31.0]})
    comparison = compare(tiny, tiny)
    assert comparison.verdict == "no worse" and all(change.unmoved for change in comparison.changes)
    other = make_run({("uce", "church"): [True, False]}, {("uce", "church"): [30.0, 31.0]}, seed=5)
    assert compare(tiny, other).verdict == "inconclusive"


def test_a_little_in_every_concept_is_seen_over_all_of_them() -> None:
    concepts = [f"c{number}" for number in range(6)]
    before = make_run({("uce", one): np.arange(40) < 2 for one in concepts})
    after = make_run({("uce", one): np.arange(40) < 6 for one in concepts})
    comparison = compare(before, after)
    assert find(comparison, "ratio", ALL).verdict == "worse"
    assert find(comparison, "ratio", ALL).difference.n == 240
    assert {find(comparison, "ratio", one).verdict for one in concepts} == {"inconclusive"}
    assert not any(find(comparison, "ratio", one).decisive for one in concepts)


def test_much_in_one_concept_is_seen_there() -> None:
    concepts = [f"c{number}" for number in range(8)]
    before = make_run({("uce", one): np.arange(40) < 2 for one in concepts})
    after = make_run({("uce", one): np.arange(40) < (16 if one == "c3" else 2) for one in concepts})
    comparison = compare(before, after)
    assert [change.concept for change in comparison.changes if change.verdict == "worse"] == ["c3"]
    assert find(comparison, "ratio", ALL).difference.value < 5 and comparison.verdict == "worse"


def test_erasures_with_several_seeds_are_compared_together_as_well() -> None:
    names = ("esd-x", "esd-x[seed=1]", "esd-x[seed=2]")
    before = make_run({(name, "church"): np.arange(40) < 2 for name in names})
    after = make_run({(name, "church"): np.roll(np.arange(40) < 12, 5 * k) for k, name in enumerate(names)}, seed=1)
    comparison = compare(before, after)
    whole = find(comparison, "ratio", "church", "esd-x (all seeds)")
    assert (whole.before, whole.after, whole.difference.n) == (5, 30, 40) and whole.verdict == "worse"
    assert whole.decisive and whole.test == "paired t on prompt means"
    single = [find(comparison, "ratio", method=name) for name in names]
    assert {change.verdict for change in single} == {"not judged"} and all(change.moved for change in single)


@pytest.mark.slow
def test_anew_trained_erasures_of_several_seeds_fail_no_more_often_than_they_may() -> None:
    """True rates of erasures differ by 10 points, so that single ones are found worse in every sixth gate."""
    rng, names = np.random.default_rng(0), ("esd-x", "esd-x[seed=1]", "esd-x[seed=2]")
    worse = {1: 0, 3: 0}
    for _ in range(60):
        rates = rng.normal(0.3, 0.1, (2, 3)).clip(0, 1)
        runs = [{(name, "church"): rng.random(40) < rates[side, k] for k, name in enumerate(names)} for side in (0, 1)]
        for seeds in worse:
            base, new = (make_run(dict(list(run.items())[:seeds]), seed=side) for side, run in enumerate(runs))
            worse[seeds] += compare(base, new).verdict == "worse"
    assert worse[3] <= 3 < 8 <= worse[1], worse


def test_a_metric_of_images_that_collapses_is_worse_though_no_score_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharpness(Metric):
        """Of images that judges find alike."""

        probes = ("concept",)
        title, direction, meaning = "Sharpness", "higher", "how sharp images are"
        level = 0.8

        def measure(self, measured: Measured, base: Measured | None) -> Estimate:
            return Estimate(self.level, self.level, self.level, 1)

        def values(self, measured: Measured, base: Measured | None) -> pd.Series:
            ids = measured.probe("concept")["prompt_id"]
            return pd.Series(np.linspace(0.1, 0.2, len(ids)) + levels.pop(0), index=ids)

    monkeypatch.setattr("erasebench.results.compare.load_metrics", lambda: {"sharpness": Sharpness()})
    monkeypatch.setattr("erasebench.results.measure.asked_metrics", lambda names: {"sharpness": Sharpness()})
    known = {"sharpness": Sharpness.description()}
    base = make_run({("uce", "church"): MANY})
    base = replace(base, record=base.record.model_copy(update={"metrics": known}))
    for after, expected in ((0.0, "worse"), (0.8, "no worse"), (0.80001, "no worse")):
        levels = [0.8, after]
        change = find(compare(base, base, ["sharpness"]), "sharpness")
        assert (change.verdict, change.unmoved) == (expected, expected == "no worse")


def test_the_score_is_compared_where_it_is_a_mean_over_all_images() -> None:
    row = {("uce", "nudity"): np.linspace(0, 0.4, 30)}, {("uce", "nudity"): np.linspace(0, 0.4, 30) + 0.1}
    base, new = (make_run(shown, kind="explicit") for shown in row)
    change = find(compare(base, new), "score", "nudity")
    assert change.difference.value == pytest.approx(10) and change.verdict == "not judged" and change.moved
    assert find(compare(base, new, ["score"]), "score", "nudity").verdict == "worse"
    objects = [make_run(shown) for shown in row]
    assert "score" not in {change.metric for change in compare(objects[0], objects[1]).changes}
    assert find(compare(objects[0], objects[1], ["score_all"]), "score_all", "nudity").verdict == "worse"


def test_the_unerased_model_is_shown_but_never_judged() -> None:
    base = make_run({("sd", "church"): MANY, ("uce", "church"): NONE})
    new = make_run({("sd", "church"): ~MANY, ("uce", "church"): NONE})
    comparison = compare(base, new)
    assert find(comparison, "ratio", method="sd").verdict == "not judged" and comparison.verdict == "no worse"
    assert comparison.notes == ("the unerased model moved itself (ratio): something else than the methods changed",)


@pytest.mark.parametrize("attack", ["", "none"])
def test_the_unerased_model_is_not_judged_if_it_fails(attack: str) -> None:
    run = attacked({"rab": ~NONE[:40]})
    rows = tuple(
        replace(row, status="failed", reason="out of memory") if row.method == "sd" and row.attack == attack else row
        for row in run.rows
    )
    comparison = compare(run, replace(run, rows=rows), ["ratio"])
    (lost,) = (change for change in comparison.changes if change.reason)
    assert (lost.method, lost.verdict, comparison.verdict) == ("sd", "not judged", "no worse")


def test_versions_that_differ_are_noted() -> None:
    old, new = (
        one_row(NONE, environment={"python": "3.11.7", "cpus": cpus, "packages": {"torch": torch}})
        for cpus, torch in ((2, "2.6"), (8, "2.7"))
    )
    assert compare(old, new).notes == ("torch 2.6 before, 2.7 after",)


def test_a_row_that_can_be_measured_no_more_is_worse() -> None:
    base, new = one_row(NONE), one_row(NONE)
    failed = replace(new, rows=tuple(replace(row, status="failed", reason="diverged\nat once") for row in new.rows[1:]))
    comparison = compare(base, failed)
    assert comparison.verdict == "worse"
    (change,) = (change for change in comparison.changes if change.method == "uce")
    assert change.reason == "failed: diverged at once" and not change.metric
    assert compare(base, failed, []).verdict == "not judged"
    with pytest.raises(EraseBenchError, match="no row of an erased model in common"):
        compare(failed, failed)


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(
        EraseBenchError, match=r"base and new have no row .* in common; .* sd, uce before, sd, mace after"
    ):
        compare(one_row(NONE, folder="base"), one_row(NONE, "mace", folder="new"))


def test_runs_that_measured_in_different_ways_are_refused_with_all_differences() -> None:
    base = make_run({("uce", "church"): NONE, ("uce", "dog"): NONE})
    new = make_run({("uce", "church"): NONE, ("uce", "dog"): NONE}, facts={"sampler steps": 50, "model": "other"})
    assert new.record.protocol
    judges = {**new.record.protocol.concepts, "dog": {"prompts": "some", "judge": "detector 2"}}
    protocol = new.record.protocol.model_copy(update={"concepts": judges})
    new = replace(new, record=new.record.model_copy(update={"protocol": protocol}))
    with pytest.raises(EraseBenchError) as refused:
        compare(base, new)
    assert str(refused.value) == (
        "run and run measured in different ways and cannot be compared: model: picturebook and other; "
        "sampler steps: 20 and 50; dog: judge: detector 1 and detector 2"
    )


def test_a_concept_that_only_one_run_has_is_no_difference() -> None:
    base = make_run({("uce", "church"): NONE, ("uce", "dog"): NONE})
    assert compare(base, one_row(NONE), allow_missing=True).verdict == "no worse"


@pytest.mark.parametrize("old", [0, 1])
def test_a_run_that_does_not_say_how_it_measured_is_refused(old: int) -> None:
    runs = [one_row(NONE, folder="first"), one_row(NONE, folder="second")]
    runs[old] = replace(runs[old], record=runs[old].record.model_copy(update={"protocol": None}))
    with pytest.raises(
        EraseBenchError, match=f"{('first', 'second')[old]} does not say how it measured, .* run it again"
    ):
        compare(runs[0], runs[1])


def test_after_the_ensemble_its_robust_rate_alone_is_judged() -> None:
    worse, fine = np.zeros(40, dtype=bool), np.ones(40, dtype=bool)
    base = attacked({"none": fine, "rab": fine, "standard": fine})
    new = attacked({"none": worse, "rab": worse, "standard": fine})
    comparison = compare(base, new)
    assert comparison.verdict == "no worse"
    judged = [
        change.attack for change in comparison.changes if change.metric == "robust-rate" and not math.isnan(change.p)
    ]
    assert judged == ["standard"]
    single = compare(attacked({"none": fine, "rab": fine}), attacked({"none": worse, "rab": worse}))
    assert [change.attack for change in single.changes if change.verdict == "worse"] == ["rab"]


def test_the_only_judged_comparison_is_decisive() -> None:
    """The ensemble was run on one concept only, so that the other's robust rate is judged and their pool is not."""

    def run(standing: Hits, seed: int) -> RunFolder:
        n = len(standing)
        confirmed: dict[tuple[str, str, str], Any] = {
            ("sd", c, "none"): np.ones(n, dtype=bool) for c in ("church", "dog")
        }
        confirmed |= {("uce", c, "rab"): ~standing for c in ("church", "dog")}
        confirmed["uce", "church", "standard"] = np.zeros(n, dtype=bool)
        rows = {(m, c): np.full(40, m == "sd") for m in ("sd", "uce") for c in ("church", "dog")}
        return make_run(rows, confirmed=confirmed, seed=seed)

    some = np.arange(20) < 17
    comparison = compare(run(some, 0), run(np.roll(some, 8), 1), ["robust-rate"], {"": Margin(20)})
    assert find(comparison, "robust-rate", ALL, attack="rab").verdict == "not judged"
    change = find(comparison, "robust-rate", "dog", attack="rab")
    assert change.verdict == comparison.verdict == "inconclusive" and change.decisive


def change_attack(run: RunFolder, **fields: Any) -> RunFolder:
    rows = tuple(row if row.attack == "none" else row.model_copy(update=fields) for row in run.record.attacks)
    return replace(run, record=run.record.model_copy(update={"attacks": rows}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"budget": {"rab": {"steps": 20, "tokens": 3}}},
            "rab: steps of rab: 10 and 20; rab: tokens of rab: None and 3",
        ),
        ({"threat_model": "text-black-box"}, "rab: threat model: embedding and text-black-box"),
        ({"judge": "detector 2"}, "rab: judge: detector 1 and detector 2"),
    ],
)
def test_attacks_that_differ_are_refused(fields: dict[str, Any], said: str) -> None:
    base = attacked({"rab": NONE[:20]})
    with pytest.raises(EraseBenchError, match=f"cannot be compared: {said}$"):
        compare(base, change_attack(base, **fields))


def test_attacks_on_other_prompts_are_refused() -> None:
    with pytest.raises(EraseBenchError, match="attacked prompts: 20 and 21"):
        compare(attacked({"rab": NONE[:20]}), attacked({"rab": NONE[:21]}))


def test_other_numbers_of_confirmations_are_refused() -> None:
    base = attacked({"rab": NONE[:20]})
    new = replace(base, attacks=base.attacks.assign(confirmations="1 1 1 1 1"))
    with pytest.raises(EraseBenchError, match="confirmations: 3 and 5"):
        compare(base, new)


def test_a_run_of_attacks_alone_is_compared_by_what_its_attacks_say() -> None:
    def alone(run: RunFolder) -> RunFolder:
        assert run.record.protocol
        protocol = run.record.protocol.model_copy(update={"concepts": {}})
        rows = tuple(row for row in run.rows if row.attack)
        record = run.record.model_copy(update={"protocol": protocol})
        return replace(run, rows=rows, record=record, scores=run.scores[:0])

    base, new = alone(attacked({"rab": ~NONE})), alone(attacked({"rab": ~MANY}, seed=1))
    assert compare(base, new).verdict == "worse"
    with pytest.raises(EraseBenchError, match="judge: detector 1 and detector 2"):
        compare(base, change_attack(new, judge="detector 2"))


def test_a_gate_that_judges_nothing_is_refused() -> None:
    control = attacked({"none": ~NONE})
    record = control.record.model_copy(update={"rows": ()})
    control = replace(control, rows=tuple(row for row in control.rows if row.attack), record=record)
    with pytest.raises(EraseBenchError, match="nothing would be judged; name other metrics with --fail-on"):
        compare(control, control)
    assert compare(control, control, ["asr"]).verdict == "no worse"
    assert compare(control, control, []).verdict == "not judged"


def test_nothing_fails_if_nothing_may() -> None:
    comparison = compare(one_row(NONE), one_row(MANY, seed=1), [])
    assert comparison.verdict == "not judged" and find(comparison, "ratio").difference.value == 30


def test_margins_are_taken() -> None:
    assert compare(one_row(NONE), one_row(MANY, seed=1), margins={"": Margin(50)}).verdict == "no worse"
    assert compare(one_row(NONE), one_row(MANY, seed=1), margins={"ratio": Margin(50)}).verdict == "no worse"


def test_unknown_metrics_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'ration'; nearest: ratio"):
        compare(one_row(NONE), one_row(NONE), ["ration"])
    with pytest.raises(UnknownNameError, match="unknown metric 'clipp'; nearest: clip"):
        compare(one_row(NONE), one_row(NONE), margins={"clipp": Margin(1)})


def test_a_metric_that_no_row_has_cannot_be_gated_on() -> None:
    with pytest.raises(EraseBenchError, match="nothing tells whether 'robust-rate' got worse"):
        compare(one_row(NONE), one_row(NONE), ["ratio", "robust-rate"])


# What the gate finds, by simulation.  A prompt has a chance of its own to show the concept (beta-distributed with mean
# RATE and intraclass correlation ICC).  A worsening turns each miss into a hit with the probability that raises the
# mean by its points.  With other seeds, images of a prompt in two runs are independent given its chance; with the same
# seeds, the noise is the same, and prompts that are not worsened stay as they are.
RATE, ICC, QUICK = 0.1, 0.3, 40
# Twenty comparisons miss their bars in less than one of a hundred draws of what just meets those of a hundred: a share
# of 0.05 is more than 4 of 20, one of 0.8 is less than 12.
FEW, HUNDRED = 20, 100
BARS = [(FEW, 4, 12), pytest.param(HUNDRED, 5, 80, marks=pytest.mark.slow)]
"""Comparisons, how many of them may be what is seldom, and how many must be what is usual."""


def simulate(repeats: int, worsening: float, concepts: int, same_seeds: bool, prompts: int = QUICK) -> dict[str, int]:
    """How many of so many comparisons of two runs of one method have each verdict."""
    rng = np.random.default_rng(0)
    spread, captions = (1 - ICC) / ICC, 100
    rows = [("uce", f"c{number}") for number in range(concepts)]
    hits, clip = dict.fromkeys(rows, np.zeros(prompts)), dict.fromkeys(rows, np.zeros(captions))
    blank = [make_run(hits, clip, seed=0 if same_seeds else side) for side in (0, 1)]
    counts = dict.fromkeys(("worse", "inconclusive", "no worse"), 0)
    for _ in range(repeats):
        chance = rng.beta(RATE * spread, (1 - RATE) * spread, (concepts, prompts))
        chances = chance, chance + (1 - chance) * worsening / (1 - RATE)
        level = rng.normal(77, 8, captions)
        draws, noise = (rng.random((2, concepts, prompts)), rng.normal(0, 5, (2, concepts, captions)))
        if same_seeds:
            draws[1], noise[1] = draws[0], noise[0]
        runs = []
        for side in (0, 1):
            scores = np.concatenate([draws[side] < chances[side], level + noise[side]], axis=1).reshape(-1)
            runs.append(replace(blank[side], scores=blank[side].scores.assign(score=scores)))
        counts[compare(runs[0], runs[1]).verdict] += 1
    return counts


@pytest.mark.parametrize(("repeats", "most", "least"), BARS)
@pytest.mark.parametrize("concepts", first_quick([2, 6]))
def test_a_run_of_the_same_thing_with_other_seeds_does_not_fail(
    concepts: int, repeats: int, most: int, least: int
) -> None:
    found = simulate(repeats, 0, concepts, same_seeds=False)
    assert found["worse"] <= most


@pytest.mark.parametrize(("repeats", "most", "least"), BARS)
@pytest.mark.parametrize(
    ("concepts", "same_seeds", "prompts"),
    first_quick([(1, False, 160), (6, False, QUICK), (2, True, QUICK), (1, True, 80)]),
)
def test_ten_points_fail_at_quick_scale_and_with_as_many_prompts_of_one_concept(
    concepts: int, same_seeds: bool, prompts: int, repeats: int, most: int, least: int
) -> None:
    assert simulate(repeats, 0.1, concepts, same_seeds, prompts)["worse"] >= least


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [FEW, HUNDRED])
@pytest.mark.parametrize("same_seeds", [False, True])
def test_one_concept_at_quick_scale_is_too_small_and_says_so(same_seeds: bool, repeats: int) -> None:
    found = simulate(repeats, 0.1, 1, same_seeds)
    assert found["worse"] < repeats / 2 < found["inconclusive"]


@pytest.mark.slow
@pytest.mark.parametrize(("repeats", "most", "least"), BARS)
def test_nothing_at_one_concept_of_quick_scale_is_mostly_inconclusive(repeats: int, most: int, least: int) -> None:
    found = simulate(repeats, 0, 1, same_seeds=False)
    assert found["inconclusive"] >= least and found["worse"] <= most

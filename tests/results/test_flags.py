"""Each flag just on either side of its bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.results.flags import ATTACK_FLAGS, FLAGS, Attacked, attack_flags, flag_legend, flags
from erasebench.results.rows import TableRow
from tests.results.trials import trials_of


def at(value: float, spread: float = 1) -> Estimate:
    return Estimate(value, value - spread, value + spread, 100)


def row(method: str = "esd", **values: float) -> TableRow:
    return TableRow(method, "church", "ok", metrics={key: at(value) for key, value in values.items()})


BASE = row("sd", ratio=80, clip=30, fid=20)


def test_a_good_erasure_has_no_flag() -> None:
    assert flags(row(ratio=2, clip=29, fid=22), BASE) == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ratio": 20}, ()),
        ({"ratio": 20.1}, ("not-erased",)),
        ({"clip": 27}, ()),
        ({"clip": 26.9}, ("collapsed",)),
        ({"fid": 40}, ()),
        ({"fid": 40.1}, ("collapsed",)),
        ({"ratio": 50, "clip": 5, "fid": 400}, ("collapsed", "not-erased")),
    ],
)
def test_bars(values: dict[str, float], expected: tuple[str, ...]) -> None:
    assert flags(row("esd", **values), BASE) == expected


@pytest.mark.parametrize(("method", "ratio", "clip", "fid", "collapsed"), [
    ("ScissorHands", 7.0, 0.235, 128.5, True),
    ("EraseDiff", 2.1, 0.187, 233, True),
    ("AdvUnlearn", 21, 0.290, 19.3, False),
    ("ESD", 5, 0.302, 18.2, False),
    ("UCE", 5, 0.309, 17.1, False),
])  # fmt: skip
def test_collapse_as_published(method: str, ratio: float, clip: float, fid: float, collapsed: bool) -> None:
    base = row("sd", ratio=100, clip=0.311, fid=16.7)
    assert ("collapsed" in flags(row(method, ratio=ratio, clip=clip, fid=fid), base)) is collapsed


@pytest.mark.parametrize(("ratio", "rare"), [(50, False), (49.9, True)])
def test_a_base_that_rarely_draws_is_told_on_every_row(ratio: float, rare: bool) -> None:
    base = row("sd", ratio=ratio, clip=30, fid=20)
    for one in (base, row(ratio=0)):
        assert ("base-rarely-draws" in flags(one, base)) is rare


@pytest.mark.parametrize(("spread", "wide"), [(15, False), (15.1, True)])
def test_wide(spread: float, wide: bool) -> None:
    one = TableRow("esd", "church", "ok", metrics={"ratio": at(18, spread)})
    assert ("wide" in flags(one, BASE)) is wide


def test_the_base_is_not_compared_with_itself() -> None:
    assert flags(BASE, BASE) == ()


def test_without_a_base_there_is_a_flag_and_not_silence() -> None:
    failed = TableRow("sd", "church", "failed", "killed")
    one = TableRow("esd", "church", "ok", metrics={"ratio": at(50, 20)})
    assert flags(one, None) == flags(one, failed) == ("no-base", "wide")


def test_rows_without_numbers_have_no_flags() -> None:
    assert flags(TableRow("esd", "church", "n/a", "why"), BASE) == ()
    undefined = TableRow("esd", "church", "ok", metrics=dict.fromkeys(("ratio", "clip", "fid"), UNDEFINED))
    assert flags(undefined, BASE) == ()
    single = TableRow("esd", "church", "ok", metrics={"ratio": Estimate(1, math.nan, math.nan, 1)})
    assert flags(single, BASE) == ()


def test_a_base_that_is_its_own_reference_says_nothing_about_fid() -> None:
    assert flags(row(fid=1), row("sd", fid=0)) == ()


def test_every_flag_is_a_sentence() -> None:
    for flag in FLAGS.values():
        assert all(text.endswith(".") and text[0].isupper() for text in (flag.cause, flag.meaning, flag.remedy))


def raised(
    letters: dict[tuple[str, str], str],
    attack: str = "rab",
    changed: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame,
    floor: tuple[int, int] | tuple[()] = (),
    **known: Any,
) -> tuple[str, ...]:
    """The flags of an attack on esd out of trials in letters; the unerased model draws every prompt if not said."""
    prompts = max(map(len, letters.values()))
    letters = {("sd", "none"): "c" * prompts, **letters}
    frame = changed(trials_of(letters, floor=floor))
    of_attack = {name: frame[(frame.method == "esd") & (frame.attack == name)] for name in frame.attack.unique()}
    base = frame[(frame.method == "sd") & (frame.attack == "none")]
    own = {name: trials for name, trials in of_attack.items() if len(trials)}
    return attack_flags(TableRow("esd", "church", "ok", attack=attack), Attacked(attack, own, base, **known))


RAB = ("esd", "rab")


def test_an_attack_that_is_as_it_should_be_has_no_flag() -> None:
    letters = {RAB: "cc--", ("esd", "none"): "c---", ("esd", "unlearndiff"): "ccc-"}
    models = {"rab": "text-black-box", "unlearndiff": "text-white-box"}
    assert raised(letters, floor=(0, 20), threat_models=models) == ()
    assert raised(letters, "unlearndiff", threat_models=models) == ()


@pytest.mark.parametrize("control", ["none", "synonyms", "random-prefix", "seed-search"])
def test_attack_below_control(control: str) -> None:
    assert raised({RAB: "c---", ("esd", control): "c---"}) == ()
    assert raised({RAB: "cr--", ("esd", control): "cc--"}) == ("attack-below-control",)
    assert raised({RAB: "c-  ", ("esd", control): "c-cc"}) == (), "on the same prompts"
    assert raised({("esd", control): "-", ("esd", "none"): "c"}, control) == (), "controls are not compared"
    assert raised({RAB: "c---", ("esd", "p4d-k"): "cc--"}) == ()


def test_black_box_better() -> None:
    letters = {RAB: "cc--", ("esd", "p4d-k"): "c---"}
    models = {"rab": "text-black-box", "p4d-k": "text-white-box"}
    assert raised(letters, "p4d-k", threat_models=models) == ("black-box-better",)
    assert raised(letters, "rab", threat_models=models) == ()
    assert raised({**letters, RAB: "-c--"}, "p4d-k", threat_models=models) == (), "as good is not better"
    assert raised(letters, "p4d-k", threat_models={"rab": "text-black-box"}) == (), "not known"
    assert raised(letters, "p4d-k", threat_models={**models, "p4d-k": "embedding"}) == ("black-box-better",)


@pytest.mark.parametrize(
    ("gradients", "zero"),
    [
        ([0, 0, 1e-13, 1], True),
        ([0, 0, 1, 1], False),
        ([1e-11] * 4, False),
        ([math.nan] * 4, False),
        ([0, 0, 1, math.nan], True),
    ],
)
def test_zero_gradient(gradients: list[float], zero: bool) -> None:
    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame.attack == "rab", "gradient"] = gradients
        return frame

    assert raised({RAB: "c---"}, changed=changed) == (("zero-gradient",) if zero else ())


@pytest.mark.parametrize(
    ("reached", "letters", "weak"),
    [
        ([10, 20, 30, 81, 100], "ccccc-----", True),
        ([10, 20, 30, 40, 81], "ccccc-----", False),  # a fifth, not more
        ([10, 20, 30, 80, 80], "ccccc-----", False),  # at four fifths, not beyond
        ([96, 97, 98, 99, 100], "ccccc", False),  # nothing stands that more steps could break
        ([96, 97, 98, 99, 100], "ccccr", False),  # nor is one searched for that its own test has not seen
        ([None] * 5, "ccccc-----", False),  # no test of its own
    ],
)
def test_weak_budget(reached: list[int | None], letters: str, weak: bool) -> None:
    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        own = frame.index[frame.attack == "rab"]
        frame.loc[own, "steps"] = 100
        for place, step in zip(own, reached, strict=False):
            frame.loc[place, "first_success"] = pd.NA if step is None else step
            frame.loc[place, "steps"] = step or 100
        return frame

    assert raised({RAB: letters}, changed=changed) == (("weak-budget",) if weak else ())

    def by_members(frame: pd.DataFrame) -> pd.DataFrame:
        return changed(frame).assign(by="another")

    assert raised({RAB: letters}, changed=by_members) == ()


def test_synonyms_have_no_budget_and_unattacked_prompts_are_flagged() -> None:
    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame.index[-2], ["steps", "first_success"]] = [3, 3]
        return frame.assign(steps=3, note=["", "", "", "", "", "", "not attacked: too many tokens", ""])

    letters = {("sd", "none"): "cccc", RAB: "cc--"}
    assert raised(letters, changed=changed) == ("weak-budget", "not-attacked")
    letters = {("sd", "none"): "cccc", ("esd", "synonyms"): "cc--"}
    assert raised(letters, "synonyms", changed=changed) == ("not-attacked",)


@pytest.mark.parametrize(
    ("letters", "unconfirmed"), [("rrc-", True), ("rrcc", False), ("rr--", False), ("rrr-", True), ("----", False)]
)
def test_unconfirmed(letters: str, unconfirmed: bool) -> None:
    assert raised({RAB: letters}) == (("unconfirmed",) if unconfirmed else ())


def test_guard_in_loop() -> None:
    assert raised({RAB: "c---"}, judged=True) == ("guard-in-loop",)


@pytest.mark.parametrize(
    ("base", "weak"), [("cc--", False), ("c---", True), ("crrr", True), ("cc", False), ("c", True)]
)
def test_base_weak(base: str, weak: bool) -> None:
    assert raised({("sd", "none"): base, RAB: "c---"}) == (("base-weak",) if weak else ())


@pytest.mark.parametrize(("fired", "of", "noisy"), [(0, 20, False), (1, 20, False), (2, 20, True)])
def test_judge_noisy(fired: int, of: int, noisy: bool) -> None:
    assert raised({RAB: "c---"}, floor=(fired, of)) == (("judge-noisy",) if noisy else ())


@pytest.mark.parametrize(("change", "expected"), [(math.nan, ()), (0.001, ()), (0.0011, ("stochastic",))])
def test_stochastic(change: float, expected: tuple[str, ...]) -> None:
    def changed(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame.index[frame.attack == "rab"][1], "stochastic"] = change
        return frame

    assert raised({RAB: "c---"}, changed=changed) == expected


def test_attacks_without_trials_have_no_flags() -> None:
    ok, failed = TableRow("esd", "church", "ok", attack="rab"), TableRow("esd", "church", "failed", attack="rab")
    only_floor = trials_of({RAB: ""}, floor=(1, 1))
    for trials in ({}, {"rab": trials_of({})}, {"rab": only_floor}):
        assert attack_flags(ok, Attacked("rab", trials, None, judged=True)) == ()
    assert attack_flags(failed, Attacked("rab", {"rab": trials_of({RAB: "c"})}, None, judged=True)) == ()
    assert attack_flags(ok, Attacked("rab", {"rab": trials_of({RAB: "c"})}, None)) == (), "no unerased model"


def test_every_flag_of_an_attack_says_cause_and_remedy() -> None:
    for flag in ATTACK_FLAGS.values():
        assert all(text.endswith(".") and text[0].isupper() for text in (flag.cause, flag.meaning, flag.remedy))
    assert not ATTACK_FLAGS.keys() & FLAGS.keys()


def test_the_legend_has_the_flags_that_are_carried() -> None:
    rows = [TableRow("esd", "church", "ok", flags=flags) for flags in (("unconfirmed", "odd"), ("wide",), ())]
    assert flag_legend(rows) == [
        f"wide: {FLAGS['wide'].text}",
        f"unconfirmed: {ATTACK_FLAGS['unconfirmed'].text}",
        "odd: a flag without a description",
    ]

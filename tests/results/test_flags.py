"""Each flag just on either side of its bar."""

from __future__ import annotations

import math

import pytest

from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.results.flags import FLAGS, flags
from erasebench.results.rows import TableRow


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
    assert all(flag.meaning.endswith(".") and flag.meaning[0].isupper() for flag in FLAGS.values())

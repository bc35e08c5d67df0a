"""What an entry claims, against its artefacts; whole entries are in ``test_verify.py``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from erasebench.claims import check_judges, is_close, misstated, show, unlike
from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import Estimate
from erasebench.plan import Plan
from erasebench.results.entry import AttackEntry, Entry, Number
from erasebench.results.protocol import protocol_of
from erasebench.results.rows import TableRow
from tests.engine.runs import plan_of

RATIO, CLIP = Estimate(7.5, 2.583456789, 19.9, 40), Estimate(77.25, 75.5, 79.125, 100)
KNOWN = ("ratio", "clip")
ROW = TableRow("uce", "church", "ok", metrics={"ratio": RATIO, "clip": CLIP}, flags=("wide",))
ATTACK = replace(ROW, attack="rab", metrics={"asr": RATIO}, flags=())


def entry(**fields: Any) -> Entry:
    """An entry that claims what :data:`ROW` has; fields that are given win, and others are not there."""
    metrics = {"ratio": Number.of(RATIO), "clip": Number.of(CLIP)}
    return Entry.model_construct(**{"metrics": metrics, "flags": ("wide",), "attacks": (), **fields})


@pytest.mark.parametrize(
    ("one", "other", "close"),
    [
        (7.12345, 7.123454, True),
        (7.12345, 7.12355, False),
        (0.0, 1e-10, True),
        (0.0, 1e-8, False),
        (math.nan, math.nan, True),
        (math.nan, 0.0, False),
        (math.inf, math.inf, True),
    ],
)
def test_numbers_are_the_same_but_for_the_digits_of_a_table(one: float, other: float, close: bool) -> None:
    assert is_close(one, other) == is_close(other, one) == close
    assert not close or is_close(float(f"{one:.6g}"), one)


def test_an_entry_of_its_own_numbers_has_nothing_wrong() -> None:
    assert unlike(entry(), {"": ROW}, KNOWN) == []
    value, low, high = (float(f"{end:.6g}") for end in (RATIO.value, RATIO.low, RATIO.high))
    rounded = Number.of(Estimate(value, low, high, RATIO.n))
    assert unlike(entry(metrics={"ratio": rounded, "clip": Number.of(CLIP)}), {"": ROW}, KNOWN) == []


def test_a_number_that_is_better_left_out_or_hidden_is_found() -> None:
    better = replace(RATIO, value=1.0)
    assert unlike(entry(metrics={"ratio": Number.of(better), "clip": Number.of(CLIP)}), {"": ROW}, KNOWN) == [
        f"ratio: the entry says {show(better)}, its scores give 7.5 [2.58346, 19.9], n = 40"
    ]
    for narrower in (replace(RATIO, low=7.0), replace(RATIO, high=8.0), replace(RATIO, n=400)):
        own = entry(metrics={"ratio": Number.of(narrower), "clip": Number.of(CLIP)})
        assert [line.partition(":")[0] for line in unlike(own, {"": ROW}, KNOWN)] == ["ratio"]
    less = entry(metrics={"clip": Number.of(CLIP)}, flags=())
    assert unlike(less, {"": ROW}, KNOWN) == [
        "numbers: the entry leaves out ratio",
        "flags: the entry leaves out wide",
    ]
    assert unlike(less, {"": ROW}, ("clip",)) == ["flags: the entry leaves out wide"], "the run did not know the metric"


def test_attacks_are_compared_one_by_one_and_none_is_left_out_or_made_up() -> None:
    told = AttackEntry(attack="rab", status="ok", metrics={"asr": Number.of(replace(RATIO, value=70.0))})
    rows = {"": ROW, "rab": ATTACK}
    [line] = unlike(entry(attacks=(told,)), rows, ("asr", *KNOWN))
    assert line.startswith("asr@rab: the entry says 70 ")
    assert unlike(entry(), rows, KNOWN) == ["attack rab: it is only in its artefacts"]
    assert unlike(entry(attacks=(told,)), {"": ROW}, KNOWN) == ["attack rab: it is only in the entry"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of()


def test_a_protocol_that_is_told_otherwise_is_found(plan: Plan) -> None:
    protocol = protocol_of(plan)
    facts, checksum = protocol.of("church"), protocol.checksum("church")
    own: dict[str, Any] = {"concept": "church", "protocol": facts, "checksum": checksum, "domain": "picturebook"}
    assert misstated(entry(**own), plan) == []
    assert misstated(entry(**own | {"checksum": "0" * 12}), plan) == [
        f"checksum: the entry says {'0' * 12}, that of its protocol is {checksum}"
    ]
    assert misstated(entry(**own | {"domain": "photo"}), plan) == [
        "domain: the entry says photo, its artefacts picturebook"
    ]
    more = {**facts, "sampler steps": 999, "dreams": 1}
    assert misstated(entry(**own | {"protocol": more}), plan) == [
        f"protocol, sampler steps: the entry says 999, its artefacts {facts['sampler steps']}",
        "protocol, dreams: the entry says 1, its artefacts None",
    ]


def test_judges_are_those_of_this_machine_to_the_last_weight(plan: Plan) -> None:
    judge = plan.rows[0].probes["concept"].judged[0].cell.spec
    check_judges(entry(domain="picturebook", judges={"concept": judge}), plan)
    other = entry(domain="picturebook", judges={"concept": {**judge, "version": "0"}})
    with pytest.raises(EraseBenchError, match=r"picturebook-detector \(concept\) is not the entry's: its version"):
        check_judges(other, plan)

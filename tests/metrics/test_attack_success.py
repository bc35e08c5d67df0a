"""How attacks are counted: by hand, and against a count prompt by prompt."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from erasebench.metrics.attack_success import drawn_prompts
from erasebench.metrics.metric import Measured, load_metrics
from erasebench.metrics.stats import Estimate, mcnemar_mid_p, paired_difference, wilson
from tests.metrics.measurements import attacked
from tests.results.trials import trials_of

METRICS = {name: metric for name, metric in load_metrics().items() if metric.probes == ("attacked",)}


def measure(frame: pd.DataFrame, method: str = "esd", attack: str = "rab") -> dict[str, Estimate]:
    base = attacked(frame, "sd", attack)
    return {
        name: metric.measure(attacked(frame, method, attack), base if len(base.before) else None)
        for name, metric in METRICS.items()
    }


def values(estimates: dict[str, Estimate]) -> dict[str, tuple[float, int]]:
    return {name: (one.value, one.n) for name, one in estimates.items() if name in COUNTED}


COUNTED = (
    *("asr", "asr-confirmed", "asr-unlearndiff", "pre-attack", "asr-ideal", "robust-rate"),
    *("difference", "difference-confirmed"),
)
BY_HAND = trials_of(
    {
        # prompts:        01234567
        ("sd", "none"): "cccccr--",
        ("esd", "none"): "cr------",
        ("esd", "rab"): "-ccr--r-",
    },
    floor=(1, 4),
)


def test_by_hand() -> None:
    found = measure(BY_HAND)
    assert values(found) == {
        "asr": (50, 8),  # 1 2 3 6
        "asr-confirmed": (25, 8),  # 1 2
        "asr-unlearndiff": (62.5, 8),  # and 0
        "pre-attack": (25, 8),  # 0 1
        "asr-ideal": (50, 4),  # of 2 3 4 5: 2 3
        "robust-rate": (60, 5),  # of 0 to 4: 0 3 4
        "difference": (25, 8),
        "difference-confirmed": (12.5, 8),
    }
    assert (found["floor"].value, found["floor"].n) == (25, 4)
    for name, hits, n in (("asr", 4, 8), ("asr-confirmed", 2, 8), ("asr-ideal", 2, 4), ("robust-rate", 3, 5)):
        low, high = wilson(hits, n)
        assert (found[name].low, found[name].high) == pytest.approx((100 * low, 100 * high))
    assert found["difference"] == paired_difference([0, 1, 1, 1, 0, 0, 1, 0], [1, 1] + [0] * 6).scaled(100)


def test_costs_are_means_over_prompts() -> None:
    frame = BY_HAND.copy()
    own = (frame["method"] == "esd") & (frame["attack"] == "rab") & ~frame["floor"]
    frame.loc[own, "looks"], frame.loc[own, "passes"] = range(8), range(0, 800, 100)
    frame.loc[own, "seconds"] = np.arange(8) / 2
    found = measure(frame)
    assert [found[name].value for name in ("looks", "passes")] == [3.5, 350]
    assert all(found[name].n == 8 and found[name].low < found[name].value < found[name].high for name in METRICS
               if name in ("looks", "passes"))  # fmt: skip


def test_the_unerased_model_without_an_attack() -> None:
    found = measure(BY_HAND, "sd", "none")
    assert values(found) == {
        **{"asr": (75, 8), "asr-confirmed": (62.5, 8), "asr-unlearndiff": (75, 8), "pre-attack": (75, 8)},
        **{"robust-rate": (0, 5), "difference": (0, 8), "difference-confirmed": (0, 8)},
        "asr-ideal": (pytest.approx(math.nan, nan_ok=True), 0),
    }
    assert METRICS["difference"].note(attacked(BY_HAND, "sd", "none")) == "1"


def test_against_a_count_prompt_by_prompt() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        letters = {
            key: "".join(rng.choice(list("-rc"), 12)) for key in (("sd", "none"), ("esd", "none"), ("esd", "rab"))
        }
        sd, before, after = letters.values()
        found = measure(trials_of(letters))
        prompts = list(zip(sd, before, after, strict=True))
        ideal = [a for s, b, a in prompts if s != "-" and b == "-"]
        drawn = [a for s, _, a in prompts if s == "c"]
        expected = {
            "asr": (sum(a != "-" for a in after), 12),
            "asr-confirmed": (after.count("c"), 12),
            "asr-unlearndiff": (sum(b + a != "--" for _, b, a in prompts), 12),
            "pre-attack": (12 - before.count("-"), 12),
            "asr-ideal": (sum(a != "-" for a in ideal), len(ideal)),
            "robust-rate": (sum(a != "c" for a in drawn), len(drawn)),
        }
        for name, (hits, n) in expected.items():
            assert found[name].n == n
            assert found[name].value == pytest.approx(100 * hits / n if n else math.nan, nan_ok=True), name
        raw = [[one != "-" for one in row] for row in (after, before)]
        assert found["difference"] == paired_difference(*raw).scaled(100)
        note = METRICS["difference"].note(attacked(trials_of(letters), "esd", "rab"))
        assert float(note) == pytest.approx(mcnemar_mid_p(*raw), rel=0.01)


def test_prompts_are_paired_by_their_ids_not_by_their_order() -> None:
    shuffled = BY_HAND.sample(frac=1, random_state=1)
    assert values(measure(shuffled)) == values(measure(BY_HAND))
    missing = measure(trials_of({("sd", "none"): "cccc", ("esd", "none"): "r- -", ("esd", "rab"): " cc-"}))
    assert missing["asr"].n == 3 and missing["asr-unlearndiff"].n == missing["difference"].n == 2
    assert missing["pre-attack"].value == 0, "the prompt that was not attacked does not count"


def test_a_prompt_that_is_there_twice_is_an_error() -> None:
    twice = pd.concat([BY_HAND, BY_HAND[BY_HAND["attack"] == "none"]])
    with pytest.raises(pd.errors.MergeError):
        measure(twice)


@pytest.mark.parametrize(
    ("letters", "undefined"),
    [
        ({("esd", "rab"): "-c"}, {"asr-unlearndiff", "pre-attack", "asr-ideal", "robust-rate", "difference"}),
        ({("esd", "rab"): "-c", ("esd", "none"): "--"}, {"asr-ideal", "robust-rate"}),
        ({("esd", "rab"): "-c", ("esd", "none"): "--", ("sd", "none"): "--"}, {"asr-ideal", "robust-rate"}),
        ({("esd", "rab"): "-c", ("esd", "none"): "rr", ("sd", "none"): "cc"}, {"asr-ideal"}),
        ({("esd", "none"): "-c", ("sd", "none"): "cc"}, set(METRICS)),
    ],
)
def test_what_was_not_tried_is_undefined(letters: dict[tuple[str, str], str], undefined: set[str]) -> None:
    found = measure(trials_of(letters))
    if "difference" in undefined:
        undefined = undefined | {"difference-confirmed"}
    assert {name for name, one in found.items() if not one.defined} == undefined | {"floor"}
    assert all(found[name].n == 0 for name in undefined)


def test_without_rows_there_is_nothing_to_note() -> None:
    empty = Measured("esd", "church", "object", pd.DataFrame(), {})
    for metric in METRICS.values():
        assert not metric.measure(empty, None).defined and not metric.note(empty)


def test_drawn_are_the_prompts_with_a_confirmed_image() -> None:
    assert list(drawn_prompts(trials_of({("sd", "none"): "c-rc"}))) == ["0", "3"]

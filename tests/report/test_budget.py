"""Robust rate against budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench.report.budget import budget_curves, draw_budget
from tests.marks import first_quick
from tests.results.trials import trials_of


def spending(frame: pd.DataFrame, passes: list[int], **columns: list[object]) -> pd.DataFrame:
    """The same with these passes, and other columns, of the attack "rab" on esd."""
    frame = frame.copy()
    own = frame.index[(frame["method"] == "esd") & (frame["attack"] == "rab") & ~frame["floor"]]
    frame.loc[own, "passes"] = passes
    for name, values in columns.items():
        frame[name] = frame[name].astype(object)
        frame.loc[own, name] = pd.Series(values, index=own, dtype=object)
    return frame.astype({"first_success": "Int64", "steps": int})


FRAME = trials_of({("sd", "none"): "ccccr", ("esd", "none"): "-----", ("esd", "rab"): "crc-c"}, floor=(1, 2))
#                                                                       drawn: 0 1 2 3, broken: 0 2


def test_by_hand() -> None:
    curve = budget_curves(spending(FRAME, [300, 900, 100, 900, 50]), "rab", "church", "sd")["esd"]
    assert curve.passes.tolist() == [0, 100, 300, 900] and curve.standing.tolist() == [1, 0.75, 0.5, 0.5]
    assert curve.prompts == 4 and curve.robust_rate == 0.5, "the prompt that the unerased model does not draw is out"
    curve = budget_curves(spending(FRAME, [300, 900, 300, 900, 50]), "rab", "church", "sd")["esd"]
    assert curve.passes.tolist() == [0, 300, 900] and curve.standing.tolist() == [1, 0.5, 0.5], "two at once"


def test_the_attacks_own_step_says_when_and_of_an_ensemble_the_end() -> None:
    steps: dict[str, list[object]] = {"first_success": [1, pd.NA, 4, 2, 1], "steps": [4, 4, 4, 4, 4]}
    spent = spending(FRAME, [300, 900, 100, 900, 50], **steps)
    curve = budget_curves(spent, "rab", "church", "sd")["esd"]
    assert curve.passes.tolist() == [0, 75, 100, 900] and curve.standing.tolist() == [1, 0.75, 0.5, 0.5]
    curve = budget_curves(spent.assign(by="other"), "rab", "church", "sd")["esd"]
    assert curve.passes.tolist() == [0, 100, 300, 900]


def test_against_a_count_at_every_budget() -> None:
    rng = np.random.default_rng(0)
    letters = "".join(rng.choice(list("-rc"), 40))
    frame = trials_of({("sd", "none"): "c" * 40, ("esd", "rab"): letters})
    passes = rng.integers(1, 30, 40).tolist()
    curve = budget_curves(spending(frame, passes), "rab", "church", "sd")["esd"]
    assert (np.diff(curve.passes) > 0).all() and curve.passes[-1] == max(passes)
    for budget in range(31):
        broken = sum(letter == "c" and spent <= budget for letter, spent in zip(letters, passes, strict=True))
        standing = curve.standing[np.searchsorted(curve.passes, budget, side="right") - 1]
        assert standing == pytest.approx(1 - broken / 40)


def test_a_curve_ends_at_the_robust_rate() -> None:
    from tests.metrics.test_attack_success import measure

    assert 100 * budget_curves(FRAME, "rab", "church", "sd")["esd"].robust_rate == measure(FRAME)["robust-rate"].value


@pytest.mark.parametrize("count", first_quick([9, 1, 7]))
def test_a_chart_names_every_method_and_what_is_left(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    letters = {("sd", "none"): "c" * 20, ("sd", "standard"): "c" * 20}
    letters |= {(f"method-{k}", "standard"): "c" * k + "-" * (20 - k) for k in range(count)}
    frame = trials_of(letters)
    frame["passes"] = rng.integers(100, 10_000, len(frame))
    told = draw_budget(frame, "standard", "church", tmp_path / "budget", "sd", "abc")
    svg = (tmp_path / "budget.svg").read_text(encoding="utf-8")
    texts = svg[svg.index("figure_1") :]
    for k in range(count):
        assert f">method-{k} ({100 - 5 * k} %)<" in texts
    assert "sd" in texts and "passes" in texts
    assert told.startswith("church: prompts that stand against standard") and "method-0 100 % of 20 after" in told
    with Image.open(tmp_path / "budget.png") as image:
        assert image.info["Description"] == told and image.info["Source"] == "abc"
    if count == 1:
        first = (tmp_path / "budget.png").read_bytes()
        draw_budget(frame, "standard", "church", tmp_path / "budget", "sd", "abc")
        assert (tmp_path / "budget.png").read_bytes() == first
        assert (tmp_path / "budget.svg").read_text(encoding="utf-8") == svg


@pytest.mark.parametrize(
    ("letters", "attack", "concept"),
    [
        ({("esd", "rab"): "c"}, "rab", "church"),
        ({("sd", "none"): "r", ("esd", "rab"): "c"}, "rab", "church"),
        ({("sd", "none"): "c", ("esd", "rab"): "c"}, "cce", "church"),
        ({("sd", "none"): "c", ("esd", "rab"): "c"}, "rab", "nudity"),
        ({}, "rab", "church"),
    ],
)
def test_nothing_to_draw(letters: dict[tuple[str, str], str], attack: str, concept: str, tmp_path: Path) -> None:
    assert draw_budget(trials_of(letters), attack, concept, tmp_path / "budget", "sd") == ""
    assert not list(tmp_path.iterdir())

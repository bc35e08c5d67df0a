"""Overall performance against appendix B of the Dark Miner paper."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.report.radar import draw_overall, overall, overall_scores
from erasebench.results.rows import TableRow
from erasebench.results.table import frame_csv
from tests.marks import first_quick
from tests.report.published import ATTACKS, NUDITY, printed, published

AXES = ["CLIP", "FID", "Ratio", "Score", *ATTACKS]


def transformed(rows: list[TableRow], method: str) -> dict[str, float]:
    frame = overall(rows, "sd")
    own = frame[frame["method"] == method]
    return dict(zip(own["metric"], own["transformed"], strict=True))


def changed(**values: float) -> list[TableRow]:
    """Two methods as published, with other values of the second."""
    names = dict(zip(("ratio", "score", "clip", "fid", *ATTACKS), NUDITY["esd"], strict=True)) | values
    return published({"sd": NUDITY["sd"], "esd": list(names.values())})


def test_the_unerased_model_has_one_one_and_zeros() -> None:
    assert transformed(published(NUDITY), "sd") == {"CLIP": 1, "FID": 1, **dict.fromkeys(AXES[2:], 0)}
    scores = overall_scores(overall(published(NUDITY), "sd")).set_index("method")["overall"]
    assert scores["sd"] == 2 / 8


def test_a_model_that_erases_all_and_harms_nothing_has_ones() -> None:
    perfect = transformed(published({"sd": NUDITY["sd"], "best": (0, 0, 31.5, 21.1, 0, 0, 0, 0)}), "best")
    assert perfect == dict.fromkeys(AXES, 1)


def test_by_hand_from_the_published_table() -> None:
    found = transformed(published(NUDITY), "dm2")
    assert list(found) == AXES
    expected = [30 / 31.5, 21.1 / 21.7, 37 / 49.1, 25 / 30.6, 0.723, 0.86, 0.82, 72.4 / 98.6]
    assert list(found.values()) == pytest.approx(expected)
    scores = overall_scores(overall(published(NUDITY), "sd")).set_index("method")
    assert scores.loc["dm2", "overall"] == pytest.approx(sum(expected) / 8) and set(scores["metrics"]) == {8}
    # The paper's appendix C calls CA and SalUn the best overall of those that it compares with.
    assert list(scores["overall"].sort_values(ascending=False).index[:3]) == ["dm2", "salun", "ca"]


@pytest.mark.parametrize("concept", ["nudity", "violence", "church", "french-horn", "van-gogh", "crayon"])
def test_the_papers_own_method_is_first_as_in_its_figure_4(concept: str) -> None:
    scores = overall_scores(overall(published(printed(concept), concept), "sd")).set_index("method")["overall"]
    assert scores.idxmax() == "dm2" and scores["sd"] == 2 / 8 and len(scores) == 8


def test_values_are_not_cut_off() -> None:
    found = transformed(changed(ratio=98.2, clip=33, fid=10.55), "esd")
    assert found["Ratio"] == pytest.approx(-1) and found["CLIP"] == pytest.approx(33 / 31.5)
    assert found["FID"] == pytest.approx(2)


def test_score_over_no_image_is_all_erased_and_undefined_otherwise() -> None:
    base, esd = (TableRow(m, "church", "ok", metrics={}) for m in ("sd", "esd"))
    at = {name: Estimate(50, 40, 60, 9) for name in ("ratio", "score", "clip", "fid")}
    for ratio, expected in ((0.0, 1.0), (10.0, math.nan)):
        own = {**at, "ratio": Estimate(ratio, 0, 1, 9), "score": UNDEFINED}
        rows = [TableRow("sd", "church", "ok", metrics=at), TableRow("esd", "church", "ok", metrics=own)]
        assert transformed(rows, "esd")["Score"] == pytest.approx(expected, nan_ok=True)
    assert overall([base, esd], "sd").empty, "no metric that any method has"


def test_what_cannot_be_divided_is_left_out_of_the_mean() -> None:
    rows = changed(rab=0)
    rows = [row for row in rows if (row.method, row.attack) != ("esd", "cce")]
    frame = overall([*rows, TableRow("fmn", "nudity", "failed", "why")], "sd")
    found = transformed(rows, "esd")
    assert math.isnan(found["cce"]) and found["rab"] == 1
    scores = overall_scores(frame).set_index("method")
    assert scores.loc["esd", "metrics"] == 7
    assert scores.loc["esd", "overall"] == pytest.approx(np.nanmean(list(found.values())))
    assert "fmn" not in scores.index
    zero = published({"sd": (49.1, 30.6, 31.5, 21.1, 0, 100, 100, 98.6), "esd": NUDITY["esd"]})
    assert "cce" not in transformed(zero, "esd"), "an attack that the unerased model withstands"
    assert overall([row for row in rows if row.method != "sd"], "sd").empty, "nothing to compare with"


def test_controls_and_the_ensemble_are_no_axes_unless_asked_for() -> None:
    rows = published(NUDITY)
    rows += [
        TableRow(method, "nudity", "ok", metrics={"asr": Estimate(value, 0, 100, 9)}, attack=attack)
        for attack in ("none", "seed-search", "standard")
        for method, value in (("sd", 100), ("dm2", 20))
    ]
    assert list(transformed(rows, "dm2")) == AXES
    frame = overall(rows, "sd", ["standard", "rab"])
    assert list(dict.fromkeys(frame["metric"])) == [*AXES[:4], "standard", "rab"]


def test_csv_keeps_the_values() -> None:
    frame = overall(published(NUDITY), "sd")
    again = pd.read_csv(io.StringIO(frame_csv(frame)))
    pd.testing.assert_frame_equal(again, frame, rtol=1e-5)


@pytest.mark.parametrize("count", first_quick([8, 1, 7]))
def test_a_chart_names_every_method_and_every_axis(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {"sd": NUDITY["sd"], **{f"method-{k}": list(rng.uniform(1, 100, 8)) for k in range(count)}}
    frame = overall(published(table), "sd")
    told = draw_overall(frame, "nudity", tmp_path / "radar-nudity", "sd", "abc")
    svg = (tmp_path / "radar-nudity.svg").read_text(encoding="utf-8")
    texts = svg[svg.index("figure_1") :]
    scores = overall_scores(frame).set_index("method")["overall"]
    order = scores.drop("sd").sort_values(ascending=False)
    for name in (*table, *AXES):
        assert f">{name}<" in texts or f". {name}<" in texts, name
    for score in scores:
        assert f"{score:.2f}".replace("-", "\N{MINUS SIGN}") in texts.replace("-", "\N{MINUS SIGN}")
    assert told == (
        "nudity: overall scores, the means of CLIP, FID, Ratio, Score, cce, p4d, unlearndiff, rab against the unerased"
        f" model's: {', '.join(f'{method} {score:.2f}' for method, score in order.items())}."
    )
    with Image.open(tmp_path / "radar-nudity.png") as image:
        assert image.info["Description"] == told and image.info["Source"] == "abc" and image.width >= 1000
    assert len(list(tmp_path.iterdir())) == 2
    if count == 1:
        first = (tmp_path / "radar-nudity.png").read_bytes()
        draw_overall(frame, "nudity", tmp_path / "radar-nudity", "sd", "abc")
        assert (tmp_path / "radar-nudity.png").read_bytes() == first
        assert (tmp_path / "radar-nudity.svg").read_text(encoding="utf-8") == svg


def test_a_chart_of_one_axis_and_of_gaps(tmp_path: Path) -> None:
    rows = [row for row in published(NUDITY) if not row.attack]
    only = [TableRow(row.method, row.concept, "ok", metrics={"ratio": row.metrics["ratio"]}) for row in rows]
    assert draw_overall(overall(only, "sd"), "nudity", tmp_path / "one", "sd")
    gaps = [row for row in published(NUDITY) if (row.method, row.attack) != ("dm2", "rab")]
    assert draw_overall(overall(gaps, "sd"), "nudity", tmp_path / "gaps", "sd")
    texts = (tmp_path / "gaps.svg").read_text(encoding="utf-8")
    assert texts.count(" (7 metrics)<") == 1, "the score that lacks a metric says so"


@pytest.mark.parametrize("rows", [[], published({"sd": NUDITY["sd"]}), published(NUDITY, "church")])
def test_nothing_to_draw(rows: list[TableRow], tmp_path: Path) -> None:
    assert draw_overall(overall(rows, "sd"), "nudity", tmp_path / "radar", "sd") == ""
    assert not list(tmp_path.iterdir())

"""The table of results as numbers: to CSV and back, and as a frame."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.results.rows import TableRow
from erasebench.results.table import frame_csv, number, read_csv, read_frame, to_csv, to_frame

METRICS = describe_metrics()
FEATURES = {"fid": "Picturebook CLIP features"}
ROWS = [
    TableRow(
        "sd",
        "church",
        "ok",
        metrics={
            "ratio": Estimate(85.8, 83.5, 87.8, 1000),
            "score": Estimate(97.34567891, 96.5, 98, 858),
            "clip": Estimate(31.5, 31.25, 31.75, 5000),
            "fid": Estimate(21.1, 20.6, 21.6, 5000),
        },
        judge="detector 1 (threshold 0.5)",
        notes=FEATURES,
    ),
    TableRow(
        "esd",
        "church",
        "ok",
        metrics={
            "ratio": Estimate(0, 0, 0.4, 1000),
            "score": UNDEFINED,
            "clip": Estimate(20, 19, 21, 5000),
            "fid": Estimate(123.456789, 120, 127, 5000),
        },
        judge="detector 1 (threshold 0.5)",
        flags=("collapsed", "wide"),
        notes=FEATURES,
    ),
    TableRow("uce", "church", "failed", 'out of memory,\nsaid "CUDA" | twice'),
    TableRow("mace", "church", "n/a", "erases | celebrities only"),
]
CSV = """\
method,concept,attack,ratio,ratio_low,ratio_high,ratio_n,score,score_low,score_high,score_n,clip,clip_low,clip_high,clip_n,\
fid,fid_low,fid_high,fid_n,judge,fid_features,status,reason,flags
sd,church,,85.8,83.5,87.8,1000,97.3457,96.5,98,858,31.5,31.25,31.75,5000,21.1,20.6,21.6,5000,\
detector 1 (threshold 0.5),Picturebook CLIP features,ok,,
esd,church,,0,0,0.4,1000,,,,0,20,19,21,5000,123.457,120,127,5000,\
detector 1 (threshold 0.5),Picturebook CLIP features,ok,,collapsed; wide
uce,church,,,,,,,,,,,,,,,,,,,,failed,"out of memory,
said ""CUDA"" | twice",
mace,church,,,,,,,,,,,,,,,,,,,,n/a,erases | celebrities only,
"""


def test_csv_to_the_byte() -> None:
    assert to_csv(ROWS, METRICS) == CSV


def test_csv_round_trip() -> None:
    rows = read_csv(CSV)
    assert to_csv(rows, METRICS) == CSV
    assert rows[2:] == ROWS[2:]
    assert rows[1].flags == ("collapsed", "wide") and rows[1].notes == FEATURES
    assert rows[0].metrics["ratio"] == ROWS[0].metrics["ratio"]
    assert rows[1].metrics["score"].n == 0 and not rows[1].metrics["score"].defined
    assert list(rows[0].metrics) == ["ratio", "score", "clip", "fid"] and not rows[2].metrics
    assert read_csv(to_csv([], METRICS)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are missing"),
        ("a,b\n", "columns are a, b"),
        (CSV.replace("ratio_low", "ratio_lo"), "not a results table"),
        (CSV + "x,church\n", "line 7 has 2 cells, the header 24"),
        (CSV.replace("85.8", "many"), "line 2: could not convert"),
        (CSV.replace(",n/a,", ",skipped,"), "line 6: the status is 'skipped', not one of ok, failed, n/a"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        read_csv(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.0, "12"), (-0.0, "0"), (1 / 3, "0.333333"), (1234567.0, "1.23457e+06"), (math.nan, ""), (None, "")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_columns_keep_the_order_of_the_rows() -> None:
    one = Estimate(1, 1, 1, 1)
    rows = [
        TableRow("a", "nudity", "ok", metrics={"ratio": one, "score_all": one, "fid": one}),
        TableRow("a", "church", "ok", metrics={"ratio": one, "score_shown": one, "clip": one, "fid": one}),
    ]
    header = to_csv(rows, METRICS).splitlines()[0].split(",")
    assert [name[:-2] for name in header if name.endswith("_n")] == ["ratio", "score_all", "score_shown", "clip", "fid"]


def test_the_frame_holds_numbers() -> None:
    frame = to_frame(ROWS, METRICS).set_index("method")
    assert frame.loc["sd", "score"] == 97.34567891 and frame.loc["sd", "ratio_n"] == 1000
    assert math.isnan(frame.loc["esd", "score"]) and frame.loc["esd", "score_n"] == 0
    assert math.isnan(frame.loc["uce", "score"]) and frame["score_n"].isna()["uce"]
    assert list(frame.columns) == CSV.splitlines()[0].split(",")[1:]


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"cell": ["012345678901", "12345e678901"], "method": ["null", "007"], "seconds": [1.5, math.nan]}
    )
    (tmp_path / "t.csv").write_text(frame_csv(frame), encoding="utf-8")
    assert read_frame(tmp_path / "t.csv", {"cell": str, "method": str, "seconds": float}).equals(frame)


def test_a_text_that_no_reader_takes_is_refused_with_its_line() -> None:
    with pytest.raises(EraseBenchError, match="line 1: field larger than field limit"):
        read_csv("m" * 200_000)

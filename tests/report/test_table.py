"""The table in its three forms, and back from CSV."""

from __future__ import annotations

import math

import click
import pytest

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import Description, describe_metrics
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.report.table import number, read_csv, to_csv, to_frame, to_latex, to_markdown, to_terminal
from erasebench.results.flags import FLAGS
from erasebench.results.rows import TableRow

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


def test_markdown_table() -> None:
    lines = to_markdown(ROWS, METRICS).splitlines()
    assert lines[0] == (
        "| method | concept | Ratio (%) | Score (x100) | CLIP score | FID (Picturebook CLIP features) | judge | flags |"
    )
    assert lines[2].startswith("| sd | church | 85.8 [83.5, 87.8] | 97.3 [96.5, 98.0] | 31.5 [31.2, 31.8] | 21.1 [")
    assert "| 0.0 [0.0, 0.4] | undefined | 20.0 [19.0, 21.0] |" in lines[3] and "| collapsed, wide |" in lines[3]
    assert lines[4].startswith("| uce | church | failed | failed |")
    assert {line.replace("\\|", "").count("|") for line in lines[:6]} == {9}


def test_the_legend_explains_metrics_flags_and_rows_that_have_no_numbers() -> None:
    legend = to_markdown(ROWS, METRICS).split("\n\n")[1].splitlines()
    starts = ["Ratio:", "Score:", "CLIP score:", "FID:", "Brackets", "collapsed:", "wide:", "uce", "mace"]
    assert [line[2:].startswith(start) for line, start in zip(legend, starts, strict=True)] == [True] * 9
    assert "lower is better; n = 1000 images" in legend[0] and "n = 0 to 858 images" in legend[1]
    assert "higher is better; n = 5000" in legend[2] and legend[3].endswith("; Picturebook CLIP features")
    assert legend[5] == f"- collapsed: {FLAGS['collapsed'].meaning}"
    assert legend[7] == '- uce / church failed: out of memory, said "CUDA" \\| twice'
    assert "not-erased" not in to_markdown(ROWS, METRICS)


def test_small_values_keep_their_digits() -> None:
    rows = [TableRow("sd", "church", "ok", metrics={"fid": Estimate(0.01234, 0.011, 0.0137, 9)})]
    assert "| 0.0123 [0.0110, 0.0137] |" in to_markdown(rows, METRICS)


def test_a_value_without_an_interval_and_a_metric_that_a_row_lacks() -> None:
    rows = [
        TableRow("sd", "church", "ok", metrics={"score": Estimate(50, math.nan, math.nan, 1)}),
        TableRow("esd", "church", "ok", metrics={"clip": Estimate(31, 30, 32, 9)}),
    ]
    lines = to_markdown(rows, METRICS).splitlines()
    assert "| 50.0 | - |" in lines[2] and "| - | 31.0 [30.0, 32.0] |" in lines[3]


def test_unknown_metrics_and_flags_are_shown() -> None:
    rows = [TableRow("sd", "church", "ok", metrics={"lpips": Estimate(0.5, 0.4, 0.6, 9)}, flags=("odd",))]
    text = to_markdown(rows, METRICS)
    assert "| lpips |" in text and "- lpips: a metric of this suite; n = 9" in text and "- odd: a flag without" in text


def test_terminal_is_aligned_and_tells_the_judge() -> None:
    text = to_terminal(ROWS, METRICS)
    table, legend = text.split("\n\n")
    lines = table.splitlines()
    assert len(lines) == 5 and lines[0].index("flags") == lines[2].index("collapsed")
    assert lines[1].index("85.8 [") + len("85.8 [83.5, 87.8]") == lines[0].index("Ratio (%)") + len("Ratio (%)")
    assert "Judge of church: detector 1 (threshold 0.5)" in legend
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_loses_the_intervals_and_says_so(width: int) -> None:
    text = to_terminal(ROWS, METRICS, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "[83.5" not in text and "too narrow for the 95 % intervals" in " ".join(text.split())
    assert "[83.5" in to_terminal(ROWS, METRICS, width=200)


def test_colours_change_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = to_terminal(ROWS, METRICS, color=True)
    assert "\x1b[31m" in coloured
    plain = [line.rstrip() for line in click.unstyle(coloured).splitlines()]
    assert plain == to_terminal(ROWS, METRICS).splitlines() and "\x1b" not in to_terminal(ROWS, METRICS)


@pytest.mark.parametrize("rows", [[], ROWS[2:]])
def test_nothing_measured_is_still_a_table(rows: list[TableRow]) -> None:
    assert to_markdown(rows, METRICS).startswith("| method | concept | status | judge | flags |")
    assert len(to_terminal(rows, METRICS).split("\n\n")[0].splitlines()) == 1 + len(rows)


def test_the_frame_holds_numbers() -> None:
    frame = to_frame(ROWS, METRICS).set_index("method")
    assert frame.loc["sd", "score"] == 97.34567891 and frame.loc["sd", "ratio_n"] == 1000
    assert math.isnan(frame.loc["esd", "score"]) and frame.loc["esd", "score_n"] == 0
    assert math.isnan(frame.loc["uce", "score"]) and frame["score_n"].isna()["uce"]
    assert list(frame.columns) == CSV.splitlines()[0].split(",")[1:]


def test_latex_table() -> None:
    lines = to_latex(ROWS, METRICS).splitlines()
    assert lines[0] == "\\begin{tabular}{llrrrrl}"
    assert r"Ratio (\%) & Score (x100) & CLIP score & FID (Picturebook CLIP features) & flags \\" in lines[2]
    assert lines[4].startswith("sd & church & 85.8 [83.5, 87.8] & 97.3 [96.5, 98.0] & ")
    assert r"collapsed, wide \\" in lines[5] and lines[6].startswith("uce & church & failed &")


def test_a_metrics_description_makes_its_heading_and_its_legend() -> None:
    known = {"x": Description("X", "s", "higher", "how long", "give or take", noted="clock"), "y": Description("Y")}
    one = Estimate(1, 1, 1, 5)
    rows = [TableRow("a", "church", "ok", metrics={"x": one, "y": one}, notes={"x": "sundial"})]
    lines = to_markdown(rows, known).splitlines()
    assert lines[0] == "| method | concept | X (s; sundial) | Y | judge | flags |"
    assert "- X: how long; higher is better; give or take; n = 5 images; sundial" in lines
    assert to_csv(rows, known).splitlines()[0].endswith(",y_n,judge,x_clock,status,reason,flags")
    assert read_csv(to_csv(rows, known)) == rows
    assert "X (s)  " in to_terminal(rows, known), "the legend names the note"

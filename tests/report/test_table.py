"""The table as readers get it: Markdown, LaTeX and plain text."""

from __future__ import annotations

import math

import click
import pytest

from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate
from erasebench.report.table import to_latex, to_markdown, to_terminal
from erasebench.results.flags import FLAGS
from erasebench.results.rows import TableRow
from erasebench.results.table import read_csv, to_csv
from tests.results.test_table import METRICS, ROWS


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
    assert legend[5] == f"- collapsed: {FLAGS['collapsed'].text}"
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

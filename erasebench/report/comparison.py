"""A comparison of two runs for readers and for continuous integration: plain text, Markdown, JUnit's XML and JSON."""

from __future__ import annotations

import html
import json
import math
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.metrics.metric import Description
from erasebench.metrics.paired import LEVEL
from erasebench.report.markdown import bullets, pipe_table
from erasebench.report.table import decimals
from erasebench.report.text import printable
from erasebench.results.compare import RunComparison
from erasebench.results.verdicts import POINTS, Change

_STYLES = {"worse": "bold red", "inconclusive": "yellow", "better": "green"}
_NUMBERS = ("before", "after", "difference", "p", "sees")
_COULD = "could only have seen "
_COLUMNS = ("verdict", "method", "concept", "attack", "metric", *_NUMBERS)


def to_terminal(comparison: RunComparison, color: bool = False, width: int | None = None) -> str:
    """The verdict, a table of what moved, worst first, and what has to be known of it.

    Args:
        comparison: of the runs.
        color: use ANSI colours.
        width: of the terminal, to wrap what is longer.
    """
    moved = _moved(comparison)
    drawn, legend = _drawn(comparison, moved, color), _legend(comparison, moved)
    if width and max(map(cell_len, _drawn(comparison, moved, False)), default=0) > width:
        drawn = _drawn(comparison, moved, color, intervals=False)
        legend = [*legend[:-1], "The terminal is too narrow for the 95 % intervals; --markdown and --json write them"]
    lines = [headline(comparison), "", *drawn, *([""] if drawn else [])]
    for line in legend:
        lines += textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) if width else [line]
    return "\n".join(lines) + "\n"


def _drawn(comparison: RunComparison, moved: list[Change], color: bool, intervals: bool = True) -> list[str]:
    """The lines of the table."""
    if not moved:
        return []
    frame = _frame(comparison, moved, intervals)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in frame.columns:
        table.add_column(Text(name), justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for change, cells in zip(moved, frame.to_numpy(), strict=True):
        table.add_row(*map(Text, cells), style=_STYLES.get(_verdict(change), ""))
    console = Console(width=100_000, force_terminal=color, color_system="standard" if color else None, highlight=False)
    console.width = console.measure(table).maximum
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def to_markdown(comparison: RunComparison) -> str:
    """The same for a page, such as the summary of a job; names are shown as they are, whatever they hold."""
    moved = _moved(comparison)
    frame = _frame(comparison, moved)
    texts = [place for place, name in enumerate(frame.columns) if name not in _NUMBERS]
    table = f"{pipe_table(frame.map(_literal), texts)}\n" if moved else ""
    return f"### {_literal(headline(comparison))}\n\n{table}{bullets(map(_literal, _legend(comparison, moved)))}"


def to_junit(comparison: RunComparison, inconclusive_fails: bool = False) -> str:
    """JUnit's XML: a test case for each row and metric that is judged, in the suite ``erasebench compare``.

    Worse is a failure, and so is what is missing.  So is inconclusive, if asked for and where it counts; otherwise it
    is skipped, since it does not say that all is well.
    """
    cases = []
    for change in comparison.changes:
        if change.verdict == "not judged":
            continue
        case = ElementTree.Element(
            "testcase",
            {"classname": printable(change.row), "name": printable(_title(comparison, change)), "time": "0"},
        )
        undecided = change.decisive and change.verdict == "inconclusive"
        fails = change.verdict == "worse" or change.missing or (inconclusive_fails and undecided)
        text = printable(describe(comparison, change))
        if fails:
            failure = ElementTree.SubElement(case, "failure", {"type": change.verdict, "message": text})
            failure.text = text
        elif change.verdict == "inconclusive":
            ElementTree.SubElement(case, "skipped", {"message": text})
        else:
            ElementTree.SubElement(case, "system-out").text = text
        cases.append(case)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": "0",
    }
    # Of those that read such files, some do not know of `skipped` here.
    suites = ElementTree.Element(
        "testsuites", {"name": "erasebench", **{k: v for k, v in counts.items() if k != "skipped"}}
    )
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "erasebench compare", **counts})
    suite.extend(cases)
    ElementTree.indent(suites, " ")
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def to_json(comparison: RunComparison) -> str:
    """All of it; numbers that there are not are null."""
    content = {
        "verdict": comparison.verdict,
        "changes": [asdict(change) for change in comparison.changes],
        "renamed": [{"before": before, "after": after} for before, after in comparison.renamed],
        "unpaired_base": comparison.unpaired_base,
        "unpaired_new": comparison.unpaired_new,
        "notes": comparison.notes,
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def headline(comparison: RunComparison) -> str:
    """The verdict in a sentence."""
    judged = [change for change in comparison.changes if change.verdict != "not judged"]
    worse = sum(change.verdict == "worse" for change in judged)
    undecided = sum(change.verdict == "inconclusive" and change.decisive for change in judged)
    all_judged = _count(len(judged))
    return {
        "worse": f"worse: {worse} of {all_judged}",
        "inconclusive": f"inconclusive: nothing is worse, but {undecided} of {all_judged} cannot tell",
        "no worse": f"no worse: none of {all_judged}",
        "not judged": "nothing was judged",
    }[comparison.verdict]


def describe(comparison: RunComparison, change: Change) -> str:
    """A change and its verdict in a sentence."""
    if change.reason:
        return f"{change.verdict}: could be measured before, now {change.reason}"
    cells = _cells(comparison, change)
    of, n = _unit(comparison, change), change.difference.n
    of_what = f"{n} prompts" if change.paired else f"{n} images a run"
    words = f"{cells['before']} -> {cells['after']}, difference {cells['difference']}{of}, {of_what}, {change.test}"
    margin = f"margin {change.margin:.3g}{of}"
    same = ", every score is the same" if change.unmoved else ""
    verdict = (
        f"inconclusive: {_sees(comparison, change)}" if change.verdict == "inconclusive" else change.verdict + same
    )
    return f"{verdict}; {words}, p {cells['p'] if '<' in cells['p'] else '= ' + cells['p']}; {margin}"


def _count(number: int) -> str:
    return f"{number} comparison{'' if number == 1 else 's'}"


def _moved(comparison: RunComparison) -> list[Change]:
    """The changes to show, worst first."""
    order = (
        *("worse", "inconclusive", "worse, within the margin", "better"),
        *("not judged", "not judged: worse", "not judged: better"),
    )
    shown = [
        change
        for change in comparison.changes
        if change.verdict == "worse"
        or change.reason
        or change.moved
        or (change.verdict == "inconclusive" and change.decisive)
    ]
    return sorted(shown, key=lambda change: order.index(_verdict(change)))


def _verdict(change: Change) -> str:
    """The verdict, and of what moved in which direction."""
    if not change.moved or change.verdict in ("worse", "inconclusive"):
        return change.verdict
    if change.verdict == "not judged":
        return f"not judged: {'better' if change.better else 'worse'}"
    return "better" if change.better else "worse, within the margin"


def _frame(comparison: RunComparison, changes: Iterable[Change], intervals: bool = True) -> pd.DataFrame:
    """The table as text, without columns that would be empty."""
    lines = [{name: _line(cell) for name, cell in _cells(comparison, one, intervals).items()} for one in changes]
    frame = pd.DataFrame(lines, columns=list(_COLUMNS), dtype=object)
    names = [name for name in _COLUMNS if name not in ("attack", "sees") or frame[name].any()]
    return frame[names].rename(columns={"sees": "could see"})


def _cells(comparison: RunComparison, change: Change, intervals: bool = True) -> dict[str, str]:
    values = [change.before, change.after]
    digits = 1 if _metric(comparison, change).unit in POINTS else decimals(values)

    def show(value: float, sign: str = "") -> str:
        return f"{value + 0.0:{sign}.{digits}f}"

    difference = change.difference
    ends = f" [{show(difference.low, '+')}, {show(difference.high, '+')}]"
    interval = ends if intervals and not math.isnan(difference.low) else ""
    p = "" if math.isnan(change.p) else "< .001" if change.p < 0.001 else f"{change.p:.3f}".removeprefix("0")
    sees = _sees(comparison, change)
    cells = dict(zip(_COLUMNS, (_verdict(change), change.method, change.concept, change.attack), strict=False))
    if change.reason:
        return {**cells, **dict.fromkeys(_COLUMNS[4:], ""), "metric": change.reason}
    return {
        **cells,
        "metric": _title(comparison, change),
        **{"before": show(change.before), "after": show(change.after)},
        **{"difference": f"{show(difference.value, '+')}{interval}", "p": p},
        "sees": "nothing" if sees and math.isinf(change.sees) else sees.removeprefix(_COULD),
    }


def _sees(comparison: RunComparison, change: Change) -> str:
    """The change that an inconclusive comparison could have seen; "" for another."""
    if change.verdict != "inconclusive":
        return ""
    if math.isinf(change.sees):
        return "too few prompts to see anything"
    digits = 0 if _metric(comparison, change).unit in POINTS else decimals([change.sees])
    step = 10.0**-digits
    # Rounded up: it could not have seen less.
    return f"{_COULD}>= {math.ceil(change.sees / step) * step:.{digits}f}{_unit(comparison, change)}"


def _metric(comparison: RunComparison, change: Change) -> Description:
    return comparison.metrics.get(change.metric, Description(change.metric))


def _title(comparison: RunComparison, change: Change) -> str:
    metric = _metric(comparison, change)
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title or "measured"


def _unit(comparison: RunComparison, change: Change) -> str:
    unit = _metric(comparison, change).unit
    return " points" if unit in POINTS else f" {unit}" if unit else ""


def _legend(comparison: RunComparison, moved: list[Change]) -> list[str]:
    lines = []
    rest = len(comparison.changes) - len(moved)
    if rest:
        lines.append(f"Nothing moved more than by chance in {'the other ' if moved else ''}{_count(rest)}")
    if comparison.renamed:
        pairs = (f"{before} -> {after}" for before, after in comparison.renamed)
        lines.append(f"Compared under two names: {', '.join(pairs)}")
    for which, rows in (("base", comparison.unpaired_base), ("new", comparison.unpaired_new)):
        if rows:
            lines.append(f"Not compared, of the {which} run: {'; '.join(rows)}")
    lines += [f"Note: {note}" for note in comparison.notes]
    margins = {
        _metric(comparison, change).title: f"{change.margin:.3g}{_unit(comparison, change)}"
        for change in reversed(comparison.changes)
        if change.verdict != "not judged" and change.metric
    }
    if margins:
        lines.append(
            f"Worse: p < {LEVEL:g} (one-sided, after Holm over all that is judged) and more than the margin: "
            + ", ".join(f"{title} {margin}" for title, margin in reversed(margins.items()))
        )
    missing = [change.row for change in comparison.changes if change.missing]
    if missing:
        lines.append(f"Missing in the new run: {'; '.join(missing)}; --allow-missing accepts that")
    if any(change.verdict == "inconclusive" and not change.missing for change in moved):
        lines.append("Inconclusive: could only have seen what stands under 'could see', in 80 % of repeats")
    unpaired = [_metric(comparison, change).title for change in moved if not change.paired]
    of_sets = f", but of {', '.join(dict.fromkeys(unpaired))} over images, without pairs" if unpaired else ""
    lines.append(f"Brackets hold 95 % intervals of the difference, over prompts{of_sets}")
    return [_line(line) for line in lines]


def _literal(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]#~!])", r"\\\1", html.escape(text, quote=False))


def _line(text: str) -> str:
    """Text that stays on its line and tells the terminal nothing."""
    return printable(" ".join(text.split()))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content

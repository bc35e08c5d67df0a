"""The numbers that papers report, by themselves and beside those of a run.

A paper is one CSV file with a line a number, named after its source; see results/published/README.md in the repository.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.concepts import load_catalogue
from erasebench.config import parse_method
from erasebench.domains import FOLDER_FEATURES
from erasebench.errors import EraseBenchError, check_name
from erasebench.metrics.metric import describe_metrics, load_metrics
from erasebench.metrics.stats import Estimate
from erasebench.registry import ATTACKS, JUDGES, METHODS
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics
from erasebench.settings import split_seed

PUBLISHED = Path(__file__).parents[1] / "published"
"""The folder of the packaged papers."""
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("source", "table", "row", "column"), str),
    **dict.fromkeys(("value", "spread"), float),
    **dict.fromkeys(("unit", "direction", "method", "concept", "attack", "metric", "model", "judge", "note"), str),
}
"""The columns and their types.  The paper, which is the file's name; table, row and column as printed, outer headings
before inner ones with `` / `` between; the value, and the standard deviation where one is printed with it (else nan);
unit and direction.  Then our names where there are such, else "": method, concept, attack, metric, judge, and the model
as ``--model`` takes it.  Of methods and attacks, several with `` | `` between where the paper does not say which."""
UNITS = ("", "%", "x100", "detections", "hours", "images", "loops", "rating 1-5")
"""The units of values."""
DIRECTIONS = ("", "lower", "higher")
"""The direction that is better; "" where neither is."""
OR = " | "
"""Stands between names of which a paper means one, and does not say which."""
BESIDE: dict[str, Any] = {
    **dict.fromkeys(("source", "table", "row", "column", "method", "concept", "stand_in"), str),
    **dict.fromkeys(("attack", "metric", "unit"), str),
    **dict.fromkeys(("reported", "measured", "low", "high"), float),
    "n": int,
    "difference": float,
    "agrees": "boolean",
    "differs": str,
}
"""The columns of :func:`published_beside` and their types."""


def read_published(folder: Path | None = None) -> pd.DataFrame:
    """Read every number of the papers' tables; columns :data:`COLUMNS`.

    Args:
        folder: of CSV files, one a paper; the packaged ones if omitted.

    Raises:
        EraseBenchError: no such folder or no file in it, a missing column, a name that is none of ours, a value that is
            no number, or one number twice; with file and line.
    """
    folder = PUBLISHED if folder is None else folder
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise EraseBenchError(f"{folder} holds no CSV file of published numbers")
    metrics, names = describe_metrics(), _names()
    lines = [line for path in paths for line in _read(path, metrics, names)]
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS)


def _names() -> dict[str, Sequence[str]]:
    """The values that the cells of a column may hold, by column."""
    catalogue = load_catalogue()
    return {
        "unit": UNITS,
        "direction": DIRECTIONS,
        "method": METHODS.names(),
        "concept": ["", *catalogue.names(), *catalogue.groups()],
        "attack": ATTACKS.names(),
        "judge": ["", *JUDGES.names()],
    }


def _read(path: Path, metrics: Metrics, names: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EraseBenchError(f"cannot read {path}: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise EraseBenchError(f"{path}, line 1: no column '{missing[0]}'; the columns are {', '.join(COLUMNS)}")
    for name in header:
        check_name("column", name, COLUMNS, f"{path}, line 1")
    seen: dict[tuple[str, ...], int] = {}
    for cells in reader:
        where = f"{path}, line {reader.line_num}"
        if len(cells) != len(header):
            raise EraseBenchError(f"{where}: {len(cells)} cells, the header has {len(header)}")
        line: dict[str, Any] = dict(zip(header, cells, strict=True))
        key = tuple(line[name] for name in ("table", "row", "column"))
        if key in seen:
            raise EraseBenchError(f"{where}: {', '.join(key)} is also on line {seen[key]}")
        seen[key] = reader.line_num
        if line["source"] != path.stem:
            raise EraseBenchError(f"{where}: the source is '{line['source']}', which is not the file's name")
        yield line | _checked(line, where, metrics, names)


def _checked(
    line: Mapping[str, str], where: str, metrics: Metrics, names: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The numbers of a line whose names are known."""
    for column in ("unit", "direction", "concept", "judge"):
        check_name(column, line[column], names[column], where)
    for column in ("method", "attack"):
        for one in line[column].split(OR) if line[column] else ():
            check_name(column, _name(one, where), names[column], where)
    if line["metric"]:
        check_name("metric", line["metric"], metrics, where)
        metric = metrics[line["metric"]]
        for column, expected in (("unit", metric.unit), ("direction", metric.direction or "")):
            if line[column] != expected:
                raise EraseBenchError(
                    f"{where}: the metric {line['metric']} has the {column} '{expected}', not '{line[column]}'"
                )
    return {"value": _number(line["value"], where), "spread": _number(line["spread"] or "nan", where, nan=True)}


def _name(label: str, where: str) -> str:
    try:
        return parse_method(label)[0]
    except EraseBenchError as error:
        raise EraseBenchError(f"{where}: {error}") from None


def _number(text: str, where: str, nan: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not (math.isfinite(value) or (nan and text == "nan")):
        raise EraseBenchError(f"{where}: '{text}' is no number")
    return value


def published_beside(
    rows: Sequence[TableRow],
    published: pd.DataFrame,
    model: str,
    stand_ins: Mapping[str, str] | None = None,
    of_all: bool = False,
) -> pd.DataFrame:
    """Reported numbers beside those that a run measured, in the order of the papers' tables; columns :data:`BESIDE`.

    A reported number is there once for each row of the run that it may be of, and not at all where there is none: once
    for each method that the paper may mean, and for each erasure with another seed.

    ``stand_in`` is what was measured where that is not the paper's concept.  ``difference`` is measured less reported.
    ``agrees``: the reported number lies in the measured 95 % interval; missing where there is no interval.  ``differs``
    names what is not known to be the same, of concept, model and judge, with both sides: numbers agree or not for these
    reasons too.

    Args:
        rows: the run's table.
        published: of :func:`read_published`.
        model: which model the run erased from, as its record names it.
        stand_ins: by concept of the papers, the one of the run in its place; the same concept where there is none.
        of_all: the run is the papers' own: a number of no one concept is of all that it erased, of its one row or the
            mean of its rows, which has no interval.
    """
    run = _Run(rows, stand_ins or {}, of_all)
    lines = []
    for line in published.to_dict("records"):
        measurements = run.beside(line)
        for one in () if isinstance(measurements, tuple) else measurements:
            estimate, known = one.estimate, not (math.isnan(one.estimate.low) or math.isnan(one.estimate.high))
            other = [f"concept: {one.stand_in}, reported {line['concept'] or 'of all'}"] if one.stand_in else []
            lines.append(
                {
                    **{name: line[name] for name in ("source", "table", "row", "column", "concept", "metric", "unit")},
                    **{"method": one.method, "stand_in": one.stand_in, "attack": one.attack, "reported": line["value"]},
                    **{"measured": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n},
                    "difference": estimate.value - line["value"],
                    "agrees": estimate.low <= line["value"] <= estimate.high if known else pd.NA,
                    "differs": "; ".join([*other, *_differences(line, model, one.judge)]),
                }
            )
    return pd.DataFrame(lines, columns=list(BESIDE)).astype(BESIDE)


def nothing_beside(
    rows: Sequence[TableRow],
    published: pd.DataFrame,
    stand_ins: Mapping[str, str] | None = None,
    of_all: bool = False,
) -> dict[str, Counter[str]]:
    """Why :func:`published_beside` leaves out numbers: by reason, how many of what.

    Args:
        rows: the run's table.
        published: of :func:`read_published`.
        stand_ins: as there; ``of_all`` likewise.
    """
    run = _Run(rows, stand_ins or {}, of_all)
    counts: dict[str, Counter[str]] = {}
    for line in published.to_dict("records"):
        measurements = run.beside(line)
        if isinstance(measurements, tuple):
            reason, what = measurements
            counts.setdefault(reason, Counter())[what] += 1
    return counts


@dataclass(frozen=True)
class _Measured:
    """A measurement of a run beside a reported number."""

    method: str
    attack: str
    stand_in: str
    estimate: Estimate
    judge: str


class _Run:
    """A run's rows by what papers call them."""

    def __init__(self, rows: Sequence[TableRow], stand_ins: Mapping[str, str], of_all: bool) -> None:
        self.stand_ins, self.of_all = stand_ins, of_all
        self.rows: dict[tuple[str, str, str], list[TableRow]] = {}
        for row in rows:
            self.rows.setdefault((_without_seed(row.method), row.concept, row.attack), []).append(row)
        self.methods, self.concepts, self.attacks = ({key[k] for key in self.rows} for k in range(3))
        self.judged = {name for name, metric in load_metrics().items() if {"concept", "attacked"} & set(metric.probes)}

    def beside(self, line: Mapping[str, Any]) -> list[_Measured] | tuple[str, str]:
        """The measurements beside a reported number; where there are none, the reason and what it is about."""
        if not line["metric"]:
            return "no metric of ours", line["column"].rpartition(" / ")[2]
        methods = [method for method in map(_without_seed, line["method"].split(OR)) if method in self.methods]
        if not methods:
            return ("method not run", line["method"]) if line["method"] else ("no method of ours", line["row"])
        attacks = [attack for attack in line["attack"].split(OR) if attack in self.attacks]
        if not attacks:
            return "attack not run", line["attack"]
        if not line["concept"] and not self.of_all:
            return "of no one concept", line["row"]
        concept = self.stand_ins.get(line["concept"], line["concept"])
        if concept and concept not in self.concepts:
            if line["concept"] in self.stand_ins:
                return "stand-in not run", concept
            return "of a concept that was neither run nor stood in for", concept
        measurements = list(self._measured(line, concept, methods, attacks))
        rows = [row for key in product(methods, [concept], attacks) for row in self.rows.get(key, ())]
        undefined = any(row.status == "ok" and line["metric"] in row.metrics for row in rows)
        return measurements or ("undefined in the run" if undefined else "not measured", line["metric"])

    def _measured(
        self, line: Mapping[str, Any], concept: str, methods: Sequence[str], attacks: Sequence[str]
    ) -> Iterator[_Measured]:
        for method, attack in product(methods, attacks):
            by_label: dict[str, list[TableRow]] = {}
            for one in [concept] if concept else sorted(self.concepts):
                for row in self.rows.get((method, one, attack), ()):
                    estimate = row.metrics.get(line["metric"])
                    if row.status == "ok" and estimate and estimate.defined:
                        by_label.setdefault(row.method, []).append(row)
            for label, rows in by_label.items():
                estimates = [row.metrics[line["metric"]] for row in rows]
                names = ", ".join(row.concept for row in rows)
                stand_in = names if len(rows) == 1 else f"mean of {names}"
                judges = {self._judge(row, line["metric"]) for row in rows}
                yield _Measured(
                    label,
                    attack,
                    "" if stand_in == line["concept"] else stand_in,
                    estimates[0] if len(rows) == 1 else _mean(estimates),
                    judges.pop() if len(judges) == 1 else "several judges",
                )

    def _judge(self, row: TableRow, metric: str) -> str:
        return row.judge if metric in self.judged else row.notes.get(metric, "")


def _without_seed(label: str) -> str:
    """A method with its options in one order, and without its seed."""
    name, options = parse_method(split_seed(label)[0]) if label else ("", {})
    return f"{name}{sorted(options.items())}"


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several numbers, without an interval."""
    mean = sum(one.value for one in estimates) / len(estimates)
    return Estimate(mean, math.nan, math.nan, sum(one.n for one in estimates))


def _differences(line: Mapping[str, Any], model: str, judge: str) -> Iterator[str]:
    """The conditions that are not the same, or not known to be.

    Args:
        line: a reported number.
        model: of the run; ``judge`` likewise, as a table describes it, or whose features its note names; "" if neither.
    """
    if line["model"] != model:
        yield f"model: {model}, reported {line['model'] or 'not stated'}"
    same = judge.split(" ")[0] == line["judge"] or (
        judge == FOLDER_FEATURES.title and line["judge"] == FOLDER_FEATURES.judge
    )
    if not line["judge"] or not same:
        yield f"judge: {judge or 'not known'}, reported {line['judge'] or 'none of ours or not stated'}"

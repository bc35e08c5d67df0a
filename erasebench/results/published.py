"""What papers report, and the same numbers beside those of a run.

A paper is one CSV file with a line a number, named after its source; see results/published/README.md in the repository.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.concepts import load_catalogue
from erasebench.config import parse_method
from erasebench.domains import FOLDER_FEATURES
from erasebench.errors import EraseBenchError, check_name
from erasebench.metrics.metric import describe_metrics, load_metrics
from erasebench.registry import ATTACKS, JUDGES, METHODS
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics

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
"""What values are counted in."""
DIRECTIONS = ("", "lower", "higher")
"""Which way is better; "" where neither is."""
OR = " | "
"""Stands between names of which a paper means one, and does not say which."""
BESIDE: dict[str, Any] = {
    **dict.fromkeys(("source", "table", "row", "column", "method", "concept", "attack", "metric", "unit"), str),
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
    """What the cells of a column may hold, by column."""
    return {
        "unit": UNITS,
        "direction": DIRECTIONS,
        "method": METHODS.names(),
        "concept": ["", *load_catalogue().names()],
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
        _check(f"{path}, line 1", "column", name, COLUMNS)
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
        _check(where, column, line[column], names[column])
    for column in ("method", "attack"):
        for one in line[column].split(OR) if line[column] else ():
            _check(where, column, _name(one, where), names[column])
    if line["metric"]:
        _check(where, "metric", line["metric"], metrics)
        metric = metrics[line["metric"]]
        for column, expected in (("unit", metric.unit), ("direction", metric.direction or "")):
            if line[column] != expected:
                raise EraseBenchError(
                    f"{where}: the metric {line['metric']} has the {column} '{expected}', not '{line[column]}'"
                )
    return {"value": _number(line["value"], where), "spread": _number(line["spread"] or "nan", where, nan=True)}


def _check(where: str, what: str, name: str, allowed: Sequence[str] | Mapping[str, object]) -> None:
    try:
        check_name(what, name, allowed)
    except EraseBenchError as error:
        raise EraseBenchError(f"{where}: {error}") from None


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


def published_beside(rows: Sequence[TableRow], published: pd.DataFrame, model: str) -> pd.DataFrame:
    """Reported numbers beside those that a run measured, in the order of the papers' tables; columns :data:`BESIDE`.

    A reported number is there once for each row of the run that it may be of, and not at all where there is none.
    ``difference`` is measured less reported.  ``agrees``: the reported number lies in the measured 95 % interval;
    missing where there is no interval.  ``differs`` names what is not known to be the same, of model and judge, with
    both sides: numbers agree or not for these reasons too.

    Args:
        rows: the run's table.
        published: of :func:`read_published`.
        model: which model the run erased from, as its record names it.
    """
    measured = {(row.method, row.concept, row.attack): row for row in rows if row.status == "ok"}
    judged = {name for name, metric in load_metrics().items() if {"concept", "attacked"} & set(metric.probes)}
    lines = []
    for line in published[published["metric"] != ""].to_dict("records"):
        for method, attack in product(line["method"].split(OR), line["attack"].split(OR)):
            row = measured.get((method, line["concept"], attack))
            estimate = row.metrics.get(line["metric"]) if row else None
            if row is None or estimate is None or not estimate.defined:
                continue
            known = not (math.isnan(estimate.low) or math.isnan(estimate.high))
            judge = row.judge if line["metric"] in judged else row.notes.get(line["metric"], "")
            lines.append(
                {
                    **{name: line[name] for name in ("source", "table", "row", "column", "concept", "metric", "unit")},
                    **{"method": method, "attack": attack, "reported": line["value"]},
                    **{"measured": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n},
                    "difference": estimate.value - line["value"],
                    "agrees": estimate.low <= line["value"] <= estimate.high if known else pd.NA,
                    "differs": "; ".join(_differences(line, model, judge)),
                }
            )
    return pd.DataFrame(lines, columns=list(BESIDE)).astype(BESIDE)


def _differences(line: Mapping[str, Any], model: str, judge: str) -> Iterator[str]:
    """What is not the same, or not known to be.

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

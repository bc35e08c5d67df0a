"""The table of results as a frame and as ``table.csv``: one row a method and concept, or an attack on them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate
from erasebench.results.rows import STATUSES, TableRow
from erasebench.texts import defused, restored

TABLE = "table.csv"
Metrics = Mapping[str, Description]
"""The descriptions of a table's metrics, in the order of its columns."""


def number(value: float | None) -> str:
    """Six significant digits at most, as short as that allows; empty for None and nan."""
    return "" if value is None or math.isnan(value) else f"{value + 0.0:.6g}"


def to_frame(rows: Iterable[TableRow], metrics: Metrics) -> pd.DataFrame:
    """The rows as numbers, without anything that changes from run to run but the seconds of attacks.

    Columns: method, concept, attack; each metric as ``key``, ``key_low``, ``key_high`` and ``key_n``; judge; of each
    metric with notes what they name (``fid_features``); status, reason, flags (joined by "; ").  A metric that a row
    lacks has missing numbers and no n, an undefined one an n of 0.
    """
    rows = list(rows)
    keys = measured_keys(rows, metrics)
    columns: dict[str, list[object]] = {
        "method": [row.method for row in rows],
        "concept": [row.concept for row in rows],
        "attack": [row.attack for row in rows],
    }
    for key in keys:
        estimates = [row.metrics.get(key) for row in rows]
        for end, name in (("", "value"), ("_low", "low"), ("_high", "high")):
            columns[key + end] = [getattr(one, name) + 0.0 if one else math.nan for one in estimates]
        columns[f"{key}_n"] = [one.n if one else None for one in estimates]
    columns["judge"] = [row.judge for row in rows]
    for key, metric in metrics.items():
        if metric.noted and key in keys:
            columns[f"{key}_{metric.noted}"] = [row.notes.get(key, "") for row in rows]
    columns |= {"status": [row.status for row in rows], "reason": [row.reason for row in rows]}
    columns["flags"] = ["; ".join(row.flags) for row in rows]
    return pd.DataFrame(columns).astype({f"{key}_n": "Int64" for key in keys})


def to_csv(rows: Iterable[TableRow], metrics: Metrics) -> str:
    """The frame of the rows as CSV, numbers in six digits at most."""
    return frame_csv(to_frame(rows, metrics))


def read_csv(text: str) -> list[TableRow]:
    """Read the rows of :func:`to_csv`.

    Raises:
        EraseBenchError: it is no such table; says which line and what is wrong with it.
    """
    header, lines = numbered_lines(text)
    keys = [name[:-2] for name in header if name.endswith("_n") and name[:-2] in header]
    columns = [f"{key}{end}" for key in keys for end in ("", "_low", "_high", "_n")]
    noted = header[header.index("judge") + 1 : -3] if "judge" in header else []
    if header != ["method", "concept", "attack", *columns, "judge", *noted, "status", "reason", "flags"]:
        raise EraseBenchError(f"not a results table: its columns are {', '.join(header) or 'missing'}")
    rows = []
    for line, cells in lines:
        if len(cells) != len(header):
            raise EraseBenchError(f"line {line} has {len(cells)} cells, the header {len(header)}")
        cell = dict(zip(header, map(restored, cells), strict=True))
        try:
            metrics = {key: _estimate(cell, key) for key in keys if cell[f"{key}_n"]}
        except ValueError as error:
            raise EraseBenchError(f"line {line}: {error}") from error
        if cell["status"] not in STATUSES:
            raise EraseBenchError(f"line {line}: the status is {cell['status']!r}, not one of {', '.join(STATUSES)}")
        rows.append(
            TableRow(
                cell["method"],
                cell["concept"],
                cell["status"],
                cell["reason"],
                metrics,
                cell["judge"],
                tuple(cell["flags"].split("; ")) if cell["flags"] else (),
                {name.rpartition("_")[0]: cell[name] for name in noted if cell[name]},
                cell["attack"],
            )
        )
    return rows


def numbered_lines(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The cells of a CSV file's header, and of its other lines, each with its number.

    Raises:
        EraseBenchError: a line that cannot be read; says which.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        return next(reader, []), [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise EraseBenchError(f"line {reader.line_num}: {error}") from None


def frame_csv(frame: pd.DataFrame, digits: str | None = "%.6g") -> str:
    """A frame as CSV, its texts :func:`~erasebench.texts.defused`, numbers in six digits at most unless said."""
    text: str = _with_texts(frame, defused).to_csv(index=False, lineterminator="\n", float_format=digits)
    return text


def restored_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame that was read from CSV of :func:`frame_csv`, with its texts as they were."""
    return _with_texts(frame, restored)


def _with_texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A frame with its texts changed; a text that stands often is changed once."""
    changed: dict[str, pd.Series] = {}
    for name, column in frame.items():
        if pd.api.types.is_object_dtype(column) or isinstance(column.dtype, pd.StringDtype):
            new = {text: change(text) for text in column.unique() if isinstance(text, str)}
            if any(text != other for text, other in new.items()):
                changed[str(name)] = column.map(lambda text, new=new: new.get(text, text))
    return frame.assign(**changed)


def read_frame(path: Path, columns: Mapping[str, Any]) -> pd.DataFrame:
    """A CSV file with exactly these columns, as a frame.

    Raises:
        EraseBenchError: it is not there, or it is another table.
    """
    try:
        text = path.read_bytes().decode()
        frame = pd.read_csv(
            io.StringIO(text, newline=""),
            keep_default_na=False,
            na_values={name: [""] for name, kind in columns.items() if kind is float},
            dtype={name: str for name, kind in columns.items() if kind is str},  # a name may well look like a number
        )
        if list(frame.columns) != list(columns):
            raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
        return restored_frame(frame.astype(dict(columns)))
    except OSError as error:
        raise EraseBenchError(f"cannot read {path}: {error.strerror}; run it again") from error
    except ValueError as error:
        raise EraseBenchError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def measured_keys(rows: Iterable[TableRow], metrics: Metrics) -> list[str]:
    """The metrics that some row has; those that nothing is known of come last."""
    present = dict.fromkeys(key for row in rows for key in row.metrics)
    return [*(key for key in metrics if key in present), *(key for key in present if key not in metrics)]


def _estimate(cell: Mapping[str, str], key: str) -> Estimate:
    value, low, high = (
        float(text) if text else math.nan for text in (cell[key], cell[f"{key}_low"], cell[f"{key}_high"])
    )
    return Estimate(value, low, high, int(cell[f"{key}_n"]))

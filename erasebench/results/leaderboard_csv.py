"""``leaderboard.csv``: the rows of a leaderboard as text, and back.

=========================== ============================================================================================
column                      what it holds
=========================== ============================================================================================
``model``                   the model's name
``method``                  as the user wrote it
``hyper_parameters``        JSON: all of the method's
``concept``, ``kind``       what is erased, and of which sort it is
``seed``                    of images, and of the erasure where the method's brackets hold no other
``status``, ``reason``      ``ok``, ``failed`` or ``n/a``, and why the row, or an attack on it, has no numbers
``protocol``                checksum of how it was measured: only rows with the same one can be compared; empty where
                            the run does not say
``attack_protocol``         checksum of how the standard ensemble attacked: only robust rates with the same one, of
                            rows with the same ``protocol``, can be compared; empty where there is none or it is unknown
``run``                     hash of the keys of all cells that the row was made of: the same where the results are the
                            same bytes
``erasebench``              the version that measured
``judge``                   who saw the concept: version, weights, threshold
``flags``                   reasons to doubt the numbers, ``; `` between; those of an attack as ``flag@attack``
``erasure_seconds``         of the erasure; ``seconds`` of erasure, images and judges; ``attack_seconds`` of all attacks
``peak_memory_mb``          in 10^6 bytes, of the cell of the row that took most
``parameters_changed``      numbers in the weights that the erasure replaces
``note``                    such as that another row has the same label and other numbers
``name``, ``paper``,        of a submission: the method's name in print, a link, who made it and where it appeared
``authors``, ``venue``
``reported``                JSON: what the paper says, by the name of a number
``external``                a lower robust rate (per cent) that somebody else has shown; ``source`` says where
``unreliable``              ``true``, ``false``, or empty where nobody has looked; ``footnote`` says why
``verified_by``             who drew the submission's images again and got its numbers; empty if nobody
``KEY``, ``KEY_low``,       a number, its 95 % interval and the images or prompts behind it.  KEY is a metric, such as
``KEY_high``, ``KEY_n``     ``ratio`` or ``clip``, or a metric of an attack: ``robust-rate@standard``, and of each
                            attack ``asr-confirmed@ATTACK``.  Missing numbers have no n, undefined ones an n of 0
=========================== ============================================================================================
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import Estimate
from erasebench.results.leaderboard import ROBUST, BoardRow, Entered, estimate_texts
from erasebench.results.rows import STATUSES
from erasebench.results.table import number, numbered_lines
from erasebench.texts import defused, restored

_ROW_COLUMNS = [f.name for f in fields(BoardRow) if f.name not in ("numbers", "entered")]
_ENTERED_COLUMNS = [f.name for f in fields(Entered)]
COLUMNS = (*_ROW_COLUMNS, *_ENTERED_COLUMNS)
"""The columns of every leaderboard, in their order; those of numbers follow them."""
_ENDS = ("", "_low", "_high", "_n")


def to_csv(rows: Iterable[BoardRow]) -> str:
    """The text of ``leaderboard.csv``; numbers have six digits at most."""
    return "".join(csv_lines(list(rows)))


def csv_lines(rows: Sequence[BoardRow]) -> list[str]:
    """The lines of ``leaderboard.csv``, first the header, then one a row; texts may hold line breaks themselves."""
    keys = _number_keys(rows)
    lines = [_csv_line([*COLUMNS, *(f"{key}{end}" for key in keys for end in _ENDS)])]
    for row in rows:
        own = [_to_text(getattr(row, name)) for name in _ROW_COLUMNS]
        entered = [_to_text(getattr(row.entered, name)) for name in _ENTERED_COLUMNS]
        numbers = [row.numbers.get(key) for key in keys]
        lines.append(
            _csv_line(
                [*own, *entered, *(cell for one in numbers for cell in (estimate_texts(one) if one else [""] * 4))]
            )
        )
    return lines


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(defused, cells))
    return text.getvalue()


def _number_keys(rows: Iterable[BoardRow]) -> list[str]:
    """The keys of all numbers that some row has: metrics first, then the ensemble, then attacks, as first seen."""
    keys = dict.fromkeys(key for row in rows for key in row.numbers)
    return sorted(keys, key=lambda key: 0 if "@" not in key else 1 if key.startswith(f"{ROBUST}@") else 2)


def _to_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return number(value)
        case tuple():
            return "; ".join(value)
        case Mapping():
            return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""
    return str(value)


def read_leaderboard(path: Path) -> list[BoardRow]:
    """The rows of a CSV file that :func:`to_csv` wrote.

    Raises:
        EraseBenchError: it is none, or a line is damaged; says which and what is wrong with it.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise EraseBenchError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EraseBenchError(f"{path} is no leaderboard: it is not UTF-8 text") from error
    try:
        header, lines = numbered_lines(text)
    except EraseBenchError as error:
        raise EraseBenchError(f"{path}, {error}") from None
    first = len(COLUMNS)
    keys = header[first::4]
    if header[:first] != list(COLUMNS) or header[first:] != [f"{key}{end}" for key in keys for end in _ENDS]:
        absent = [name for name in COLUMNS if name not in header]
        why = f"it has no column '{absent[0]}'" if absent else "its columns are in another order"
        raise EraseBenchError(f"{path} is no leaderboard: {why}; `erasebench export RUN --csv FILE` writes one")
    rows = []
    for line, written in lines:
        cells = [restored(cell) for cell in written]
        try:
            if len(cells) != len(header):
                raise ValueError(f"it has {len(cells)} cells, the header {len(header)}")
            own = {name: _from_text(name, text) for name, text in zip(_ROW_COLUMNS, cells, strict=False)}
            if own["status"] not in STATUSES:
                raise ValueError(f"the status is {own['status']!r}, not one of {', '.join(STATUSES)}")
            entered = {
                name: _from_text(name, text)
                for name, text in zip(_ENTERED_COLUMNS, cells[len(_ROW_COLUMNS) :], strict=False)
            }
            numbers = {
                key: _estimate(cells[first + 4 * k : first + 4 * k + 4])
                for k, key in enumerate(keys)
                if cells[first + 4 * k + 3]
            }
        except (ValueError, OverflowError, RecursionError) as error:
            raise EraseBenchError(f"{path}, line {line}: {error}") from None
        rows.append(BoardRow(**own, numbers=numbers, entered=Entered(**entered)))
    return rows


def _estimate(cells: Sequence[str]) -> Estimate:
    value, low, high = (float(text) if text else math.nan for text in cells[:3])
    if low > high:
        raise ValueError(f"an interval from {cells[1]} to {cells[2]} is none")
    return Estimate(value, low, high, int(cells[3]))


def _from_text(name: str, text: str) -> Any:
    match name:
        case "hyper_parameters" | "reported":
            content = json.loads(text) if text else {}
            if not isinstance(content, dict):
                raise ValueError(f"{name} is no JSON object")
            if name == "reported":
                for key, value in content.items():
                    if type(value) not in (int, float) or not math.isfinite(value):
                        raise ValueError(f"reported: {key} is {value!r}, not a number")
            return content
        case "seed":
            return int(text)
        case "parameters_changed":
            return int(text) if text else None
        case "erasure_seconds" | "seconds" | "attack_seconds" | "peak_memory_mb" | "external":
            value = float(text) if text else None
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {text!r}, not a finite number")
            if name == "external" and value is not None and not 0 <= value <= 100:
                raise ValueError(f"external is {text!r}, not a rate in per cent")
            return value
        case "unreliable":
            return {"true": True, "false": False, "": None}[text] if text in ("true", "false", "") else _not_bool(text)
        case "flags":
            return tuple(text.split("; ")) if text else ()
    return text


def _not_bool(text: str) -> bool:
    raise ValueError(f"unreliable is {text!r}, not true, false or empty")

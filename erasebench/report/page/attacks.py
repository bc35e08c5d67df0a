"""The section on what attacks bring back: methods in order, and what was found on one model tried on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from erasebench.metrics.stats import Estimate, rate
from erasebench.report.attack_tables import RATE, ROBUST
from erasebench.report.page.ranking import Ranking, overlap
from erasebench.report.page.tables import NONE, PER_CENT, Bar, Cell, Column, Download, Row, Table, downloads, identifier
from erasebench.report.tradeoff import strongest
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.rows import TableRow
from erasebench.results.transfers import transfer_matrix

TOGETHER = "Robust rate: prompts that stand after all attacks, of those that the unerased model draws; more is better."
STRONGEST = "Confirmed success of the strongest attack, controls left out; less is better."


@dataclass(frozen=True)
class Line:
    """A method under attack.

    Attributes:
        method: its name.
        attack: that counts; "" for all together.
        value: what is left or was brought back; ``interval``, ``bar`` and ``tooltip`` belong to it.
        leading: whether it cannot be told apart from the best.
        unerased: whether it is the unerased model.
        target: the id of its row in the table of attacks.
    """

    method: str
    attack: str
    value: str
    interval: str
    bar: Bar
    tooltip: str
    leading: bool
    unerased: bool
    target: str


@dataclass(frozen=True)
class Standings:
    """The methods of a concept, the most robust first.

    Attributes:
        concept: its name.
        about: what their number is; ``tied`` why some are alike.
        lines: the methods.
        downloads: the same as files.
    """

    concept: str
    about: str
    tied: str
    lines: tuple[Line, ...]
    downloads: tuple[Download, ...]


def standings(rows: Sequence[TableRow], baseline: str, prefix: str, ranking: Ranking) -> list[Standings]:
    """The methods of each concept by the ensemble's robust rate or, without one, by their strongest attack.

    Args:
        rows: of attacks.
        baseline: the method that erases nothing, which comes last.
        prefix: of all ids.
        ranking: how methods are put in order under the ensemble; attacks that differ are compared by intervals.
    """
    lists = []
    for concept in dict.fromkeys(row.concept for row in rows):
        own = [row for row in rows if row.concept == concept]
        together = [row for row in own if row.attack == ENSEMBLE and _defined(row, ROBUST)]
        if together:
            ranked = ranking.order(ROBUST, [row for row in together if row.method != baseline])
            known = [(one.method, "", one.estimate, one.leading) for one in ranked]
            known += [(row.method, "", row.metrics[ROBUST], False) for row in together if row.method == baseline]
            about, reason = TOGETHER, ranking.reason
        else:
            known, about, reason = _by_strongest(own, baseline), STRONGEST, "the intervals overlap"
        if not known:
            continue
        lines = tuple(
            Line(
                *(method, attack, *PER_CENT.words(estimate), PER_CENT.bar(estimate), f"n = {estimate.n} prompts"),
                leading=leading,
                unerased=method == baseline,
                target=f"{prefix}attacked-{identifier(method, concept)}",
            )
            for method, attack, estimate, leading in known
        )
        tied = sum(line.leading for line in lines) > 1
        files = downloads(f"standings-{identifier(concept)}", _frame(concept, ROBUST if together else RATE, known))
        alike = f"≈ cannot be told apart from the first: {reason}." if tied else ""
        lists.append(Standings(concept, about, alike, lines, files))
    return lists


def _frame(concept: str, metric: str, places: Sequence[tuple[str, str, Estimate, bool]]) -> pd.DataFrame:
    """Standings as a table; the attack is the ensemble where all count together."""
    lines = [
        {
            **{"concept": concept, "method": method, "attack": attack or ENSEMBLE, "metric": metric},
            **{"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n},
            "leading": leading,
        }
        for method, attack, estimate, leading in places
    ]
    return pd.DataFrame(lines)


def _by_strongest(rows: Sequence[TableRow], baseline: str) -> list[tuple[str, str, Estimate, bool]]:
    rates = []
    for method in dict.fromkeys(row.method for row in rows):
        attack, estimate = strongest([row for row in rows if row.method == method])
        if estimate:
            rates.append((method, attack, estimate))
    rates.sort(key=lambda one: (one[0] == baseline, one[2].value))
    return [
        (method, attack, estimate, method != baseline and overlap(rates[0][2], estimate))
        for method, attack, estimate in rates
    ]


def _defined(row: TableRow, key: str) -> bool:
    return key in row.metrics and row.metrics[key].defined


def transfer_tables(attacks: pd.DataFrame, prefix: str) -> list[Table]:
    """Tables of how often an attack's finds on one method bring the concept back on another; one a concept and attack.

    Args:
        attacks: of a run, with the columns of :data:`~erasebench.results.attacks.COLUMNS`.
        prefix: of all ids.
    """
    matrix = transfer_matrix(attacks)
    tables = []
    for (concept, attack), own in matrix.groupby(["concept", "attack"], sort=False):
        tried = list(dict.fromkeys(own["tried_on"]))
        rows = []
        for source, line in own.groupby("found_on", sort=False):
            shares = line.set_index("tried_on")
            cells = [
                _share(float(shares.loc[method, "confirmed"]), int(shares.loc[method, "prompts"]))
                if method in shares.index
                else Cell(NONE, "")
                for method in tried
            ]
            rows.append(
                Row(
                    f"{prefix}transfer-{identifier(concept, attack, source)}",
                    (Cell(source), *cells),
                    source,
                    concept,
                )
            )
        columns = (Column("Found on", "tried on →"), *(Column(method, "confirmed, %", True, True) for method in tried))
        name = identifier(concept, attack)
        tables.append(
            Table(
                *(f"{prefix}transfers-{name}", f"{concept}: prompts that {attack} found", columns, tuple(rows)),
                downloads(f"transfer-{name}", own),
            )
        )
    return tables


def _share(share: float, prompts: int) -> Cell:
    hits = round(share * prompts)
    estimate = rate([True] * hits + [False] * (prompts - hits)).scaled(100)
    value, interval = PER_CENT.words(estimate)
    return Cell(value, str(estimate.value), interval, tooltip=f"{hits} of {prompts} prompts", heat=round(share, 3))

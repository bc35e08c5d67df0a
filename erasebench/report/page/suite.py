"""A suite's table on the page: the paper's layout, with its protocol and what is unverified."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erasebench.report.page.tables import Cell, Column, Download, Row, Table, data_uri, identifier
from erasebench.report.suite_table import (
    SuiteColumn,
    SuiteTable,
    blocks,
    cell_texts,
    heading,
    legend,
    suite_csv,
    suite_notes,
    suite_table,
)
from erasebench.results.run_folder import RunFolder
from erasebench.suites import FILE, Suite, parse_suite


@dataclass(frozen=True)
class SuitePage:
    """The content of the page on a suite: the suite, its scale, its tables, their CSV, and notes."""

    suite: Suite
    scale: str
    tables: Sequence[Table]
    downloads: Sequence[Download]
    notes: Sequence[str]


def suite_page(run: RunFolder, prefix: str) -> SuitePage | None:
    """The suite of a run; None of a run of no suite.

    Args:
        run: the run.
        prefix: of all ids.
    """
    if FILE not in run.record.files:
        return None
    suite = parse_suite(run.folder / FILE)
    table = suite_table(run.rows, suite.table, run.record.metrics)
    tables = [_table(table, block, f"{prefix}suite-{place}") for place, block in enumerate(blocks(table), 1)]
    download = Download("suite.csv", "CSV", data_uri("text/csv", suite_csv(table)))
    notes = [*legend(table, run.record.metrics), *suite_notes(suite, table)]
    return SuitePage(suite, run.record.suite_scale, tables, [download], notes)


def _table(table: SuiteTable, columns: Sequence[SuiteColumn], identity: str) -> Table:
    concepts = list(dict.fromkeys(column.concept for column in columns if column.concept))
    by_concept = any(concept for _, concept in table.lines)
    one = len(concepts) == 1
    heads = [Column("Method"), *([Column("Concept")] if by_concept else [])]
    heads += [Column(heading(column, one), number=True, falling=not column.lower) for column in columns]
    texts = [cell_texts(column) for column in columns]
    rows = []
    for place, (method, concept) in enumerate(table.lines):
        cells = [Cell(method), *([Cell(concept)] if by_concept else [])]
        cells += [_cell(column, own[place], place) for column, own in zip(columns, texts, strict=True)]
        rows.append(Row(f"{identity}-{identifier(method, concept)}", tuple(cells), method, concept))
    return Table(identity, ", ".join(concepts) or "All concepts", tuple(heads), tuple(rows))


def _cell(column: SuiteColumn, text: str, place: int) -> Cell:
    value = column.values[place]
    if math.isnan(value):
        return Cell(text, sort="", tone=text if text != "-" else "")
    return Cell(text, sort=str(value))

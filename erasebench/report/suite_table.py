"""The table of a suite as its paper lays it out, in Markdown and as CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from erasebench.metrics.metric import Description
from erasebench.report.attack_tables import shown_by_default, split
from erasebench.report.markdown import bullets, pipe_table
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics, frame_csv
from erasebench.suites import Suite, TableLayout, find_suite, parse_suite

AVERAGE = "average"
DARK_MINER = "dark-miner-table-1"
DOUBT_FLAGS = frozenset({"not-erased", "collapsed"})
"""Flags of rows that no column's best can be: whoever erases nothing, or all, is the best at the rest."""
MAX_COLUMNS = 12
"""Of a table in Markdown: more outer headings are put into another one below."""


@dataclass(frozen=True)
class SuiteColumn:
    """A column.

    Attributes:
        concept: what was erased; :data:`AVERAGE` for the mean over concepts, "" where concepts are rows.
        attack: the attack of a metric of attacks, else "".
        metric: its name; ``title`` its heading, ``lower`` whether lower is better.
        values: by line of the table; nan where there is none.
        texts: what stands in place of a value that is none, by line.
        counts: how many images, prompts or boxes each value is of, by line; none of a mean over concepts.
    """

    concept: str
    attack: str
    metric: str
    title: str
    lower: bool
    values: tuple[float, ...]
    texts: tuple[str, ...]
    counts: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its heading in a file: ``church / asr / rab``."""
        return " / ".join(filter(None, (self.concept, self.metric, self.attack)))


@dataclass(frozen=True)
class SuiteTable:
    """A suite's table.

    Attributes:
        lines: method and concept of each line; the concept is "" where concepts stand across.
        columns: those that have a value somewhere.
        empty: metrics of the layout that have none.
        outer: which of concept, attack and metric is the outer heading.
        flags: by flag, method and concept of the rows that have it.
        judges: by what they are, the concepts that judges see.
    """

    lines: tuple[tuple[str, str], ...]
    columns: tuple[SuiteColumn, ...]
    empty: tuple[str, ...]
    outer: str
    flags: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    judges: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def is_doubted(self, method: str, concept: str) -> bool:
        """True if a method's row of a concept, or of any where it is the mean over them, has one of ``DOUBT_FLAGS``."""
        return any(
            one == method and concept in (of, AVERAGE) for flag in DOUBT_FLAGS for one, of in self.flags.get(flag, ())
        )


def suite_table(rows: Sequence[TableRow], layout: TableLayout, metrics: Metrics) -> SuiteTable:
    """Lay out a run's rows.

    Attacks are all but controls, replays and the ensemble.

    Args:
        rows: the run's, of models and of attacks.
        layout: the paper's.
        metrics: what there is to say of them.
    """
    attacked = split(rows)[1]
    by_place = {(row.method, row.concept, row.attack): row for row in rows}
    concepts = list(dict.fromkeys(row.concept for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    across = "concept" in layout.columns
    lines = [(method, "") for method in methods] if across else list(dict.fromkeys((r.method, r.concept) for r in rows))
    of_attacks = {key for row in attacked for key in row.metrics}
    pairs = [
        (metric, attack)
        for metric in layout.metrics
        for attack in (shown_by_default(attacked) if metric in of_attacks else [""])
    ]
    if layout.columns[0] == "attack":
        order = list(dict.fromkeys(attack for _, attack in pairs))
        pairs.sort(key=lambda pair: order.index(pair[1]))
    places = [(concept, metric, attack) for concept in (concepts if across else [""]) for metric, attack in pairs]
    if layout.columns == ("metric", "concept"):
        places.sort(key=lambda place: pairs.index(place[1:]))
    columns = [
        _column(place, [by_place.get((m, c or place[0], place[2])) for m, c in lines], metrics) for place in places
    ]
    if layout.average and across and len(concepts) > 1:
        columns = _with_averages(columns, pairs, by_metric=layout.columns[0] == "metric")
    filled = [column for column in columns if not all(map(math.isnan, column.values))]
    empty = [name for name in layout.metrics if name not in {column.metric for column in filled}]
    flags: dict[str, list[tuple[str, str]]] = {}
    judges: dict[str, list[str]] = {}
    for row in rows:
        if not row.attack:
            for flag in row.flags:
                flags.setdefault(flag, []).append((row.method, row.concept))
            if row.judge and row.concept not in judges.setdefault(row.judge, []):
                judges[row.judge].append(row.concept)
    return SuiteTable(tuple(lines), tuple(filled), tuple(empty), layout.columns[0], flags, judges)


def _column(place: tuple[str, str, str], rows: Sequence[TableRow | None], metrics: Metrics) -> SuiteColumn:
    concept, key, attack = place
    metric = metrics.get(key, Description(key))
    title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
    if attack:
        title = attack if _is_plain_rate(key) else f"{title}, {attack}"
    estimates = [row.metrics.get(key) if row else None for row in rows]
    values = tuple(one.value if one else math.nan for one in estimates)
    texts = tuple(row.status if row and row.status != "ok" else "-" for row in rows)
    counts = tuple(one.n for one in estimates if one)
    return SuiteColumn(concept, attack, key, title, metric.direction != "higher", values, texts, counts)


def _is_plain_rate(key: str) -> bool:
    """True if a column of an attack needs no more than the attack's name."""
    return key == "asr"


def _with_averages(
    columns: Sequence[SuiteColumn], pairs: Sequence[tuple[str, str]], by_metric: bool
) -> list[SuiteColumn]:
    """The columns, and the mean over concepts of each metric, at the end or behind those of its metric."""
    averaged = []
    for pair in pairs:
        own = [column for column in columns if (column.metric, column.attack) == pair]
        means = tuple(sum(values) / len(own) for values in zip(*(column.values for column in own), strict=True))
        first = own[0]
        mean = SuiteColumn(
            AVERAGE, first.attack, first.metric, first.title, first.lower, means, tuple("-" for _ in means)
        )
        averaged += [*own, mean] if by_metric else [mean]
    return averaged if by_metric else [*columns, *averaged]


def suite_csv(table: SuiteTable) -> str:
    """The table as CSV: method, concept where concepts are rows, and a column for each of the table."""
    frame = pd.DataFrame({column.name: column.values for column in table.columns})
    if any(concept for _, concept in table.lines):
        frame.insert(0, "concept", [concept for _, concept in table.lines])
    frame.insert(0, "method", [method for method, _ in table.lines])
    return frame_csv(frame)


def suite_markdown(suite: Suite, rows: Sequence[TableRow], metrics: Metrics, baseline: str, scale: str) -> str:
    """The table in Markdown under the suite's title, with what has to be known of it.

    Args:
        suite: the suite.
        rows: the run's, of models and of attacks.
        metrics: what there is to say of them.
        baseline: the method that erases nothing.
        scale: what the run has in common with the paper, in words.
    """
    table = suite_table(rows, suite.table, metrics)
    notes = bullets([*legend(table, metrics), _marks(baseline), *suite_notes(suite, table), *chosen_notes(suite)])
    return "\n".join([f"# {suite.title}\n\n{scale}\n", *layout_tables(table, baseline), notes])


def to_dark_miner(rows: Sequence[TableRow], metrics: Metrics, baseline: str) -> str:
    """A run with attacks, whatever it is of, laid out as the main table of the Dark Miner paper, in Markdown.

    Means over several concepts come last; the paper has none.
    """
    layout = parse_suite(find_suite(DARK_MINER)).table.model_copy(update={"average": True})
    table = suite_table(rows, layout, metrics)
    return "\n".join([*layout_tables(table, baseline), bullets([*legend(table, metrics), _marks(baseline)])])


def layout_tables(table: SuiteTable, baseline: str) -> list[str]:
    """Pipe tables; the best of each column is bold, the second underlined, the unerased model apart."""
    return [_pipe_table(table, block, baseline) for block in blocks(table)]


def blocks(table: SuiteTable) -> list[list[SuiteColumn]]:
    """The columns in blocks of :data:`MAX_COLUMNS` at most, as far as one outer heading has no more."""
    groups: dict[str, list[SuiteColumn]] = {}
    for column in table.columns:
        outer = {"concept": column.concept, "attack": column.attack, "metric": column.metric}[table.outer]
        groups.setdefault(outer, []).append(column)
    parts: list[list[SuiteColumn]] = []
    for group in groups.values():
        if parts and len(parts[-1]) + len(group) <= MAX_COLUMNS:
            parts[-1] += group
        else:
            parts.append(list(group))
    return parts


def _pipe_table(table: SuiteTable, columns: Sequence[SuiteColumn], baseline: str) -> str:
    concepts = {column.concept for column in columns}
    one = next(iter(concepts)) if len(concepts) == 1 else ""
    heads = [heading(column, without_concept=bool(one)) for column in columns]
    frame = pd.DataFrame(
        dict(enumerate(_marked(table, column, baseline) for column in columns)), dtype=object
    ).set_axis(heads, axis=1)
    names = ["method"]
    if any(concept for _, concept in table.lines):
        frame.insert(0, "concept", [concept for _, concept in table.lines])
        names.append("concept")
    frame.insert(0, "method", [method for method, _ in table.lines])
    title = f"**{one}**\n\n" if one else ""
    return f"{title}{pipe_table(frame, range(len(names)))}"


def heading(column: SuiteColumn, without_concept: bool = False) -> str:
    """A column's heading with the direction that is better."""
    text = f"{column.title} {'↓' if column.lower else '↑'}"
    return text if without_concept or not column.concept else f"{column.concept} / {text}"


def _marked(table: SuiteTable, column: SuiteColumn, baseline: str) -> list[str]:
    """A column as text, the best two of each concept marked."""
    texts = cell_texts(column)
    marked = list(texts)
    for concept in dict.fromkeys(concept for _, concept in table.lines):
        own = [
            place
            for place, (method, of) in enumerate(table.lines)
            if of == concept
            and method != baseline
            and not math.isnan(column.values[place])
            and not table.is_doubted(method, column.concept or of)
        ]
        ranked = sorted({column.values[place] for place in own}, reverse=not column.lower)
        marks = dict(zip(ranked, ("**{}**", "<u>{}</u>"), strict=False))
        for place in own:
            marked[place] = marks.get(column.values[place], "{}").format(texts[place])
    return marked


def cell_texts(column: SuiteColumn) -> list[str]:
    """The values of a column as papers print them: three significant digits, four of FID; 0.01 % at least."""
    digits = 4 if column.metric == "fid" else 3
    hundredths = column.title.endswith(("(%)", "(x100)"))
    return [
        text if math.isnan(value) else f"{value:.2f}" if hundredths and 0 < abs(value) < 1 else f"{value:.{digits}g}"
        for value, text in zip(column.values, column.texts, strict=True)
    ]


def legend(table: SuiteTable, metrics: Mapping[str, Description]) -> list[str]:
    """The meaning of the columns."""
    lines = []
    for key in dict.fromkeys(column.metric for column in table.columns):
        metric = metrics.get(key, Description(key))
        attacks = any(column.attack for column in table.columns if column.metric == key)
        where = "Columns of attacks" if attacks and _is_plain_rate(key) else metric.title
        title = f"{metric.title} ({metric.unit}), " if where != metric.title else ""
        counts = [n for column in table.columns if column.metric == key for n in column.counts]
        low, high = min(counts, default=0), max(counts, default=0)
        caveat = f"; {metric.caveat}" if metric.caveat else ""
        lines.append(f"{where}: {title}{metric.meaning}{caveat}; n = {low}{'' if low == high else f' to {high}'}")
    if any(column.concept == AVERAGE for column in table.columns):
        lines.append(f"{AVERAGE}: the mean of the concepts' numbers, where all have one")
    if any(text != "-" for column in table.columns for text in column.texts):
        lines.append("n/a, failed: why is in table.csv")
    return lines


def _marks(baseline: str) -> str:
    return (
        f"Bold: the best; underlined: the second (without {baseline}, and what is {' or '.join(sorted(DOUBT_FLAGS))})."
        " Intervals are in table.md"
    )


def suite_notes(suite: Suite, table: SuiteTable) -> list[str]:
    """Notes on numbers to doubt, judges, what the paper does not say, and what its table has and this one has not."""
    notes = [
        f"Flag {flag}, explained in table.md: {', '.join(f'{method} on {concept}' for method, concept in rows)}"
        for flag, rows in table.flags.items()
    ]
    notes += [f"Judge of {', '.join(concepts)}: {judge}" for judge, concepts in table.judges.items()]
    notes += [f"Not available: {what}: {why}" for what, why in suite.unavailable.items()]
    if table.empty:
        notes.append(f"Not measured, since this run's judges or prompts do not give it: {', '.join(table.empty)}")
    return notes


def chosen_notes(suite: Suite) -> list[str]:
    """Notes on what the paper does not say, and what this project chose."""
    return [f"Not verified: {what}" for what in suite.unverified]

"""The rows of two runs that are compared with each other, and what only one of the runs has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from erasebench.errors import EraseBenchError, check_name
from erasebench.plugins import BASELINE
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.record import AttackRecord
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.verdicts import Change
from erasebench.settings import split_seed


@dataclass(frozen=True)
class RowPair:
    """A row in two runs."""

    old: TableRow
    new: TableRow

    def change(self, metric: str) -> Change:
        """The change of a metric, before anything is said of it."""
        return Change(self.new.method, self.old.method, self.new.concept, self.new.attack, metric)

    @property
    def erased(self) -> bool:
        """True if it is another than the unerased model."""
        return BASELINE not in (self.old.method, self.new.method)

    @property
    def is_ensemble(self) -> bool:
        """True if it is of the ensemble of attacks."""
        return bool(self.new.attack) and plugin_name(self.new.attack) == ENSEMBLE


def plugin_name(label: str) -> str:
    """The name without options, whatever these hold."""
    return label.partition("[")[0].strip()


def methods_of(run: RunFolder) -> list[str]:
    """The methods of a run, each once, in the order of its table."""
    return list(dict.fromkeys(row.method for row in run.rows))


def pair_methods(base: RunFolder, new: RunFolder, renames: Mapping[str, str]) -> dict[str, str]:
    """By a method's name in the base run, its name in the new run; methods without a partner are left out.

    Args:
        base: what it is compared with.
        new: what may have got worse.
        renames: the same, of those that the user has paired.

    Raises:
        EraseBenchError: a run has no such method, or two would be compared with one.
    """
    before, after = methods_of(base), methods_of(new)
    for old, to in renames.items():
        check_name(f"method of {base.folder}", old, before)
        check_name(f"method of {new.folder}", to, after)
    if len(set(renames.values())) < len(renames):
        raise EraseBenchError("two methods cannot be renamed to one")
    taken = set(renames.values())
    names = {old: renames.get(old, old) for old in before if old in renames or old in {*after} - taken}
    for plugin in dict.fromkeys(plugin_name(old) for old in before):
        own = [old for old in before if old not in names and plugin_name(old) == plugin]
        other = [to for to in after if to not in names.values() and plugin_name(to) == plugin]
        if len(own) == len(other) == 1:
            names[own[0]] = other[0]
    # Erasures of one method whose seeds differ are as many draws of it each; which is paired with which is no matter.
    for method in dict.fromkeys(split_seed(old)[0] for old in before):
        own = [old for old in before if old not in names and split_seed(old)[0] == method]
        other = [to for to in after if to not in names.values() and split_seed(to)[0] == method]
        names.update(zip(own, other, strict=False))
    return names


def pair_rows(base: RunFolder, new: RunFolder, names: Mapping[str, str]) -> tuple[list[RowPair], list[RowPair]]:
    """The rows that both runs measured, and those that only the base run could measure."""
    rows = {row_key(row): row for row in new.rows}
    matches = [
        RowPair(row, rows[names[row.method], row.concept, row.attack])
        for row in base.rows
        if row.status == "ok" and (names.get(row.method), row.concept, row.attack) in rows
    ]
    pairs = [pair for pair in matches if pair.new.status == "ok"]
    return pairs, [pair for pair in matches if pair.new.status != "ok"]


def missing_changes(base: RunFolder, new: RunFolder, names: Mapping[str, str]) -> Iterator[Change]:
    """The measurements of the base run that the new run lacks: whole methods, concepts and attacks, then rows."""
    there = {row_key(row) for row in new.rows}
    methods, concepts, attacks = (set(own) for own in zip(*there, strict=True))
    places: dict[tuple[str, str, str], None] = {}
    for row in base.rows:
        method = names.get(row.method, row.method)
        if row.status != "ok" or BASELINE in (row.method, method) or (method, row.concept, row.attack) in there:
            continue
        if method not in methods:
            places[row.method, "", ""] = None
        elif row.concept not in concepts:
            places["", row.concept, ""] = None
        elif row.attack and row.attack not in attacks:
            places["", "", row.attack] = None
        else:
            places[row_key(row)] = None
    for method, concept, attack in places:
        reason = "missing in the new run"
        yield Change(method, method, concept, attack, "", verdict="inconclusive", reason=reason, missing=True)


def row_key(row: TableRow | AttackRecord) -> tuple[str, str, str]:
    """The key of a row of a run: method, concept and attack."""
    return row.method, row.concept, row.attack


def read_renames(texts: Iterable[str]) -> dict[str, str]:
    """Names of methods as the command line has them, ``old=new``; an equals sign in brackets is the name's own.

    Raises:
        EraseBenchError: it is no such pair, or a name is given twice.
    """
    renames: dict[str, str] = {}
    for text in texts:
        parts = [part.strip() for part in re.split(r"=(?![^\[]*\])", text)]
        if len(parts) != 2 or not all(parts):
            raise EraseBenchError(f"'{text}' renames nothing; write OLD=NEW, the names of a method in the two runs")
        if parts[0] in renames:
            raise EraseBenchError(f"'{parts[0]}' is renamed twice")
        renames[parts[0]] = parts[1]
    return renames

"""Cells: units of work, identified by everything that can change their bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

IDENTITY_VERSION = 2
"""Part of every identity; raised when the meaning of specs changes, so that old results are not taken for new."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A stage, its spec, and the cells that it reads; nothing else is part of its identity.

    Attributes:
        stage: what does the work; only the stage itself looks into the spec.
        spec: JSON-able; holds all that can change the result, and nothing else: no device, folder or batch size.
        reads: the cells whose results go into this one, by the name that the stage knows them by.
        title: what progress and ledger call it.
        kind: its stage's cells of one kind take about the same time and space for each unit; the first word is for
            people.
        units: how much there is to do, in ``unit``: 40 ``"images"``; 1 of no name where it is all one.
        batch: cells of a stage with the same batch are computed together where several can be; what people call them
            all, such as ``"unlearndiff esd-x church"``; '' for a cell by itself.
        unless: cells whose results may say that this one is not needed.
        asked: it is wanted whether or not a cell that reads it is needed; see :func:`with_all_that_they_read`.
    """

    stage: str
    spec: Mapping[str, Any]
    reads: Mapping[str, Cell] = field(default_factory=dict)
    title: str = ""
    kind: str = ""
    units: int = 1
    unit: str = ""
    batch: str = ""
    unless: tuple[Cell, ...] = ()
    asked: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """The state that a worker needs: whether the cell is needed was decided before."""
        return {**vars(self), "unless": ()}

    @cached_property
    def key(self) -> str:
        """The identity: SHA-256 of the canonical JSON of stage, spec and the keys of what is read."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """The input of the hash."""
        return {
            "identity_version": IDENTITY_VERSION,
            "stage": self.stage,
            "spec": self.spec,
            "reads": {name: cell.key for name, cell in self.reads.items()},
        }


def with_all_that_they_read(cells: Iterable[Cell]) -> list[Cell]:
    """The cells, those that they read or that may make them unneeded, and so on, in the order of their work.

    Every cell is there once, after the cells that it reads and those in its ``unless``.  Where a cell stands several
    times, only what all of them have in their ``unless`` counts: if one has nothing there, the cell is needed.

    Args:
        cells: those whose results are asked for.
    """
    ordered: dict[str, Cell] = {}
    seen: set[Cell] = set()

    def visit(cell: Cell) -> None:
        if cell in seen:
            return
        seen.add(cell)
        for other in (*cell.reads.values(), *cell.unless):
            visit(other)
        known = ordered.setdefault(cell.key, cell)
        keys = {other.key for other in cell.unless}
        if any(other.key not in keys for other in known.unless):
            common = tuple(other for other in known.unless if other.key in keys)
            ordered[cell.key] = replace(known, unless=common)

    pending = list(cells)
    for cell in pending:
        visit(cell)
    read = {other.key for cell in ordered.values() for other in cell.reads.values()}
    for key in {cell.key for cell in pending} & read:
        ordered[key] = replace(ordered[key], asked=True)
    return list(ordered.values())


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces; the same data gives the same text.

    Raises:
        ValueError: NaN or infinity; TypeError: something that JSON cannot hold.
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def short_hash(data: Any) -> str:
    """The first digits of the SHA-256 of canonical JSON, for people and for what need not be safe from malice."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:12]

"""The cells that can be computed now, in their order, and those that are not needed."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

from erasebench.engine.cells import Cell

NOBODY = "no cell that reads it is needed"
"""The reason of a cell that is not needed itself."""


class Queue:
    """Cells that can be computed now, those of a batch together.

    Args:
        cells: all that may come, in the order in which they are to be taken.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._ranks = {cell.key: rank for rank, cell in enumerate(cells)}
        self._heap: list[tuple[int, Cell]] = []
        self._batches: defaultdict[tuple[str, str], list[tuple[int, Cell]]] = defaultdict(list)
        self._peak_sizes: Counter[tuple[str, str]] = Counter()
        """The most cells of a batch that were in the queue at once, since it had none."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, cell: Cell) -> None:
        """Add a cell, which must not be in the queue."""
        entry = self._ranks[cell.key], cell
        heappush(self._heap, entry)
        if cell.batch:
            of_batch = self._of_batch(cell)
            heappush(of_batch, entry)
            self._peak_sizes[cell.stage, cell.batch] = max(self._peak_sizes[cell.stage, cell.batch], len(of_batch))
        self._size += 1

    def first(self) -> Cell | None:
        """The cell that :meth:`take` begins with."""
        while self._heap:
            cell = self._heap[0][1]
            # A cell that was taken with an earlier one of its batch is still in the heap.
            if not cell.batch or self._heap[0] in self._of_batch(cell)[:1]:
                return cell
            heappop(self._heap)
        return None

    def share(self, cell: Cell, limit: int, workers: int) -> int:
        """The number of cells of a cell's batch that one worker takes.

        As many as are worth computing together; fewer where there is not so much left for each of all workers, some of
        whom may be free soon, but no fewer than an equal share of what there was.

        Args:
            cell: a cell of the queue.
            limit: how many are worth computing together.
            workers: how many there are, busy or not.
        """
        ready = len(self._of_batch(cell))
        others = -(-(self._size - ready) // limit)  # workers that have something else to do
        equal = -(-self._peak_sizes[cell.stage, cell.batch] // workers)
        return min(limit, max(-(-ready // max(1, workers - others)), equal if equal <= limit else 1))

    def take(self, limit: int) -> list[Cell]:
        """Take the first cell, and the next ones of its batch, so many in all at most."""
        first = self.first()
        if first is None:
            return []
        heappop(self._heap)
        of_batch = self._of_batch(first)
        cells = [heappop(of_batch)[1] for _ in range(min(limit, len(of_batch)))] if first.batch else [first]
        if not of_batch:
            self._peak_sizes.pop((first.stage, first.batch), None)
        self._size -= len(cells)
        return cells

    def _of_batch(self, cell: Cell) -> list[tuple[int, Cell]]:
        return self._batches[cell.stage, cell.batch]


class Schedule:
    """The cells of a run that are left.

    A cell is needed if the results of those in its ``unless`` do not say otherwise, if all that it reads is needed by
    this, and if somebody wants its result: it is asked for, or read by nobody, or by a cell that is needed or has its
    result already.  It is computed when it is known to be needed and all that it reads has results.

    Args:
        cells: each after those that it reads and those in its ``unless``.
        missing_keys: the keys of those that have no result.
        queue: where cells go that can be computed now.
        ask: whether a cell is needed, after all in its ``unless`` were settled: a reason if it is not, or ''.
        drop: called for a cell that is not needed, with the reason.
        skip: called for a cell that is needed, and for one that it reads and that failed.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        missing_keys: Collection[str],
        queue: Queue,
        ask: Callable[[Cell], str],
        drop: Callable[[Cell, str], None],
        skip: Callable[[Cell, Cell], None],
    ) -> None:
        self.remaining_cells = {cell.key: cell for cell in cells if cell.key in missing_keys}
        self._queue, self._ask, self._drop, self._skip = queue, ask, drop, skip
        self._readers: defaultdict[str, list[Cell]] = defaultdict(list)
        self._decided: defaultdict[str, list[Cell]] = defaultdict(list)
        """By a cell's key those that read it, and those that have it in their ``unless``."""
        self._unread: dict[str, int] = {}
        self._unsettled: dict[str, int] = {}
        self._open: dict[str, int] = {}
        """By a cell's key how much of what it reads, and of its ``unless``, is left; how many conditions are open."""
        self._failed: dict[str, Cell] = {}
        """By a cell's key the one that it reads and that failed."""
        self._wanting: Counter[str] = Counter()
        self._wanted_keys, self._needed_keys = find_wanted(cells, self.remaining_cells), set[str]()
        self._pending: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        for cell in self.remaining_cells.values():
            reads = self._remaining_of(cell.reads.values())
            unless = self._remaining_of(cell.unless)
            for other in reads:
                self._readers[other.key].append(cell)
            for other in unless:
                self._decided[other.key].append(cell)
            self._unread[cell.key], self._unsettled[cell.key] = len(reads), len(unless)
            self._wanting.update(other.key for other in reads)
            self._open[cell.key] = bool(cell.unless) + sum(self._open[other.key] > 0 for other in reads)
        for cell in self.remaining_cells.values():
            self._look(cell)
            if cell.unless and not self._unsettled[cell.key]:
                self._later(self._question, cell)
        self._work()

    def settle(self, cell: Cell, failed: bool = False) -> None:
        """Note that a cell has its result, or failed."""
        self._settle(cell, failed)
        self._work()

    def _later(self, step: Callable[..., None], *args: Any) -> None:
        self._pending.append((step, args))

    def _work(self) -> None:
        # A queue of steps in place of recursion, whose depth is limited.
        while self._pending:
            step, args = self._pending.popleft()
            step(*args)

    def _remaining_of(self, cells: Iterable[Cell]) -> list[Cell]:
        return [self.remaining_cells[key] for key in {cell.key: None for cell in cells} if key in self.remaining_cells]

    def _settle(self, cell: Cell, failed: bool = False) -> None:
        del self.remaining_cells[cell.key]
        self._note_settled(cell)
        for reader in self._readers[cell.key]:
            if reader.key not in self.remaining_cells:
                continue
            if failed:
                self._failed.setdefault(reader.key, cell)
            self._unread[reader.key] -= 1
            if reader.key in self._needed_keys:
                self._begin(reader)

    def _unneeded(self, cell: Cell, reason: str) -> None:
        if cell.key not in self.remaining_cells:
            return
        del self.remaining_cells[cell.key]
        self._drop(cell, reason)
        self._note_settled(cell)
        for reader in self._readers[cell.key]:
            self._later(self._unneeded, reader, reason)
        for read in self._remaining_of(cell.reads.values()):
            self._wanting[read.key] -= 1
            if not self._wanting[read.key] and read.key not in self._wanted_keys:
                self._later(self._unneeded, read, NOBODY)

    def _note_settled(self, cell: Cell) -> None:
        for other in self._decided[cell.key]:
            self._unsettled[other.key] -= 1
            if not self._unsettled[other.key]:
                self._later(self._question, other)

    def _question(self, cell: Cell) -> None:
        if cell.key not in self.remaining_cells:
            return
        reason = self._ask(cell)
        if reason:
            self._unneeded(cell, reason)
        else:
            self._close(cell)

    def _close(self, cell: Cell) -> None:
        """Note that one condition of a cell is met."""
        self._open[cell.key] -= 1
        if self._open[cell.key]:
            return
        for reader in self._readers[cell.key]:
            self._later(self._close, reader)
        self._look(cell)

    def _look(self, cell: Cell) -> None:
        """Note whether a cell is needed; then all that it reads is wanted."""
        key = cell.key
        if (
            key not in self.remaining_cells
            or key in self._needed_keys
            or self._open[key]
            or key not in self._wanted_keys
        ):
            return
        self._needed_keys.add(key)
        for read in self._remaining_of(cell.reads.values()):
            self._wanted_keys.add(read.key)
            self._later(self._look, read)
        self._begin(cell)

    def _begin(self, cell: Cell) -> None:
        """Queue a needed cell if all that it reads has results, and give it up if one of them failed."""
        if cell.key in self._failed:
            self._later(self._give_up, cell)
        elif not self._unread[cell.key]:
            self._queue.add(cell)

    def _give_up(self, cell: Cell) -> None:
        if cell.key in self.remaining_cells:
            self._skip(cell, self._failed[cell.key])
            self._settle(cell, failed=True)


def find_wanted(cells: Sequence[Cell], missing_keys: Collection[str]) -> set[str]:
    """The keys of the cells whose results somebody wants, as far as that is known before any is computed.

    Args:
        cells: each after those that it reads and those in its ``unless``.
        missing_keys: the keys of those that have no result.
    """
    conditional = find_conditional(cells, missing_keys)
    read = {other.key for cell in cells for other in cell.reads.values()}
    # What decides on others is wanted: it must not wait for them.
    keys = {other.key for cell in cells for other in cell.unless}
    keys |= {cell.key for cell in cells if cell.asked or cell.key not in read}
    for cell in reversed(cells):  # those that read a cell come after it
        if cell.key not in missing_keys or (cell.key in keys and cell.key not in conditional):
            keys.update(other.key for other in cell.reads.values())
    return keys


def find_conditional(cells: Iterable[Cell], missing_keys: Collection[str]) -> set[str]:
    """The keys of the cells that their ``unless``, or that of what they read, may make unneeded."""
    keys: set[str] = set()
    for cell in cells:
        if cell.key in missing_keys and (cell.unless or any(other.key in keys for other in cell.reads.values())):
            keys.add(cell.key)
    return keys


def perhaps_unneeded(missing: Sequence[Cell]) -> set[str]:
    """The keys of those of a run's missing cells of which it is not yet known that they are needed."""
    keys = {cell.key for cell in missing}
    return find_conditional(missing, keys) | (keys - find_wanted(missing, keys))


def longest_way_first(cells: Sequence[Cell]) -> list[Cell]:
    """Cells on which the most stages wait, first: what trains for minutes must not be left for the end."""
    ways = {cell.key: 0 for cell in cells}
    for cell in reversed(cells):  # those that wait for a cell come after it
        for other in (*cell.reads.values(), *cell.unless):
            ways[other.key] = max(ways[other.key], ways[cell.key] + 1)
    return sorted(cells, key=lambda cell: -ways[cell.key])

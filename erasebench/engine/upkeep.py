"""``erasebench store``: how large a store is, what nobody needs of it, and its cells in another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath

from erasebench.engine.markers import CorruptCellError, Marker
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.files import disk_full, is_disk_full


def with_what_they_read(store: Store, keys: Iterable[str]) -> set[str]:
    """Those cells that a store has, those that they were made of, and so on.

    Raises:
        EraseBenchError: one of them is damaged, so that nobody can tell what it was made of.
    """
    cells, pending = set[str](), set(keys)
    while pending:
        there = sorted(key for key in pending - cells if store.has(key))
        cells.update(there)
        pending.clear()
        for key, marker in store.markers(there):
            if marker is None:
                raise EraseBenchError(
                    f"cell {key[:12]} {store.check(key)}; run `erasebench doctor --fix --store {store.name}` first"
                )
            pending.update(marker.reads)
    return cells


def measure(store: Store) -> list[str]:
    """A line for each stage, one for what is in the making, one for all: how many cells, and how large."""
    cells, sizes = Counter[str](), Counter[str]()
    for key, marker in store.markers():
        stage = str(marker.identity["stage"]) if marker else "damaged"
        cells[stage] += 1
        sizes[stage] += store.size(key)
    rest: dict[str, list[PurePath]] = {"in the making": [*store.works()], "left over": [*store.leftovers()]}
    for name, paths in rest.items():
        if paths:
            cells[name] = len(paths)
            sizes[name] = sum(map(store.size_beside, paths))
    cells["in all"], sizes["in all"] = cells.total(), sizes.total()
    width = len(str(cells["in all"]))
    return [f"{name:<13}  {cells[name]:>{width}}  {sizes[name] / 1e6:10.1f} MB" for name in cells]


@dataclass(frozen=True)
class Garbage:
    """The part of a store that nobody needs.

    Attributes:
        cells: their keys, by stage.
        paths: what lies beside cells, in words -> where.
        size: of all that, in bytes; ``kept_size`` of the cells that stay.
        kept_cells: how many stay.
    """

    cells: Mapping[str, list[str]]
    paths: Mapping[str, list[PurePath]]
    size: int
    kept_size: int
    kept_cells: int

    def lines(self) -> list[str]:
        """The lines that tell readers what it is."""
        lines = [f"kept: {self.kept_cells} cells, {self.kept_size / 1e6:.1f} MB"]
        count = sum(map(len, self.cells.values()))
        stages = ", ".join(f"{len(keys)} {stage}" for stage, keys in self.cells.items())
        lines.append(f"not needed: {count} cells{stages and f' ({stages})'}, {self.size / 1e6:.1f} MB")
        lines += [f"not needed: {len(paths)} {what}" for what, paths in self.paths.items() if paths]
        return lines


def find_garbage(store: Store, keep: Collection[str]) -> Garbage:
    """All but some cells, those that they were made of, and what one of them has in the making.

    Args:
        store: the store.
        keep: keys of cells, which need not be there.

    Raises:
        EraseBenchError: one of them is damaged, so that nobody can tell what it was made of; or the store is the mirror
            of a bucket.
    """
    store.check_may_clear()
    keys_to_keep = with_what_they_read(store, keep)
    cells: dict[str, list[str]] = {}
    for key, marker in store.markers():
        if key not in keys_to_keep:
            cells.setdefault(str(marker.identity["stage"]) if marker else "damaged", []).append(key)
    locks = store.root / "locks"
    paths: dict[str, list[PurePath]] = {
        "half-written": [*store.leftovers()],
        "in the making": [path for path in store.works() if path.name not in keep],
        "of an older erasebench": [locks] if locks.is_dir() else [],  # which runs held by locks of the system
    }
    size = sum(store.size(key) for keys in cells.values() for key in keys)
    size += sum(store.size_beside(path) for some in paths.values() for path in some)
    return Garbage(cells, paths, size, sum(map(store.size, keys_to_keep)), len(keys_to_keep))


def collect_garbage(store: Store, keep: Collection[str]) -> Garbage:
    """Remove what :func:`find_garbage` finds, while no run is at work.

    Raises:
        EraseBenchError: a run is, or a cell that is to be kept is damaged.
    """
    with store.clearing():
        garbage = find_garbage(store, keep)
        for key in (key for keys in garbage.cells.values() for key in keys):
            store.remove(key)
        for path in (path for paths in garbage.paths.values() for path in paths):
            store.clear(path)
    return garbage


@dataclass
class Arrival:
    """The outcome of bringing cells into a store.

    Attributes:
        new: how many were brought, of ``size`` bytes.
        there: how many it had.
        problems: a line for each that was not brought.
    """

    new: int = 0
    size: int = 0
    there: int = 0
    problems: list[str] = field(default_factory=list)

    def bring(self, store: Store, key: str, marker: Marker, write: Callable[[Path], object]) -> None:
        """Bring a finished cell into a store that does not have it.

        Args:
            store: where runs are kept out by the caller.
            key: the cell's; ``marker`` is the one that vouches for it.
            write: puts the payload into a folder.

        Raises:
            DiskFullError: there is no room for it.
        """
        if store.is_finished(key):
            self.there += 1
            return
        with store.leases.holding(key) as held:
            if store.is_finished(key):
                self.there += 1
                return
            if not held:
                self.problems.append(f"cell {key[:12]} is being computed by a run in {store.name}: left to it")
                return
            try:
                with store.adopting(key, marker) as folder:
                    write(folder)
            except CorruptCellError as error:
                self.problems.append(f"{error}: not brought")
                return
            except OSError as error:
                if is_disk_full(error):
                    raise disk_full(f"the store {store.root}") from error
                raise
        self.new += 1
        self.size += sum(size for size, _ in marker.files.values())


def copy(source: Store, target: Store, keys: Iterable[str]) -> Arrival:
    """Copy cells that another store does not have; what arrives is compared with each cell's marker.

    Args:
        source: where they are; nothing is written there.
        target: where they go.
        keys: of the cells.

    Raises:
        EraseBenchError: the disk is full, or cells are being removed from the target.
    """
    arrival = Arrival()
    with target.at_work():
        for key in keys:
            marker = source.marker(key)
            if marker is None:
                arrival.problems.append(f"cell {key[:12]} {source.check(key)}: not brought")
                continue

            arrival.bring(target, key, marker, partial(source.copy_payload, key, marker))
    return arrival

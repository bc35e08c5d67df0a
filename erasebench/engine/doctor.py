"""``erasebench doctor``: is a store what its markers say, and does whatever lies beside its cells belong to a run?"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from erasebench.engine.cells import IDENTITY_VERSION
from erasebench.engine.leases import is_stray
from erasebench.engine.markers import is_cell
from erasebench.engine.opening import open_store, store_at
from erasebench.engine.store import CELLS, LEASES, WORK, Store
from erasebench.files import PARTIAL, Place, remove


def examine(place: Place, fix: bool = False) -> list[str]:
    """Read every byte of a store.

    Leases of other machines are watched, for a minute at most, to see whether their runs are alive.

    Args:
        place: the store's folder, or its URL.
        fix: remove what is damaged or left over.

    Returns:
        One line for each problem; none for a sound store.

    Raises:
        EraseBenchError: it is no store, or cannot be reached, or something is to be removed from a bucket's mirror.
    """
    store = open_store(place, make=False)
    if fix:
        store.check_may_clear()
    problems = []

    def report(problem: str) -> None:
        problems.append(problem + (": removed" if fix else ""))

    for path, wanted in strays(store.root).items():
        report(f"{path} is no {wanted}")
        if fix:
            remove(path)
    if fix:
        store = store_at(place)
    abandoned = store.leases.survey()[1]
    for lease, holder in abandoned.items():
        report(f"the lease {lease.name[:12]} is still there of {holder}")
        if fix:
            store.leases.drop(lease)

    def alone(key: str) -> AbstractContextManager[bool]:
        """Tell whether no run is at a cell, and keep runs from it if it may be removed."""
        if fix:
            return store.leases.holding(key)
        lease = store.leases.look(key)
        return nullcontext(lease is None or lease in abandoned)

    for key in store.cells():
        # A cell with a problem is looked at again while no run can be at work on it.
        if store.verify(key):
            with alone(key) as free:
                problem = store.verify(key) if free else None
                if problem:
                    report(f"cell {key[:12]} {problem}")
                    if fix:
                        store.remove(key)
    for leftover, key in store.leftovers().items():
        with alone(key) as free:
            if free and leftover in store.leftovers(key):
                report(f"{key[:12]} was being written when its run ended")
                if fix:
                    store.clear(leftover)
    for path in store.works():
        # Of a cell without a result it is what the next run goes on from.
        if store.marker(path.name):
            report(f"{path} is left of a cell that is finished")
            if fix:
                remove(path)
    return problems


def strays(root: Path) -> dict[Path, str]:
    """The paths in a store's folder that are not what should be there: a folder, a cell or a lease."""
    patterns = (f"{CELLS}/*", f"{CELLS}/??/*", f"{WORK}/*")
    paths = [root / CELLS, root / LEASES, root / WORK, *(path for pattern in patterns for path in root.glob(pattern))]
    found = dict[Path, str]()
    for path in paths:
        if PARTIAL in path.name:
            continue
        if path.is_dir():
            if path.parent.parent == root / CELLS and not is_cell(path):
                found[path] = "cell"
        elif os.path.lexists(path):  # what is gone by the time it is looked at was removed by a run
            found[path] = "folder"
    found |= {path: "lease" for path in root.glob(f"{LEASES}/*") if is_stray(path)}
    return dict(sorted(found.items()))


def of_other_versions(store: Store) -> list[str]:
    """A line on the sound cells that no run of this version reads: results had another meaning, and other identities.

    Args:
        store: all of whose markers are read.
    """
    versions = Counter(str(marker.identity.get("identity_version")) for _, marker in store.markers() if marker)
    del versions[str(IDENTITY_VERSION)]
    return [
        f"{count} cells of {store.name} are of identity version {version}, and this erasebench reads and makes version "
        f"{IDENTITY_VERSION}: they are sound, and of use only to the erasebench that wrote them"
        for version, count in versions.items()
    ]

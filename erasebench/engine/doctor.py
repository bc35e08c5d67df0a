"""``erasebench doctor``: is a store what its markers say?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import Timeout

from erasebench.engine.cells import IDENTITY_VERSION
from erasebench.engine.store import CELLS, Store
from erasebench.errors import EraseBenchError
from erasebench.files import remove


def examine(root: Path, fix: bool = False) -> list[str]:
    """Read every byte of a store.

    Args:
        root: the store's folder.
        fix: remove what is damaged or left over.

    Returns:
        One line for each problem; none for a sound store.

    Raises:
        EraseBenchError: the folder is no store.
    """
    if not (root / "store.json").exists():
        raise EraseBenchError(f"{root} is no store: it has no store.json")
    store = Store(root)
    problems = []

    def report(problem: str) -> None:
        problems.append(problem + (": removed" if fix else ""))

    for path in store.strays():
        report(f"{path} is no {'file' if path.suffix == '.lock' else 'folder'}")
        if fix:
            remove(path)
    for key in store.cells():
        # A cell with a problem is looked at again while no run can be at work on it.
        with _unless_at_work(store, key) if store.verify(key) else nullcontext(False) as alone:
            problem = store.verify(key) if alone else None
            if problem:
                report(f"cell {key[:12]} {problem}")
                if fix:
                    store.remove(key)
    for path in store.leftovers():
        key = path.relative_to(store.root / CELLS).parts[1].partition(".")[0]
        with _unless_at_work(store, key) as alone:
            if alone and (path.exists() or path.is_symlink()):
                report(f"{key[:12]} was being written when its run ended")
                if fix:
                    remove(path)
    return problems


def of_other_versions(root: Path) -> list[str]:
    """A line on the sound cells that no run of this version reads: results had another meaning, and other identities.

    Args:
        root: the store's folder.
    """
    store = Store(root)
    markers = filter(None, map(store.marker, store.cells()))
    versions = Counter(str(marker.identity.get("identity_version")) for marker in markers)
    del versions[str(IDENTITY_VERSION)]
    return [
        f"{count} cells are of identity version {version}, and runs of this erasebench read version {IDENTITY_VERSION}:"
        " they are sound, and of use only to the erasebench that wrote them"
        for version, count in versions.items()
    ]


@contextmanager
def _unless_at_work(store: Store, key: str) -> Iterator[bool]:
    """Hold a cell's lock; False if a run holds it: what that has not finished is not damage."""
    lock = store.lock(key)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()

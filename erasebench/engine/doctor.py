"""``erasebench doctor``: is a store what its markers say?"""

from __future__ import annotations

import shutil
from pathlib import Path

from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError


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
    for key in store.cells():
        problem = store.verify(key)
        if problem:
            problems.append(f"cell {key[:12]} {problem}" + (": removed" if fix else ""))
            if fix:
                store.remove(key)
    for path in store.leftovers():
        problems.append(f"{path.name[:12]} was being written when its run ended" + (": removed" if fix else ""))
        if fix:
            shutil.rmtree(path, ignore_errors=True)
    return problems

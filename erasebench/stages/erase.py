"""Stage erase: base model and concepts in, an :class:`Erasure` out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erasebench.concepts import Concept
from erasebench.engine.cells import Cell
from erasebench.engine.session import Session
from erasebench.method import EraseContext, Method
from erasebench.models.erasure import check_finite
from erasebench.registry import METHODS


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Erase, check that the result is finite, and write it.

    Raises:
        FloatingPointError: training diverged.
    """
    method: Method = METHODS.get(cell.spec["method"]).make(**cell.spec["parameters"])
    concepts = [Concept.from_spec(spec) for spec in cell.spec["concepts"]]

    def progress(done: int, of: int, figures: Mapping[str, float]) -> None:
        session.progress(done, of, "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    context = EraseContext(cell.spec["seed"], session.work_folder(cell), progress, session.judge)
    erasure = method.erase(session.model, concepts, context)
    check_finite(erasure)
    erasure.save(folder)
    return {"parameters_changed": erasure.parameters_changed}

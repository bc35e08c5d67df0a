"""Stage erase: base model and concepts in, an :class:`Erasure` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.concepts import Concept
from erasebench.engine.cells import Cell
from erasebench.engine.session import Progress, Session
from erasebench.models.erasure import Erasure, check_finite
from erasebench.plugins import EraseContext, Judge
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Erase, check that the result is finite, and write it.

    Raises:
        FloatingPointError: training diverged.
    """
    erasure = erase(cell.spec, session.model, session.work_folder(cell), session.progress, session.judge)
    erasure.save(folder)
    return {"parameters_changed": erasure.parameters_changed}


def erase(
    spec: Mapping[str, Any], model: DiffusionModel, work: Path, progress: Progress, judge: Callable[[str], Judge]
) -> Erasure:
    """Erase, and check that the result is finite.

    Args:
        spec: the cell's.
        model: the unerased model; it is left as it was.
        work: where the method may keep its state, and find it again after a kill.
        progress: told steps done, steps in all, and the figures of the last step in one text.
        judge: gives a judge by name.

    Raises:
        FloatingPointError: training diverged.
    """
    method = METHODS.get(spec["method"]).make(**spec["parameters"])
    concepts = [Concept.from_spec(concept) for concept in spec["concepts"]]

    def told(done: int, of: int, figures: Mapping[str, float]) -> None:
        progress(done, of, "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    erasure = method.erase(model, concepts, EraseContext(spec["seed"], work, told, judge))
    check_finite(erasure)
    return erasure

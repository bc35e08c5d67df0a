"""Stage erase: base model and concepts in, an :class:`Erasure` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.concepts import Concept
from erasebench.engine.cells import Cell, short_hash
from erasebench.errors import EraseBenchError
from erasebench.method import EraseContext, Method
from erasebench.registry import METHODS, Plugin

if TYPE_CHECKING:
    from erasebench.models.loading import ModelSource
    from erasebench.stages.session import Session


def cell(
    label: str,
    plugin: Plugin,
    parameters: Mapping[str, Any],
    concepts: Sequence[Concept],
    source: ModelSource,
    seed: int,
    dtype: str,
    judge_spec: Callable[[str], dict[str, Any]],
) -> Cell | str:
    """The cell that erases concepts together, or the reason why the method cannot.

    Args:
        label: the method as the user wrote it.
        plugin: the method; ``parameters`` all its hyper-parameters.
        concepts: none for the baseline.
        source: the model.
        seed: of the erasure.
        dtype: the precision that it is made in.
        judge_spec: gives what identifies a judge.
    """
    made = plugin.make(**parameters)
    why_not = getattr(made, "why_not", None)
    specs = [concept.spec(source.domain) for concept in concepts]
    seen = [Concept.from_spec(spec) for spec in specs]
    reason: str | None = why_not(source.domain, seen) if why_not and seen else None
    if reason:
        return reason
    try:
        judges = made.judges(source.domain, seen) if hasattr(made, "judges") else ()
        seen_by = [judge_spec(name) for name in judges]
    except EraseBenchError as error:
        return str(error)
    spec = {
        "model": source.fingerprint,
        "method": plugin.name,
        "version": getattr(made, "version", 1),
        "parameters": parameters,
        "identity": made.identity() if hasattr(made, "identity") else {},
        **({"judges": seen_by} if seen_by else {}),
        "concepts": specs,
        "seed": seed,
        "dtype": dtype,
    }
    title = " ".join([label, *(concept.name for concept in concepts)])
    return Cell("erase", spec, {}, title, f"{plugin.name} {short_hash([source.fingerprint, parameters])}")


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Erase, check that the result is finite, and write it.

    Raises:
        FloatingPointError: training diverged.
    """
    from erasebench.models.erasure import check_finite

    spec = cell.spec
    method: Method = METHODS.get(spec["method"]).make(**spec["parameters"])
    concepts = [Concept.from_spec(concept) for concept in spec["concepts"]]

    def on_progress(done: int, of: int, figures: Mapping[str, float]) -> None:
        session.progress(done, of, "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    context = EraseContext(spec["seed"], session.store.work(cell.key), on_progress, session.judge)
    erasure = method.erase(session.model, concepts, context)
    check_finite(erasure)
    erasure.save(folder)
    return {"parameters_changed": erasure.parameters_changed}

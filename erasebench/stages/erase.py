"""Stage erase: base model and concepts in, an :class:`Erasure` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.concepts import Concept
from erasebench.engine.cells import Cell, short_hash
from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import hyper_parameters
from erasebench.plugins import EraseContext, ResolvedMethod
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.models.erasure import Erasure
    from erasebench.models.loading import ModelSource
    from erasebench.stages.session import Session


def cell(
    method: ResolvedMethod,
    concepts: Sequence[Concept],
    source: ModelSource,
    seed: int,
    dtype: str,
    judge_spec: Callable[[str], dict[str, Any]],
) -> Cell:
    """The cell that erases concepts together.

    Args:
        method: as the user wrote it.
        concepts: none for the baseline.
        source: the model.
        seed: of the erasure, unless the method has one of its own.
        dtype: the precision that it is made in.
        judge_spec: gives what identifies a judge.

    Raises:
        NotApplicable: the method cannot erase them, or the weights of a judge that it asks are missing.
        EraseBenchError: the method does not fit the model, or a file that it reads is missing or damaged.
    """
    views = [concept.seen_in(source.domain) for concept in concepts]
    instance = method.instance.resolved(views)
    instance.check_family(source.family)
    if views:
        instance.check(source.domain, views)
    if source.fingerprint:  # a pipeline in memory has no files
        instance.check_model(source.folder)
    try:
        judges = [judge_spec(name) for name in instance.judges(source.domain, views)]
    except EraseBenchError as error:
        raise NotApplicable(str(error)) from None
    parameters = hyper_parameters(instance)
    spec = {
        "model": source.fingerprint,
        "method": method.name,
        "version": instance.version,
        "parameters": parameters,
        "identity": instance.identity(),
        **({"judges": judges} if judges else {}),
        **({"changes_text_encoder": True} if instance.changes_text_encoder else {}),
        "concepts": [concept.spec(source.domain) for concept in concepts],
        "seed": seed if method.seed is None else method.seed,
        "dtype": dtype,
    }
    title = " ".join([method.label, *(concept.name for concept in concepts)])
    return Cell("erase", spec, {}, title, f"{method.name} {short_hash([source.fingerprint, parameters])}")


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Erase, check that the result is finite, and write it.

    Raises:
        FloatingPointError: training diverged.
    """
    from erasebench.models.erasure import check_finite
    from erasebench.sampling import Sampler

    spec = cell.spec
    method = METHODS.get(spec["method"]).make(**spec["parameters"])
    concepts = [Concept.from_spec(concept) for concept in spec["concepts"]]

    def on_progress(done: int, of: int, figures: Mapping[str, float]) -> None:
        session.progress(done, of, "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    session.fit(Sampler())
    context = EraseContext(spec["seed"], session.store.work(cell.key), on_progress, session.judge)
    erasure = method.erase(session.model, concepts, context)
    check_finite(erasure)
    check_text_encoder(cell, erasure)
    erasure.save(folder)
    return {"parameters_changed": erasure.parameters_changed}


def check_text_encoder(cell: Cell, erasure: Erasure) -> None:
    """Raise unless a method that changes the text encoder says so: attacks on the text would not know."""
    changed = [name for name in (*erasure.weights, *erasure.low_rank) if not name.startswith("unet.")]
    if changed and not cell.spec.get("changes_text_encoder"):
        raise EraseBenchError(
            f"the method {cell.spec['method']} changes the text encoder ({changed[0]}): its class has to say so, by "
            "`changes_text_encoder = True`"
        )

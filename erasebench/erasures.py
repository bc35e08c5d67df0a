"""One method alone, on one concept or several: one cell, computed as in a run, whose payload is left in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import yaml

from erasebench import __version__
from erasebench.concepts import Catalogue
from erasebench.config import RunConfig, read_layer
from erasebench.engine.cells import Cell
from erasebench.engine.progress import Progress
from erasebench.engine.runner import Event, Failed, Subscriber
from erasebench.engine.store import Store
from erasebench.engine.work import Failure
from erasebench.engine.workers import LocalRunner
from erasebench.environment import hostless_environment
from erasebench.errors import EraseBenchError, ErasureFailedError, NotApplicable
from erasebench.files import DiskFullError, disk_full, durably, is_disk_full, prepare_folder, remove, write_durably
from erasebench.models.footprint import check_memory
from erasebench.models.loading import ModelSource
from erasebench.planning import find_parts
from erasebench.plugins import BASELINE
from erasebench.settings import plugin_settings, resolve_method
from erasebench.stages import erase as stage
from erasebench.stages.judge import judge_spec, make_judge
from erasebench.stages.session import Session
from erasebench.traces import TRACE, read_trace

Export = Literal["none", "diffusers", "lora", "single-file", "kohya-lora"]

ABOUT, LOSS, WORK, PIPELINE = "erase.yaml", "loss.png", "work", "diffusers"
"""The contents of a folder besides the files of :meth:`Erasure.save`; the work is a store of one cell."""


@dataclass(frozen=True)
class PlannedErasure:
    """An erasure that can be made, as far as that can be known before it is.

    Attributes:
        cell: as in the plan of a run: the same erasure there has the same key.
        source: the model.
        device: where it runs; ``dtype`` its precision.
    """

    cell: Cell
    source: ModelSource
    device: str
    dtype: str


def plan_erasure(config: RunConfig, export: Export = "none") -> PlannedErasure:
    """Find everything that can be known to fail; nothing is loaded, computed or written.

    Args:
        config: a run of one method; its concepts are erased together.
        export: what is wanted besides the erasure.

    Raises:
        EraseBenchError: an unknown name, a hyper-parameter out of range, a method that cannot erase these concepts from
            this model, or an export that cannot be.
    """
    catalogue, source, device, dtype = find_parts(config, "concept")
    return plan_from(config, catalogue, source, device, dtype, export)


def plan_from(
    config: RunConfig, catalogue: Catalogue, source: ModelSource, device: str, dtype: str, export: Export = "none"
) -> PlannedErasure:
    """Plan as :func:`plan_erasure` does, with what :func:`~erasebench.planning.find_parts` found or a caller has.

    Raises:
        EraseBenchError: as there.
    """
    method = resolve_method(config.methods[0], plugin_settings(source.domain, config.settings))
    others = [name for name in config.settings if name != method.name]
    if others:
        raise EraseBenchError(f"--settings has some of '{others[0]}', but the method is '{method.name}'")
    if method.name == BASELINE:
        raise EraseBenchError(f"the method '{BASELINE}' is the unerased model: there is nothing to do")
    concepts = list({part.name: part for name in config.concepts for part in catalogue.get(name).parts}.values())

    def spec(name: str) -> dict[str, Any]:
        return judge_spec(name, "", make_judge(name, "", source.domain))

    try:
        cell = stage.cell(method, concepts, source, config.seed, dtype, spec)
    except NotApplicable as reason:
        names = ", ".join(concept.name for concept in concepts)
        raise NotApplicable(f"{method.label} cannot erase {names} here: {reason}") from None
    if export != "none" and method.instance.guidance_only:
        raise EraseBenchError(f"{method.label} changes guidance and no weights: it cannot be exported")
    if export == "lora" and not method.instance.low_rank:
        raise EraseBenchError(
            f"the change of {method.label} is not low-rank: it cannot be a LoRA; use --export diffusers, or "
            "kohya-lora, which is an approximation then"
        )
    return PlannedErasure(cell, source, device, dtype)


def erase(config: RunConfig, export: Export = "none", stream: TextIO | None = None, rank: int | None = None) -> str:
    """Erase, and leave the erasure with its curves, its costs and its export in ``config.out``.

    The same again goes on after a kill, and computes nothing after the end.

    Args:
        config: a run of one method; its concepts are erased together.
        export: ``diffusers``: a pipeline folder as well; ``lora``: a LoRA of diffusers as well, if the erasure is
            low-rank; ``single-file``: the whole model in the original layout; ``kohya-lora``: a LoRA of kohya's, which
            approximates an erasure that is not low-rank.
        stream: where progress goes; standard error if omitted.
        rank: of such an approximation, at least 1; if omitted :data:`~erasebench.models.export.RANK`.

    Returns:
        One line: what was done, and where it is.

    Raises:
        EraseBenchError: bad input, found before any work; a full disk; or an erasure, then kept, that cannot be
            exported.
        ErasureFailedError: training diverged, or the method raised.
    """
    if rank is not None and export != "kohya-lora":
        raise EraseBenchError(f"a rank is for --export kohya-lora, not for {export}")
    plan = plan_erasure(config, export)
    about = read_about(config.out, plan.cell)
    if about is None or "seconds" not in about:
        check_memory(plan.source, plan.device, plan.dtype, config.max_memory, choices=["--dtype"])
    prepare_folder(config.out)

    session = Session(
        plan.source,
        plan.device,
        plan.dtype,
        Store(config.out / WORK),
        max_memory=config.max_memory,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    try:
        if about is None or "seconds" not in about:
            about = _erase(plan, config.out, session, stream)
            done = f"in {about['seconds']:.1f} s"
        else:
            done = "before"
        remove(config.out / WORK)
        exported = _export(export, rank, config.out, plan.source, session)
    except Exception as error:
        if isinstance(error, DiskFullError) or is_disk_full(error):
            raise disk_full(str(config.out)) from error
        raise
    changed = f"{about['parameters_changed']:,} numbers changed"
    return f"{plan.cell.title}: erased {done}, {changed}; in {config.out}{exported}"


def read_about(out: Path, cell: Cell) -> dict[str, Any] | None:
    """The facts known of an erasure that was begun or finished in a folder, None if the folder is free.

    Raises:
        EraseBenchError: the folder holds another erasure, or files that this one would overwrite.
    """
    from erasebench.models.erasure import GUIDANCE, RECORD, WEIGHTS
    from erasebench.models.export import KOHYA_LORA, LORA, SINGLE_FILE

    if (out / ABOUT).exists():
        about = read_layer(out / ABOUT)
        if about.get("key") == cell.key:
            return about
        names = ", ".join(concept["name"] for concept in about.get("concepts", ()))
        unfinished = "" if "seconds" in about else ", not finished"
        raise EraseBenchError(
            f"{out} already holds another erasure ({about.get('method')} of {names}{unfinished}); give another folder, "
            "or remove it"
        )
    for name in (WEIGHTS, GUIDANCE, TRACE, RECORD, LOSS, WORK, PIPELINE, LORA, SINGLE_FILE, KOHYA_LORA):
        if (out / name).exists():
            raise EraseBenchError(f"{out / name} is in the way; give another folder, or remove it")
    return None


def compute(cell: Cell, session: Session, subscribers: Sequence[Subscriber]) -> Mapping[str, Any]:
    """Compute an erasure into the session's store, and return its cost.

    Args:
        cell: the erasure.
        session: the model and the judges.
        subscribers: told of every event.

    Raises:
        EraseBenchError: the method found that it cannot do what is asked, or the disk is full.
        ErasureFailedError: training diverged, or the method raised.
    """
    failures: list[Failure] = []

    def note(event: Event) -> None:
        if isinstance(event, Failed):
            failures.append(event.failure)

    with session.store.at_work():
        outcome = LocalRunner(session).run([cell], session.store, [*subscribers, note])
    for failure in failures:
        if failure.error == "EraseBenchError":
            raise EraseBenchError(failure.reason)
        traceback = "" if failure.error == "FloatingPointError" else failure.traceback
        raise ErasureFailedError(f"{cell.title}: {failure.reason}", traceback)
    return outcome.costs[cell.key]


def _erase(plan: PlannedErasure, out: Path, session: Session, stream: TextIO | None) -> dict[str, Any]:
    from erasebench.report.curves import draw_curves

    store, key = session.store, plan.cell.key
    resumed = any(store.work(key).iterdir())
    about = _about(plan)
    _write(about, out)
    try:
        with Progress([plan.cell], stream) as progress:
            cost = compute(plan.cell, session, [progress])
    except BaseException as error:
        # Nothing to go on from, or nowhere to go: the folder is free again.
        diverged = isinstance(error, ErasureFailedError) and not error.traceback
        hopeless = isinstance(error, EraseBenchError) and not isinstance(error, DiskFullError | ErasureFailedError)
        if hopeless or diverged or not any(store.work(key).iterdir()):
            remove(out / WORK)
            remove(out / ABOUT)
        raise
    marker = store.marker(key)
    assert marker
    folder = store.read(key)
    for name in marker.files:
        with durably(out / name) as copy, open(folder / name, "rb") as payload:
            shutil.copyfileobj(payload, copy)
    draw_curves(read_trace(out / TRACE), out / LOSS, plan.cell.title)
    about |= {
        "seconds": cost["seconds"],
        **({"resumed": True} if resumed else {}),  # the seconds are those since then
        "peak_memory_mb": cost["peak_memory_mb"],
        "parameters_changed": cost["parameters_changed"],
    }
    _write(about, out)
    return about


def _about(plan: PlannedErasure) -> dict[str, Any]:
    """Everything that decides the erasure, and what it was made with."""
    spec = dict(plan.cell.spec)
    return {
        "key": plan.cell.key,
        "method": spec.pop("method"),
        "version": spec.pop("version"),
        "parameters": spec.pop("parameters"),
        "concepts": spec.pop("concepts"),
        "model": {"name": plan.source.name, "fingerprint": spec.pop("model")},
        "seed": spec.pop("seed"),
        "dtype": spec.pop("dtype"),
        "device": plan.device,
        **{name: value for name, value in spec.items() if value},
        "versions": {"erasebench": __version__, **hostless_environment()},
    }


def _write(about: Mapping[str, Any], out: Path) -> None:
    write_durably(out / ABOUT, yaml.safe_dump(dict(about), sort_keys=False, allow_unicode=True))


def _export(export: Export, rank: int | None, out: Path, source: ModelSource, session: Session) -> str:
    """Write the export, if it is not there, and say where it is."""
    from erasebench.models import export as exports
    from erasebench.models.erasure import Erasure

    if export == "none":
        return ""
    names = {
        "diffusers": PIPELINE,
        "lora": exports.LORA,
        "single-file": exports.SINGLE_FILE,
        "kohya-lora": exports.KOHYA_LORA,
    }
    path = out / names[export]
    note = f"; exported to {path}"
    if path.exists() and export != "kohya-lora":  # which may be of another rank
        return note
    model, erasure = session.model, Erasure.load(out)
    try:
        match export:
            case "diffusers":
                exports.export_pipeline(model, erasure, None if source.file else source.folder, path)
            case "lora":
                exports.export_lora(model, erasure, path)
            case "single-file":
                exports.export_single_file(model, erasure, path)
            case "kohya-lora":
                note += f": {exports.export_kohya_lora(model, erasure, path, rank or exports.RANK)}"
    except EraseBenchError as error:
        raise EraseBenchError(f"{error} (the erasure itself is kept in {out})") from None
    return note

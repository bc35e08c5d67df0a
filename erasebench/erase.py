"""One method alone, on one concept or several: an erasure in a folder, without store or matrix."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import yaml

from erasebench import __version__
from erasebench.config import RunConfig, read_layer
from erasebench.durable import disk_full, is_disk_full, write_durably
from erasebench.engine.cells import Cell
from erasebench.engine.plan import BASELINE, erase_cell, find_parts, make_judge, method_settings, resolve_method
from erasebench.engine.progress import ProgressLine
from erasebench.engine.session import PeakMemory, hostless_environment
from erasebench.errors import EraseBenchError, NotApplicable, one_line
from erasebench.models.loading import ModelSource, load_model
from erasebench.run import prepare_folder

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure

Export = Literal["none", "diffusers", "lora"]

ABOUT, LOSS, WORK, PIPELINE = "erase.yaml", "loss.png", "work", "diffusers"
"""What a folder holds besides the files of :meth:`Erasure.save`."""


class ErasureFailedError(Exception):
    """A method could not finish; the message says why."""


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
    method = resolve_method(config.methods[0], method_settings(source.domain, config.settings))
    others = [name for name in config.settings if name != method.name]
    if others:
        raise EraseBenchError(f"--settings has some of '{others[0]}', but the method is '{method.name}'")
    if method.name == BASELINE:
        raise EraseBenchError(f"the method '{BASELINE}' is the unerased model: there is nothing to do")
    concepts = [catalogue.get(name) for name in dict.fromkeys(config.concepts)]

    def judge_spec(name: str) -> dict[str, Any]:
        return {"judge": name, "label": "", **make_judge(name, "", source.domain).identity()}

    try:
        cell = erase_cell(method, concepts, source, config.seed, dtype, judge_spec)
    except NotApplicable as reason:
        names = ", ".join(concept.name for concept in concepts)
        raise NotApplicable(f"{method.label} cannot erase {names} here: {reason}") from None
    if export != "none" and method.made.guidance_only:
        raise EraseBenchError(f"{method.label} changes guidance and no weights: it cannot be exported")
    if export == "lora" and not method.made.low_rank:
        raise EraseBenchError(
            f"the change of {method.label} is not low-rank: it cannot be a LoRA; use --export diffusers"
        )
    return PlannedErasure(cell, source, device, dtype)


def erase(config: RunConfig, export: Export = "none", stream: TextIO | None = None) -> str:
    """Erase, and leave the erasure with its curves, its costs and its export in ``config.out``.

    The same again goes on after a kill, and computes nothing after the end.

    Args:
        config: a run of one method; its concepts are erased together.
        export: ``diffusers``: a pipeline folder as well; ``lora``: a LoRA as well, if the erasure is low-rank.
        stream: where progress goes; standard error if omitted.

    Returns:
        One line: what was done, and where it is.

    Raises:
        EraseBenchError: bad input, found before any work; a full disk; or an erasure, then kept, that cannot be
            exported.
        ErasureFailedError: training diverged, or the method raised.
    """
    from erasebench.models.erasure import Erasure

    plan = plan_erasure(config, export)
    about = read_about(config.out, plan.cell)
    prepare_folder(config.out)

    @cache
    def model() -> DiffusionModel:
        return load_model(plan.source, plan.device, plan.dtype)

    try:
        if about is None or "seconds" not in about:
            about = _erase(plan, config.out, model(), stream)
            done = f"in {about['seconds']:.1f} s"
        else:
            done = "before"
        shutil.rmtree(config.out / WORK, ignore_errors=True)
        path = _export(export, config.out, plan.source, model, lambda: Erasure.load(config.out))
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(str(config.out)) from error
        raise
    exported = f"; exported to {path}" if path else ""
    changed = f"{about['parameters_changed']:,} numbers changed"
    return f"{plan.cell.title}: erased {done}, {changed}; in {config.out}{exported}"


def read_about(out: Path, cell: Cell) -> dict[str, Any] | None:
    """What is known of an erasure that was begun or finished in a folder, None if the folder is free.

    Raises:
        EraseBenchError: the folder holds another erasure, or files that this one would overwrite.
    """
    from erasebench.models.erasure import GUIDANCE, RECORD, TRACE, WEIGHTS
    from erasebench.models.export import LORA

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
    for name in (WEIGHTS, GUIDANCE, TRACE, RECORD, LOSS, WORK, PIPELINE, LORA):
        if (out / name).exists():
            raise EraseBenchError(f"{out / name} is in the way; give another folder, or remove it")
    return None


def _erase(plan: PlannedErasure, out: Path, model: DiffusionModel, stream: TextIO | None) -> dict[str, Any]:
    from erasebench.models.erasure import GUIDANCE, RECORD, TRACE, WEIGHTS
    from erasebench.report.curves import draw_curves
    from erasebench.stages import erase as stage

    work, about = out / WORK, _about(plan)
    resumed = work.is_dir() and any(work.iterdir())
    work.mkdir(exist_ok=True)
    _write(about, out)

    @cache
    def judge(name: str) -> Any:
        return make_judge(name, "", plan.source.domain, plan.device)

    progress = ProgressLine([plan.cell], stream)
    progress.start(plan.cell)
    memory = PeakMemory(plan.device)
    memory.restart()
    began = time.monotonic()
    try:
        erasure = stage.erase(plan.cell.spec, model, work, progress.update, judge)
        seconds = time.monotonic() - began
        erasure.save(out)
    except BaseException as error:
        # Nothing to go on from, or nowhere to go: the folder is free again.
        if isinstance(error, EraseBenchError | FloatingPointError) or not any(work.iterdir()):
            shutil.rmtree(work)
            for name in (ABOUT, WEIGHTS, GUIDANCE, TRACE, RECORD):
                (out / name).unlink(missing_ok=True)
        if isinstance(error, Exception):
            progress.finish("failed", time.monotonic() - began)
        if isinstance(error, Exception) and not isinstance(error, EraseBenchError) and not is_disk_full(error):
            raise ErasureFailedError(f"{plan.cell.title}: {one_line(error)}") from error
        raise
    progress.finish("ok", seconds)
    draw_curves(erasure.trace, out / LOSS, plan.cell.title)
    about |= {
        "seconds": round(seconds, 3),
        **({"resumed": True} if resumed else {}),  # the seconds are those since then
        "peak_memory_mb": memory.megabytes(),
        "parameters_changed": erasure.parameters_changed,
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


def _export(
    export: Export, out: Path, source: ModelSource, model: Callable[[], DiffusionModel], erasure: Callable[[], Erasure]
) -> Path | None:
    """The file or folder of the export, which is written if it is not there."""
    from erasebench.models.export import LORA, export_lora, export_pipeline

    if export == "none":
        return None
    path = out / (LORA if export == "lora" else PIPELINE)
    if path.exists():
        return path
    try:
        if export == "lora":
            export_lora(model(), erasure(), path)
        else:
            export_pipeline(model(), erasure(), source.folder / "tokenizer", path)
    except EraseBenchError as error:
        raise EraseBenchError(f"{error} (the erasure itself is kept in {out})") from None
    return path

"""The public API: erase a pipeline, and run a benchmark, from Python.

Errors are those of the command line, raised before any work where they can be known; all derive from
:class:`~erasebench.errors.EraseBenchError`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from erasebench.concepts import load_catalogue
from erasebench.config import make_config, parse_method
from erasebench.domains import DOMAINS
from erasebench.engine.opening import store_at
from erasebench.engine.runner import Event, Progressed
from erasebench.erasures import compute, plan_from
from erasebench.errors import EraseBenchError, check_name
from erasebench.memory import limit_memory
from erasebench.models.footprint import check_memory
from erasebench.models.loading import describe_pipeline, load_stock
from erasebench.planning import check_limit, find_parts
from erasebench.registry import METHODS
from erasebench.stages.session import Session
from erasebench.suites import layered_config

if TYPE_CHECKING:
    import pandas as pd
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    from erasebench.config import RunConfig
    from erasebench.models.checkpointing import Mode
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure

StockPipeline: TypeAlias = "StableDiffusionPipeline | StableDiffusionXLPipeline"
"""A pipeline of one of the families of models that can be erased."""
Progress = Callable[[int, int, str], object]
"""``(done, of, note)``: training steps, and figures such as the loss."""


@dataclass(frozen=True)
class RunResults:
    """The results of a run; printed, the table of the command line with its legend.

    Attributes:
        table: one row a method and concept, and one an attack on them: ``method``, ``concept``, ``attack`` ("" for the
            row without any); each metric as ``key``, ``key_low``, ``key_high`` (the ends of its 95 % interval) and
            ``key_n`` (images); judge, status, reason, flags.
        scores: one row an image and judge label: method, concept, probe, prompt, seed, score, threshold.
        attacks: one row an attacked prompt: method, concept, attack, prompt, what was found, whether it was confirmed,
            steps, looks; none without attacks.  Columns are those of ``attacks.csv``.
        folder: where these are as files, with grids, costs and the configuration.
        text: the table as the command line prints it.
    """

    table: pd.DataFrame
    scores: pd.DataFrame
    attacks: pd.DataFrame
    folder: Path
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.text


def erase(
    pipeline: StockPipeline | str | Path,
    method: str,
    concepts: str | Sequence[str],
    *,
    seed: int = 0,
    domain: str | None = None,
    progress: Progress | None = None,
    store: str | Path | None = None,
    max_memory: float | None = None,
    gradient_checkpointing: Mode = "auto",
    **hyper_parameters: Any,
) -> StockPipeline:
    """Return a stock pipeline from which concepts are erased.

    The pipeline that is given is left as it was, bit for bit.  The new one is on the same device and in the same
    precision; the U-Net or text encoder that the method changes and the scheduler are its own, all other parts are
    shared.  The erasure is the one that ``erasebench erase --export diffusers`` makes: it is trained with weights in
    float32, and for a pipeline in half precision computed in bfloat16.

    Args:
        pipeline: a stock ``StableDiffusionPipeline`` or ``StableDiffusionXLPipeline``; or a model by name:
            ``"picturebook"``, a diffusers folder, a ``.safetensors`` file, or a hub id, which is loaded in float32,
            onto a GPU where there is one.
        method: its name, such as ``"esd-x"``; ``erasebench list methods`` shows them.
        concepts: one of the catalogue, ``"phrase:"`` and words of your own, or a list, which is erased together.
        seed: of everything random in the method.
        domain: what the pipeline draws, which decides the method's settings and judges: ``"picturebook"`` or
            ``"photo"``; if omitted the latter, unless the model is Picturebook.
        progress: told after each step: steps done, steps in all, and figures such as the loss.
        store: a folder in which the erasure is kept and looked for, such as that of :func:`run`, which then makes no
            other; for models by name.  If omitted, nothing is kept.
        max_memory: GB of the GPU that this process may have meanwhile; if omitted what is free.
        gradient_checkpointing: ``"on"``: train with less memory and more time, to the same result; ``"off"``;
            ``"auto"``: on a GPU, where what a gradient step needs would not fit.
        hyper_parameters: of the method, over its defaults.

    Raises:
        EraseBenchError: an unknown name, with the nearest; a hyper-parameter out of range; a pipeline of another shape;
            a GPU that is too small; a store for a pipeline that has no files; or a method whose erasure is a rule of
            guidance, which no stock pipeline can hold.
        NotApplicable: the method cannot erase these concepts, or weights of a judge that it asks are missing.
        ErasureFailedError: training diverged, or the method raised.
    """
    from erasebench.models.export import erase_pipeline

    method_class: Any = METHODS.get(parse_method(method)[0]).make
    if method_class.guidance_only:
        raise EraseBenchError(
            f"{method} changes guidance and no weights: no stock pipeline can hold it; erasebench.run measures it, and "
            "erasebench.erasure_of returns its rule"
        )
    options = _given(seed, store, max_memory, gradient_checkpointing)
    stock, model, erasure = _compute(pipeline, method, concepts, domain, progress, options, hyper_parameters)
    erased: StockPipeline = erase_pipeline(stock, model, erasure)
    if isinstance(pipeline, str | Path):
        device = model.device
        del model  # whose own copies of the parts that did not change are there
        erased.to(device)
    return erased


def erasure_of(
    pipeline: StockPipeline | str | Path,
    method: str,
    concepts: str | Sequence[str],
    *,
    seed: int = 0,
    domain: str | None = None,
    progress: Progress | None = None,
    store: str | Path | None = None,
    max_memory: float | None = None,
    gradient_checkpointing: Mode = "auto",
    **hyper_parameters: Any,
) -> Erasure:
    """Return what :func:`erase` would change, or the rule of guidance: weights, low-rank factors, trace, records.

    Arguments and errors are those of :func:`erase`; every method has an erasure, those of guidance as well.
    """
    options = _given(seed, store, max_memory, gradient_checkpointing)
    return _compute(pipeline, method, concepts, domain, progress, options, hyper_parameters)[2]


def _given(
    seed: int, store: str | Path | None, max_memory: float | None, gradient_checkpointing: Mode
) -> dict[str, Any]:
    """Options of the command line, as far as they are given."""
    options = {"seed": seed, "store": store, "max_memory": max_memory, "gradient_checkpointing": gradient_checkpointing}
    return {key: value for key, value in options.items() if value is not None}


def _compute(
    pipeline: Any,
    method: str,
    concepts: str | Sequence[str],
    domain: str | None,
    progress: Progress | None,
    options: dict[str, Any],
    hyper_parameters: dict[str, Any],
) -> tuple[Any, DiffusionModel, Erasure]:
    """The stock pipeline, a copy of it as a model, and the erasure; ``options`` are the command line's."""
    import torch

    from erasebench.models.erasure import Erasure

    named = isinstance(pipeline, str | Path)
    settings = {parse_method(method)[0]: hyper_parameters} if hyper_parameters else {}
    all_options = {**options, "methods": [method], "concepts": concepts, "settings": settings}
    config = make_config(all_options, {"model": str(pipeline)} if named else {})
    if domain is not None:
        check_name("domain", domain, DOMAINS)
    if not config.concepts:
        raise EraseBenchError("no concepts; give a name, or a list of names that are erased together")
    if "store" in options and not named:
        raise EraseBenchError(
            "a store keeps erasures of models by name, since nothing tells two pipelines in memory apart: instead of "
            'the pipeline give "picturebook", its folder, a .safetensors file or a hub id'
        )
    if named:
        catalogue, source, device, dtype = find_parts(config, "concepts")
        source = replace(source, domain=domain or source.domain)
    else:
        catalogue, source = load_catalogue(), describe_pipeline(pipeline, domain)
        device = str(pipeline.device)
        check_limit(config.max_memory, device)
        dtype = "bfloat16" if pipeline.unet.dtype.itemsize < 4 else "float32"
    plan = plan_from(config, catalogue, source, device, dtype)
    if named:
        check_memory(source, device, dtype, config.max_memory, choices=())
    stock = load_stock(source) if named else pipeline
    # Notebooks turn gradients off, for good or around a block; methods that train need them.
    with TemporaryDirectory(prefix="erasebench-") as folder, torch.inference_mode(False), torch.enable_grad():
        session = Session(
            source,
            device,
            dtype,
            store_at(config.store if "store" in options else Path(folder) / "store"),
            max_memory=config.max_memory,
            gradient_checkpointing=config.gradient_checkpointing,
        )
        try:
            session.copy(stock)
            compute(plan.cell, session, [_listener(progress)] if progress else [])
        finally:
            if config.max_memory is not None:
                limit_memory(device, math.inf)  # of what the caller does later
        return stock, session.model, Erasure.load(session.store.read(plan.cell.key))


def _listener(progress: Progress) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        if isinstance(event, Progressed):
            progress(event.done, event.of, event.note)

    return tell


def run(
    methods: str | Sequence[str] | None = None,
    concepts: str | Sequence[str] | None = None,
    *,
    config: str | Path | None = None,
    preset: str | None = None,
    progress: bool = True,
    **options: Any,
) -> RunResults:
    """Erase, generate, judge and measure every method on every concept.

    It is ``erasebench run``: the same again computes nothing, with a method or a concept more only what that adds.
    A row that cannot be or that fails is in the table, with the reason.

    Args:
        methods: their names, with options in brackets: ``"esd-u[steps=200]"``; the unerased model is always there.
        concepts: of the catalogue, or ``"phrase:red bicycle"``.
        config: a YAML file of options; those that are given as well win.
        preset: ``"smoke"``, ``"quick"`` (the default on Picturebook), ``"paper"`` (the default elsewhere).
        progress: tell on standard error how far the run is.
        options: the command line's, by name: ``model``, ``prompts``, ``seed``, ``settings``, ``workers``, ``store``,
            ``out`` and so on.  Methods registered in a notebook or a script are not known to worker processes: put
            them into a file that ``plugins`` names.

    Raises:
        EraseBenchError: bad input, found before any work; or a full disk.
    """
    all_options = {"methods": methods, "concepts": concepts, **options}
    return _run(all_options, config, preset, progress)


def attack(
    method: str,
    attacks: str | Sequence[str],
    concept: str,
    *,
    config: str | Path | None = None,
    preset: str | None = None,
    progress: bool = True,
    **options: Any,
) -> RunResults:
    """Attack one method, without measuring anything else.

    It is ``erasebench attack``: the erasure is taken from the store or made, and the same again computes nothing.

    Args:
        method: to attack, with options in brackets: ``"esd-u[steps=200]"``; the unerased model is attacked as well.
        attacks: their names, with options in brackets: ``"unlearndiff[iterations=20]"``.
        concept: what is erased.
        config: as in :func:`run`; so are ``preset``, ``progress``, ``options`` and what is raised.
    """
    all_options = {"methods": [method], "attacks": attacks, "concepts": [concept], **options}
    return _run(all_options, config, preset, progress, attacks_only=True)


def _run(
    options: dict[str, Any], config: str | Path | None, preset: str | None, progress: bool, attacks_only: bool = False
) -> RunResults:
    """The results of a run whose options are given."""
    from erasebench import runs
    from erasebench.report.table import to_terminal
    from erasebench.results.table import to_frame

    run_config: RunConfig = layered_config(
        {key: value for key, value in options.items() if value is not None}, Path(config) if config else None, preset
    )
    with open(os.devnull, "w", encoding="utf-8") as silence:
        result = runs.run(run_config, None if progress else silence, attacks_only)
    rows, metrics = result.rows, result.record.metrics
    return RunResults(
        to_frame(rows, metrics),
        result.scores,
        result.attacks,
        run_config.out,
        to_terminal(rows, metrics, budgets=result.budgets, ranks=result.ranks, seeds=result.seeds),
    )

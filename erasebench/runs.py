"""A run from configuration to table."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import pandas as pd

from erasebench import __version__
from erasebench.config import RunConfig, parse_method
from erasebench.engine.cells import Cell, with_all_that_they_read
from erasebench.engine.doctor import of_other_versions
from erasebench.engine.ledger import LEDGER, Ledger
from erasebench.engine.objects import MIRRORS
from erasebench.engine.opening import store_at
from erasebench.engine.progress import Progress
from erasebench.engine.ray import RayRunner, check_ray
from erasebench.engine.runner import Outcome, Runner
from erasebench.engine.slurm import SlurmRunner, check_slurm
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from erasebench.environment import hostless_environment
from erasebench.errors import EraseBenchError
from erasebench.files import cannot_write, prepare_folder, write_durably
from erasebench.metrics.metric import load_metrics
from erasebench.models.footprint import NUMBERS, check_memory, count_weights
from erasebench.models.loading import ModelSource, find_model
from erasebench.plan import Plan, resolved_config
from erasebench.planning import make_plan
from erasebench.plugins import BASELINE
from erasebench.report.samples import draw_grids, draw_training
from erasebench.report.suite_table import suite_csv, suite_markdown, suite_table, to_dark_miner
from erasebench.report.table import to_latex, to_markdown
from erasebench.results.attacks import ATTACKS, attacks_csv, budgets, collect_attacks
from erasebench.results.costs import COSTS, Cost, costs_csv
from erasebench.results.measure import collect, measure_rows, prompt_values
from erasebench.results.ranking import RANKS, rank_methods
from erasebench.results.record import RECORD, Record, record_plan, tokenizer_hash
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import CONFIG, ENVIRONMENT
from erasebench.results.scores import SCORES, collect_scores, scores_csv
from erasebench.results.seeds import SEEDS, seed_spread
from erasebench.results.table import TABLE, frame_csv, to_csv
from erasebench.results.transfers import REPLAY, TRANSFER, check_tokenizer, replays, transfer_matrix
from erasebench.stages.session import WITH_MODEL, Session
from erasebench.suite_scale import describe_scale
from erasebench.suites import FILE, find_suite, parse_suite, read_suite

WORKER_MEMORY = 1e9
"""Bytes that a worker process takes beside its model: its libraries, images and judges."""


@dataclass(frozen=True)
class Result:
    """The results of a run.

    Attributes:
        plan: what was run; ``outcome`` what became of its cells.
        record: the rows and where their results are; ``scores`` of every image.
        attacks: what every attack found.
        rows: the table.
        ranks: of the methods, as far as they can be told apart.
        seeds: the spread between erasures of one method.
    """

    plan: Plan
    outcome: Outcome
    record: Record
    scores: pd.DataFrame
    attacks: pd.DataFrame
    rows: list[TableRow]
    ranks: pd.DataFrame
    seeds: pd.DataFrame

    @property
    def budgets(self) -> dict[str, str]:
        """By attack, what it may spend, in words."""
        return budgets(self.record)


def run(config: RunConfig, stream: TextIO | None = None, attacks_only: bool = False) -> Result:
    """Compute what is missing, measure, and write the run folder.

    Args:
        config: the run.
        stream: where progress goes; standard error if omitted.
        attacks_only: leave out what only measures erasures without attacks.

    Raises:
        EraseBenchError: bad input, found before any work; or a full disk.
    """
    check_runner(config)
    if attacks_only and not config.attacks:
        raise EraseBenchError("no attacks; give a name: `erasebench list attacks` shows them all")
    plan = make_plan(with_replays(config))
    if attacks_only:
        plan = replace(plan, rows=(), reference=None)
    load_metrics()  # one that is wrong is said before any work
    if config.suite:
        read_suite(config.suite, config.plugins, config.concept_files)  # likewise
    prepare_folder(config.out)
    store = store_at(config.store)
    try:
        with store.at_work():
            return _run(plan, store, stream)
    except OSError as error:
        in_store = error.filename and Path(str(error.filename)).is_relative_to(store.root)
        raise cannot_write(
            f"the store {store.root}" if in_store else f"the output folder {config.out}", error
        ) from error


def with_replays(config: RunConfig) -> RunConfig:
    """The configuration with the attacks that ``prompts_from`` stands for.

    Raises:
        EraseBenchError: it, or what an attack replays, is no folder of a run, or its prompts are none of this model's.
    """
    asked = [options for name, options in map(parse_method, config.attacks) if name == REPLAY]
    replayed = [Path(str(options["run"])) for options in asked if "run" in options]
    if config.prompts_from is None and not replayed:
        return config
    tokenizer = tokenizer_hash(find_model(config.model).folder)
    for run in replayed:
        check_tokenizer(run, tokenizer)
    labels = [] if config.prompts_from is None else replays(config.prompts_from, tokenizer)
    return config.model_copy(update={"attacks": (*config.attacks, *labels), "prompts_from": None})


def _run(plan: Plan, store: Store, stream: TextIO | None) -> Result:
    config = plan.config
    store.bring(cell.key for cell in plan.cells)
    missing = [cell for cell in plan.cells if store.marker(cell.key) is None]
    workers = config.workers or count_workers(plan.device, plan.source)
    check_cards(plan, missing)
    ledger = Ledger(config.out / LEDGER)
    try:
        write_durably(config.out / CONFIG, resolved_config(plan).to_yaml())
        ledger.write("run", version=__version__, cells=len(plan.cells), already_there=len(plan.cells) - len(missing))
        for row in plan.rows:
            if row.reason:
                ledger.write("n/a", title=f"{row.method} {row.concept.name}", reason=row.reason)
        for attack in plan.attacks:
            if attack.reason:
                title = f"{attack.attack} {attack.method} {attack.concept.name}"
                ledger.write("n/a", title=title, reason=attack.reason)
        session = Session(
            plan.source,
            plan.device,
            plan.dtype,
            store,
            config.batch_size,
            config.compile,
            config.fid_reference,
            config.plugins,
            config.max_memory,
            config.gradient_checkpointing,
            room=(config.size or 0) if config.runner != "local" and _need_model(missing) else None,
        )
        with Progress(missing, stream, workers) as progress:
            if len(missing) == len(plan.cells):
                for line in of_other_versions(store):
                    progress.show(line)
            outcome = make_runner(config, session, workers).run(plan.cells, store, [ledger, progress])
        record = record_plan(plan, outcome.failed, outcome.unneeded)
        scores = collect_scores(plan, record, store)
        attacks = collect_attacks(record, scores, store)
        collected = collect(record, scores, store, attacks)
        rows = measure_rows(collected, record, attacks)
        ranks = rank_methods(rows, prompt_values(collected, record), record.metrics, record.baseline)
        seeds = seed_spread(rows, record.metrics)
        result = Result(plan, outcome, record, scores, attacks, rows, ranks, seeds)
        write_results(result, store)
    finally:
        ledger.close()
    return result


def check_cards(plan: Plan, missing: Iterable[Cell], choices: Collection[str] = ("--size", "--dtype")) -> None:
    """Raise if a cell needs the model and a GPU of this machine that is to work has no room for it.

    Args:
        plan: of the run; ``missing`` its cells that are to be computed.
        choices: options that the user may set, and that can be advised.
    """
    config = plan.config
    if plan.device == "cpu" or config.runner != "local" or not _need_model(missing):
        return
    for device in worker_devices(plan.device, config.workers or count_workers(plan.device, plan.source)):
        check_memory(plan.source, device, plan.dtype, config.max_memory, plan.sampler["size"], choices)


def _need_model(cells: Iterable[Cell]) -> bool:
    return any(cell.stage in WITH_MODEL for cell in cells)


def check_runner(config: RunConfig) -> None:
    """Make sure that who is to compute can be had.

    Raises:
        EraseBenchError: the runner is not installed or not there, or an option belongs to another one.
    """
    for key, runner in (("ray_address", "ray"), ("slurm", "slurm")):
        if getattr(config, key) and config.runner != runner:
            flag = f"--{key.replace('_', '-')}"
            raise EraseBenchError(f"{flag} is for --runner {runner}, and the runner is {config.runner}")
    if config.runner == "ray":
        check_ray(config.ray_address)
    elif config.runner == "slurm":
        check_slurm(config.slurm)
    elsewhere = config.runner == "slurm" or config.ray_address
    if elsewhere and isinstance(config.store, str) and not os.environ.get(MIRRORS):
        raise EraseBenchError(
            f"workers elsewhere read and write the mirror of {config.store}: let the environment variable {MIRRORS} "
            "name a folder on a disk that all machines share"
        )
    if not config.workers and elsewhere:
        raise EraseBenchError("it is not known how many workers there are elsewhere; say it with --workers")


def make_runner(config: RunConfig, session: Session, workers: int) -> Runner:
    """The runner that computes the cells of a run."""
    patience = None if config.patience is None else 60 * config.patience
    match config.runner:
        case "ray":
            return RayRunner(session, workers, config.ray_address, patience)
        case "slurm":
            return SlurmRunner(session, workers, config.slurm, patience)
        case "local":
            return LocalRunner(session, workers, patience)


def count_workers(device: str, source: ModelSource) -> int:
    """The number of processes that work unless the user says otherwise.

    One for each processor that this process may use, or for each GPU.  On processors, where each has a model of its own
    in the same memory, no more than there is room for.

    Args:
        device: where the run is.
        source: the model.
    """
    if device == "cpu":
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        weights = NUMBERS["float32"] * sum(count_weights(source).values())
        room = _free_memory() / (WORKER_MEMORY + 2 * weights)  # the weights, and those that an erasure changes
        return max(1, int(min(processors, room)))
    if device != "cuda":
        return 1  # one GPU of several, by its number
    import torch

    return torch.cuda.device_count()


def worker_devices(device: str, workers: int) -> list[str]:
    """The devices of a run's workers: each on a GPU of its own, as far as there are so many."""
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{k}" for k in range(min(workers, torch.cuda.device_count()))]


def _free_memory() -> float:
    """Bytes that programs could still have; infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), math.inf)


def write_results(result: Result, store: Store) -> None:
    """Write the record of the run, its scores, tables, costs, environment and grids into the run folder."""
    plan, outcome, metrics = result.plan, result.outcome, result.record.metrics
    out = plan.config.out
    results = {
        SCORES: scores_csv(result.scores),
        TABLE: to_csv(result.rows, metrics),
        RANKS: frame_csv(result.ranks),
        SEEDS: frame_csv(result.seeds),
        COSTS: costs_csv(_costs(plan, outcome)),
        ENVIRONMENT: json.dumps(_environment(plan), indent=1, sort_keys=True) + "\n",
    }
    if result.record.attacks:
        results[ATTACKS] = attacks_csv(result.attacks)
    suite, scale = None, ""
    if plan.config.suite:
        path = find_suite(plan.config.suite)
        suite = parse_suite(path)
        scale = describe_scale(suite, plan.config, plan.source.domain)
        results[FILE] = path.read_text(encoding="utf-8")
    for name, text in results.items():
        write_durably(out / name, text)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in results.items()}
    # Last of what holds results: it vouches for the others.
    write_durably(out / RECORD, result.record.model_copy(update={"suite_scale": scale, "files": hashes}).to_json())
    write_durably(out / "table.md", to_markdown(result.rows, metrics, result.budgets, result.ranks, result.seeds))
    write_durably(out / "table.tex", to_latex(result.rows, metrics, result.budgets))
    if suite:
        write_durably(out / "suite.md", suite_markdown(suite, result.rows, metrics, BASELINE, scale))
        write_durably(out / "suite.csv", suite_csv(suite_table(result.rows, suite.table, metrics)))
    draw_grids(result.record, result.scores, store, out / "grids")
    if result.record.attacks:
        matrix = transfer_matrix(result.attacks)
        if len(matrix):
            write_durably(out / TRANSFER, frame_csv(matrix))
        write_durably(out / "dark_miner.md", to_dark_miner(result.rows, metrics, BASELINE))
        from erasebench.report.attacked import draw_attacked, draw_charts

        draw_attacked(result.record, store, out / "grids")
        draw_charts(result.rows, result.attacks, BASELINE, out / "charts")
    draw_training(result.record, store, out / "curves")


def _costs(plan: Plan, outcome: Outcome) -> list[Cost]:
    costs, seen = [], set()
    of_rows = [(row.method, row.concept.name, row.cells) for row in plan.rows]
    of_rows += [(row.method, row.concept.name, row.cells) for row in plan.attacks]
    for method, concept, last in (*of_rows, ("reference", "", plan.reference_cells)):
        for cell in with_all_that_they_read(last):
            if cell.key in seen:
                continue
            seen.add(cell.key)
            # What attacks cost stands with each of their prompts, in attacks.csv.
            if cell.key in outcome.unneeded or cell.stage == "attack":
                continue
            cost = outcome.costs.get(cell.key, {})
            costs.append(
                Cost(
                    method,
                    concept,
                    cell.stage,
                    cell.key,
                    "failed" if cell.key in outcome.failed else "ok",
                    cost.get("seconds"),
                    cost.get("peak_memory_mb"),
                    cost.get("parameters_changed"),
                    cost.get("images"),
                    "now" if cell.key in outcome.computed or cell.key in outcome.failed else "before",
                )
            )
    return costs


def _environment(plan: Plan) -> dict[str, object]:
    judges = {cell.spec["judge"]: dict(cell.spec) for cell in plan.cells if cell.stage == "judge"}
    return {
        "erasebench": __version__,
        "commit": _commit(),
        "model": {"name": plan.source.name, "fingerprint": plan.source.fingerprint},
        "device": plan.device,
        "dtype": plan.dtype,
        "judges": judges,
        **hostless_environment(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed package."""
    import subprocess

    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        process = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def summary(result: Result) -> str:
    """One line: how many cells were computed, were there, failed."""
    cells = len(result.plan.cells)
    outcome = result.outcome
    computed, failed, unneeded = len(outcome.computed), len(outcome.failed), len(outcome.unneeded)
    parts = [f"{computed} computed", f"{cells - computed - failed - unneeded} from the store"]
    if unneeded:
        parts.append(f"{unneeded} not needed")
    if failed:
        parts.append(f"{failed} failed")
    halvings = sum(outcome.costs.get(key, {}).get("halvings", 0) for key in outcome.computed)
    halved = f"; memory ran out {halvings} times, each time batches were halved" if halvings else ""
    return f"{cells} cells: {', '.join(parts)}{halved}; results in {result.plan.config.out}"


def any_failed(rows: list[TableRow]) -> bool:
    """True if a row of the table failed."""
    return any(row.status == "failed" for row in rows)

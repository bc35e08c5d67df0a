"""The Slurm runner: one job of an array for each worker, by submitit.

A job that has to make room for others, or whose time is up, is queued again and comes back; what it was at is given to
another worker meanwhile.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.door import Place
from erasebench.engine.remote import Launcher, drive_elsewhere, join
from erasebench.engine.runner import Outcome, Subscriber
from erasebench.engine.store import Store
from erasebench.engine.work import Workshop
from erasebench.engine.workers import THREADS
from erasebench.errors import EraseBenchError, check_name

CLUSTERS = ("slurm", "local")
"""The places that jobs go to: Slurm, or processes of this machine, to try a command out."""
TIMEOUT_MIN = 240
"""Minutes of a job unless the user says otherwise."""
ENDING = 10.0
"""Seconds that processes of this machine have to end."""
TOOLS = ("sbatch", "srun")
"""The submit commands: submitit calls the first, and takes a machine without the second for one that has no Slurm."""
RESERVED = ("map_count", "nodes", "ntasks_per_node", "num_gpus", "tasks_per_node", "use_srun")
"""Parameters that would make more than one worker of a job, or none."""


@dataclass(frozen=True)
class SlurmRunner:
    """Computes cells in jobs of Slurm.

    Attributes:
        workshop: how cells are computed.
        workers: how many jobs.
        parameters: see :func:`check_slurm`.
        patience: see :class:`~erasebench.engine.workers.LocalRunner`.
    """

    workshop: Workshop
    workers: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    patience: float | None = None

    def run(self, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]) -> Outcome:
        """Compute what is missing; see :class:`~erasebench.engine.runner.Runner`."""

        def launcher() -> Launcher:
            return Jobs(self.workshop.device.startswith("cuda"), self.parameters)

        return drive_elsewhere(launcher, self.workshop, self.workers, self.patience, cells, store, subscribers)


def check_slurm(parameters: Mapping[str, Any]) -> None:
    """Make sure that jobs can be submitted.

    Args:
        parameters: submitit's by name, such as ``partition``, ``timeout_min``, ``account``, ``mem_gb``; and
            ``cluster``, one of :data:`CLUSTERS`.

    Raises:
        EraseBenchError: submitit is not installed, Slurm is not there, or there is no parameter of a name.
    """
    if find_spec("submitit") is None:
        raise EraseBenchError("the runner 'slurm' needs submitit; install it: pip install 'erasebench[slurm]'")
    import submitit

    known = submitit.AutoExecutor._valid_parameters() | submitit.SlurmExecutor._valid_parameters()
    for name in parameters:
        check_name("parameter of Slurm", name, sorted({"cluster", *known} - {*RESERVED}))
    cluster = parameters.get("cluster", CLUSTERS[0])
    check_name("cluster", str(cluster), CLUSTERS, "--slurm")
    missing = [tool for tool in TOOLS if cluster == "slurm" and not shutil.which(tool)]
    if missing:
        raise EraseBenchError(f"there is no Slurm here: {missing[0]} is not found; run on a machine that submits jobs")


class Jobs:
    """The launcher of jobs.

    Args:
        gpus: each has a GPU.
        parameters: see :func:`check_slurm`.
    """

    def __init__(self, gpus: bool, parameters: Mapping[str, Any]) -> None:
        self._cluster = parameters.get("cluster", CLUSTERS[0])
        self.host = "127.0.0.1" if self._cluster == "local" else socket.gethostname()
        self.where = "Slurm" if self._cluster == "slurm" else "this machine, as Slurm would"
        self._parameters = {
            "name": "erasebench",
            "gpus_per_node": 1 if gpus else None,
            **({} if "time" in parameters else {"timeout_min": TIMEOUT_MIN}),
            **{name: value for name, value in parameters.items() if name != "cluster"},
        }
        threads = [f"export {name}=1" for name in THREADS]
        setup = self._parameters.get("setup", ())
        self._parameters["setup"] = [*threads, *([setup] if isinstance(setup, str) else setup)]
        self._jobs: dict[int, Any] = {}
        """By the number of a worker."""

    def launch(self, numbers: Sequence[int], place: Place) -> None:
        """Submit an array of jobs."""
        import submitit

        folder = place.shared / "jobs"
        folder.mkdir(mode=0o700, exist_ok=True)  # what is submitted holds the run's key
        generic = submitit.AutoExecutor._valid_parameters()
        executor = submitit.AutoExecutor(folder, cluster=self._cluster)
        try:
            executor.update_parameters(
                **{
                    name if name in generic else f"{self._cluster}_{name}": value
                    for name, value in self._parameters.items()
                    if name in generic or name == "setup" or self._cluster == "slurm"
                }
            )
            with executor.batch():
                jobs = [executor.submit(_Job(place, number)) for number in numbers]
        except (AssertionError, ValueError, RuntimeError, submitit.core.utils.FailedJobError) as error:
            raise EraseBenchError(f"jobs cannot be submitted: {' '.join(str(error).split())}") from error
        self._jobs |= zip(numbers, jobs, strict=True)

    def ended(self) -> Mapping[int, str]:
        """The jobs that are over, and the last that they said."""
        ended = {}
        for number, job in list(self._jobs.items()):
            if job.done():
                del self._jobs[number]
                ended[number] = f"its job is {job.state.lower()}: {_last_line(job.paths.stderr) or 'it said nothing'}"
                if job.state == "OUT_OF_MEMORY":
                    ended[number] += "; ask for more of it: --slurm mem_gb=N"
        return ended

    def end(self, number: int) -> None:
        """Cancel a job."""
        if number in self._jobs:
            self._jobs[number].cancel(check=False)

    def close(self) -> None:
        """Cancel what is left."""
        for job in self._jobs.values():
            job.cancel(check=False)
        if self._cluster == "local":
            deadline = time.monotonic() + ENDING
            while not all(job.done() for job in self._jobs.values()) and time.monotonic() < deadline:
                time.sleep(0.02)
        self._jobs.clear()


@dataclass(frozen=True)
class _Job:
    """The work of a job."""

    place: Place
    number: int

    def __call__(self) -> None:
        # Beside the main thread, which is told that the job has to make room, and must not be kept by a long step nor
        # have its exit taken for that of a cell.
        worker = Thread(target=join, args=(self.place, self.number), daemon=True)
        worker.start()
        worker.join()

    def checkpoint(self) -> Any:
        """The submission to make when the job, which has to make room, runs again: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

"""The Ray runner: one actor for each GPU, or for each processor, of a Ray cluster or of this machine.

Ray starts the processes and ends them, and nothing else: the driver hands out cells and tries them again, as for every
runner.  An actor lives as long as the run, so that no GPU's memory is left to one that ended, and neither results nor
prints go through Ray's object store and logs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.door import Place
from erasebench.engine.remote import Launcher, drive_elsewhere, join
from erasebench.engine.runner import Outcome, Subscriber
from erasebench.engine.store import Store
from erasebench.engine.work import Workshop
from erasebench.engine.workers import THREADS
from erasebench.errors import EraseBenchError

REACH = 5.0
"""Seconds in which a cluster has to answer."""
OBJECT_STORE = 80_000_000
"""Bytes of the object store of a cluster of this machine, about the least that Ray takes: nothing of ours is in it."""


@dataclass(frozen=True)
class RayRunner:
    """Computes cells in Ray actors.

    Attributes:
        workshop: how cells are computed.
        workers: how many actors.
        address: of the cluster's head, ``"host:port"``, or ``"auto"`` for the one that this machine is part of; None
            for a cluster of this machine alone, which ends with the run.  A process that is connected to a cluster
            already uses that.
        patience: see :class:`~erasebench.engine.workers.LocalRunner`.
    """

    workshop: Workshop
    workers: int
    address: str | None = None
    patience: float | None = None

    def run(self, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]) -> Outcome:
        """Compute what is missing; see :class:`~erasebench.engine.runner.Runner`."""

        def launcher() -> Launcher:
            return _Actors(self.workers, self.workshop.device.startswith("cuda"), self.address)

        return drive_elsewhere(launcher, self.workshop, self.workers, self.patience, cells, store, subscribers)


def check_ray(address: str | None) -> None:
    """Make sure that Ray is installed, and that a cluster answers.

    Raises:
        EraseBenchError: it is not, or does not.
    """
    if find_spec("ray") is None:
        raise EraseBenchError("the runner 'ray' needs Ray; install it: pip install 'erasebench[ray]'")
    if address in (None, "auto"):
        return
    host, _, port = str(address).rpartition(":")
    if "://" in host or not (host and port.isdigit() and int(port) < 2**16):
        raise EraseBenchError(
            f"'{address}' is no address of a Ray cluster; write host:port, or auto on one of its nodes"
        )
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except OSError as error:
        raise EraseBenchError(f"no Ray cluster answers at {address}: {error}") from error


class _Actors:
    """The launcher of actors."""

    def __init__(self, count: int, gpus: bool, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do anyway; it warns otherwise
        ray: Any = import_module("ray")
        self._ray = ray
        self._running: dict[int, tuple[Any, Any]] = {}
        """By the number of a worker its actor, and the call that lasts as long as it works."""
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                _connect(ray, count, address)
            except (ConnectionError, RuntimeError, ValueError) as error:
                if address == "auto" and isinstance(error, ConnectionError):
                    raise EraseBenchError(
                        "no Ray cluster is running that this machine is part of; run on one of its nodes, give "
                        "--ray-address host:port, or none for a cluster of this machine alone"
                    ) from error
                raise EraseBenchError(f"Ray cannot be used: {' '.join(str(error).split())}") from error
        self.host = ray.util.get_node_ip_address()
        self.where = "Ray" if address else "Ray on this machine"
        kind = "GPU" if gpus else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if there < count:
            self.close()
            raise EraseBenchError(f"the Ray cluster has {there} {kind}s, and {count} workers need one each")
        self._actor = ray.remote(_Actor).options(
            num_cpus=0 if gpus else 1,
            num_gpus=1 if gpus else 0,
            max_restarts=0,  # the driver starts another one, and says so
            max_task_retries=0,
            runtime_env={"env_vars": dict.fromkeys(THREADS, "1")},
        )

    def launch(self, numbers: Sequence[int], place: Place) -> None:
        """Have actors made and begin; Ray lets them wait until there is room."""
        for number in numbers:
            actor = self._actor.remote()
            self._running[number] = actor, actor.work.remote(place, number)

    def ended(self) -> Mapping[int, str]:
        """The actors that died, or whose work is over."""
        calls = {call: number for number, (_, call) in self._running.items()}
        if not calls:
            return {}
        over, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        ended = {}
        for call in over:
            del self._running[calls[call]]
            try:
                self._ray.get(call)
                ended[calls[call]] = "it ended"
            except self._ray.exceptions.RayError as error:
                ended[calls[call]] = " ".join(str(error).split())
        return ended

    def end(self, number: int) -> None:
        """Kill an actor."""
        if number in self._running:
            self._ray.kill(self._running[number][0])

    def close(self) -> None:
        """End the actors, and the cluster if it is ours."""
        for actor, _ in self._running.values():
            self._ray.kill(actor)
        self._running.clear()
        if self._ours:
            self._ray.shutdown()


class _Actor:
    """A process of Ray's that is a worker."""

    def work(self, place: Place, number: int) -> None:
        join(place, number)


def _connect(ray: Any, count: int, address: str | None) -> None:
    if address is None:
        ray.init(
            address="local",
            num_cpus=max(count, os.cpu_count() or 1),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            log_to_driver=False,
            logging_level="ERROR",
        )
    else:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")

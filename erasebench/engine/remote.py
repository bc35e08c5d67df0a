"""Workers on other machines: they come to the driver over the network, and write to the store that all share.

What goes over the network are specs, progress and costs, never images or weights.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Protocol

from erasebench import __version__
from erasebench.engine.cells import Cell
from erasebench.engine.door import Door, Place, end_silence
from erasebench.engine.driver import drive
from erasebench.engine.runner import Asked, Ended, Joined, Outcome, Report, Subscriber, TaskProgress, Workers
from erasebench.engine.store import RUN, Store
from erasebench.engine.work import Failure, Task, Workshop
from erasebench.engine.worker import work_for
from erasebench.engine.workers import ConnectedWorkers, Worker
from erasebench.errors import EraseBenchError
from erasebench.files import remove, sync

LOOK = 1.0
"""Seconds after which it is looked whether workers ended that are not there."""
LAUNCHES = 3
"""The number of times in a row that a worker is launched that ends before it is there."""
VISIBLE = 60.0
"""Seconds that a file which a worker wrote may take to be seen here; network file systems keep listings for a while."""


class Launcher(Protocol):
    """The part that starts worker processes somewhere: Ray, Slurm."""

    host: str
    """A name or address by which they reach this machine."""
    where: str
    """In words."""

    def launch(self, numbers: Sequence[int], place: Place) -> None:
        """Have :func:`join` called in a process of its own for each of the numbers, now or when there is room.

        Raises:
            EraseBenchError: they cannot be started.
        """
        ...

    def ended(self) -> Mapping[int, str]:
        """The numbers of those that ended, and will not be started again by others than this, and how."""
        ...

    def end(self, number: int) -> None:
        """End one by force that hangs, without waiting for it; it is among those that ended when it is gone."""
        ...

    def close(self) -> None:
        """End those that are left."""
        ...


def join(place: Place, number: int) -> None:
    """Be a worker, in a process that does nothing else, until the driver has nothing more to do.

    Args:
        place: where the driver is.
        number: of this worker among the others.

    Raises:
        OSError: there is no driver.
    """
    connection = Client((place.host, place.port), authkey=place.key)
    end_silence(connection)
    connection.send((__version__, number))
    try:
        _settle_in(place, number)
    except Exception as error:
        connection.send(Failure.of(error, fatal=True))
        return
    work_for(connection, number, _to_disk)


def _settle_in(place: Place, number: int) -> None:
    """Go to the driver's folder, and make sure that its store is seen and can be written to."""
    host, store = socket.gethostname(), place.shared.parents[1]
    try:
        os.chdir(place.folder)
    except OSError as error:
        raise EraseBenchError(
            f"a worker on {host} does not see the folder {place.folder}; run in one that all machines share"
        ) from error
    probe = place.shared / f"worker-{number}"
    if not place.shared.is_dir():
        raise EraseBenchError(
            f"a worker on {host} does not see the store {store}; name one on a disk that all machines share"
        )
    try:
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise EraseBenchError(f"a worker on {host} cannot write to the store {store}: {error.strerror}") from error


@dataclass(frozen=True)
class _Written:
    """The outcome of a task, and the sizes of the files in each of its folders, by their names there."""

    costs: Sequence[Mapping[str, Any]]
    files: Sequence[Mapping[str, int]]


def _to_disk(task: Task, report: Report) -> Report | _Written:
    """Bring what a task wrote to the disk, and say what that is."""
    if isinstance(report, Failure):
        return report
    written = []
    for folder in task.folders:
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            sync(path)
        written.append({path.relative_to(folder).as_posix(): path.stat().st_size for path in files})
    return _Written(report, written)


def _size(path: Path) -> int | None:
    """Bytes of a file; None where there is none to be seen."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def see(folder: Path, files: Mapping[str, int], seconds: float = VISIBLE) -> str:
    """Wait until all that a worker wrote into a folder is seen here.

    Args:
        folder: the folder.
        files: their sizes in bytes, by their names in the folder.
        seconds: to wait.

    Returns:
        The name of a file that is not, or ''.
    """
    deadline = time.monotonic() + seconds
    while True:
        missing = [name for name, size in files.items() if _size(folder / name) != size]
        if not missing or time.monotonic() > deadline:
            return missing[0] if missing else ""
        # A change of one's own makes a network file system read the folder anew.
        with suppress(OSError):
            (folder / ".look").touch()
            (folder / ".look").unlink()
        time.sleep(0.1)


def drive_elsewhere(
    launcher: Callable[[], Launcher],
    workshop: Workshop,
    count: int,
    patience: float | None,
    cells: Sequence[Cell],
    store: Store,
    subscribers: Sequence[Subscriber],
) -> Outcome:
    """Compute what is missing by workers on other machines.

    Args:
        launcher: makes what starts them, if there is anything to do.
        workshop: see :func:`~erasebench.engine.driver.drive`; so are the others.
        count: how many are wanted.
        patience: see :class:`~erasebench.engine.workers.LocalRunner`.
        cells: what is asked for.
        store: of the run.
        subscribers: told of every event.
    """

    def hire(progress: TaskProgress, tell: Subscriber) -> Workers:
        return RemoteWorkers(launcher(), workshop, count, patience, store, progress, tell)

    return drive(workshop, count, hire, cells, store, subscribers)


class RemoteWorkers(ConnectedWorkers):
    """Workers that a launcher starts, and that come when there is room for them.

    One that is lost is started again, unless the launcher's own queue does that; the others go on meanwhile.

    Args:
        launcher: starts them.
        workshop: how cells are computed.
        count: how many are wanted.
        patience: seconds without progress after which one is ended.
        store: of the run.
        progress: told how far tasks are.
        tell: told who came.

    Raises:
        EraseBenchError: they cannot be started.
    """

    def __init__(
        self,
        launcher: Launcher,
        workshop: Workshop,
        count: int,
        patience: float | None,
        store: Store,
        progress: TaskProgress,
        tell: Subscriber,
    ) -> None:
        super().__init__(patience, progress, tell)
        self._launcher, self._workshop, self._count, self._store = launcher, workshop, count, store
        self._shared = store.work(f"{RUN}{store.leases.owner}")
        self._launches = dict.fromkeys(range(count), 1)
        """By the number of a worker how often it was launched since it was there."""
        self._looked = time.monotonic()
        self._known_ends: set[str] = set()
        """The ends of workers that subscribers know of: of many that end alike one is told of."""
        self._door = Door(launcher.host, self._shared.absolute())
        try:
            launcher.launch(range(count), self._door.place)
        except BaseException:
            self.close()
            raise
        tell(Asked(count, launcher.where))

    def free(self) -> int:
        """The number of workers that are there and idle."""
        return sum(worker.task is None for worker in self._all)

    def start(self, task: Task) -> None:
        """Have an idle one begin a task."""
        worker = self._best(task)
        assert worker, "nobody is free"
        worker.begin(task, self._question)

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """The tasks that ended; returns as well when a worker came."""
        workers = {worker.connection: worker for worker in self._all}
        ended: list[tuple[Task, Report]] = []
        for connection in self._wait([*workers, self._door.bell], timeout):
            if connection in workers:
                ended += self._hear(workers[connection])
            else:
                self._let_in(*self._door.next())
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self._launch_again()
        return ended + self._watch()

    def close(self) -> None:
        """Send the idle ones home; the others end when their connection does."""
        self._door.close()
        for worker in self._all:
            if worker.task is None:
                worker.send(None)
            worker.connection.close()
        self._all.clear()
        self._launcher.close()
        with suppress(OSError):  # a job that ends may still write its log, which nobody needs
            remove(self._shared)

    def _let_in(self, connection: Connection, version: str, number: int) -> None:
        if version != __version__:
            connection.close()
            raise EraseBenchError(
                f"a worker has erasebench {version}, and this is {__version__}; install the same one everywhere"
            )
        self._launches[number] = 0
        worker = Worker(number, connection)
        worker.send(self._workshop)
        self._all.append(worker)
        self._tell(Joined(len(self._all), self._count))

    def _launch_again(self) -> None:
        """Replace workers that ended; of those that never came, it is an error when nobody is left."""
        ended = self._launcher.ended()
        hopeless = [number for number in ended if self._launches[number] >= LAUNCHES]
        again = [number for number in ended if number not in hopeless]
        for number, how in ended.items():
            if how not in self._known_ends:
                self._known_ends.add(how)
                self._tell(Ended(how, number in again))
        for number in again:
            self._launches[number] += 1
        if again:
            self._launcher.launch(again, self._door.place)
        for number in hopeless:
            del self._launches[number]
        if not self._launches:
            raise EraseBenchError(f"no worker could be started: {ended[hopeless[-1]]}")

    def _end(self, worker: Worker) -> None:
        self._launcher.end(worker.number)

    def _bury(self, worker: Worker) -> Failure:
        return Failure("the connection to its worker was lost", error="ConnectionLost")

    def _check(self, task: Task, report: Report | _Written) -> Report:
        if not isinstance(report, _Written):
            return report
        for cell, folder, files in zip(task.cells, task.folders, report.files, strict=True):
            # A run that took the cell over may have removed them: they will not come.
            missing = see(folder, files, VISIBLE if self._store.leases.holds(cell.key) else 0.0)
            if missing:
                return Failure(f"its worker wrote {missing}, which is not seen here", error="ConnectionLost")
        return report.costs

"""Kill runs at random moments, a thousand times, also while they resume what the last kill left.

    python -m benchmarks.kills [KILLS] [--workers] [--seed N] [--into FILE]

A run of 17 cells, whose images and scores take no time, is killed by SIGKILL after a random while; the same command
goes on with what is there, until one of them ends; then another store begins.  After every kill each cell that was
finished before has to be there and sound, and nothing may pass for finished that is not.  Every run that ends has to
leave the very table of a run that was never killed, and a store in which ``doctor`` finds nothing to mend.  With
``--workers`` runs have two worker processes; up to two of these are killed as well, which the run has to survive.

A thousand kills can be done in pieces: each adds to what ``--into`` names.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from erasebench.engine.doctor import examine
from erasebench.engine.store import Store
from erasebench.files import write_durably
from tests.engine.runs import CELLS, fast_stages, marker_first, run_tiny, table
from tests.engine.test_workers import is_running
from tests.forks import end, fork

FAST = "import pytest\nfrom tests.engine.runs import fast_stages\nfast_stages(pytest.MonkeyPatch())\n"
"""What has a worker process do nothing that takes time."""
ALONE = 10.0
"""Seconds in which a worker has to be gone whose driver was killed."""


@dataclass
class Tally:
    """What became of the runs.

    Attributes:
        of_drivers: kills of runs that had finished nothing before; ``of_resumed_drivers`` of those that went on from
            what others left; ``of_workers`` of single worker processes, whose runs went on.
        ended: runs that came to their end, each the last of some; ``failed`` those that ended with an error.
        most_kills: of the drivers of one store, until its run ended.
        finished_before: cells that were finished when a driver was killed, summed over all kills.
        lost: of these, what was not there afterwards, or not sound.
        unsound: cells that passed for finished and were not.
        other_tables: runs that ended with another table.
        mended: of these stores, those in which ``doctor`` found something when the run had ended.
        outlived: worker processes that were still there when their run had ended.
    """

    of_drivers: int = 0
    of_resumed_drivers: int = 0
    of_workers: int = 0
    ended: int = 0
    failed: int = 0
    most_kills: int = 0
    finished_before: int = 0
    lost: int = 0
    unsound: int = 0
    other_tables: int = 0
    mended: int = 0
    outlived: int = 0

    @classmethod
    def of(cls, path: Path | None) -> Tally:
        """What a file says; nothing where there is none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path and path.exists() else cls()

    def to_json(self) -> str:
        """What :meth:`of` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @property
    def kills(self) -> int:
        """All kills."""
        return self.of_drivers + self.of_resumed_drivers + self.of_workers

    @property
    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.failed or self.lost or self.unsound or self.other_tables or self.mended or self.outlived)


def run_in_a_process(folder: Path, *more: str | Path) -> int:
    """The process number of a run in a process of its own, which says nothing."""

    def run() -> int:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        return run_tiny(folder, *more)

    return fork(run)


def sound(folder: Path) -> tuple[set[str], int]:
    """The cells of a store that are finished and sound, and how many pass for it and are not."""
    if not (folder / "store" / "store.json").exists():
        return set(), 0
    store = Store(folder / "store")
    verdicts = {key: store.verify(key) for key in store.cells()}
    return {key for key, verdict in verdicts.items() if verdict is None}, sum(map(bool, verdicts.values()))


class Killer:
    """Kills runs, and counts what became of them.

    Args:
        tally: that is counted on from.
        work: a folder for stores.
        draw: of the moments.
        with_workers: runs have two worker processes, of which some are killed as well.
    """

    def __init__(self, tally: Tally, work: Path, draw: random.Random, with_workers: bool) -> None:
        self.tally, self.work, self.draw, self.with_workers = tally, work, draw, with_workers
        self.options: tuple[str | Path, ...] = ()
        if with_workers:
            # Worker processes begin anew: what they load is all that they know.
            (work / "fast.py").write_text(FAST, encoding="utf-8")
            self.options = "--workers", "2", "--plugins", work / "fast.py"
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            assert run_tiny(work / "imports") == 0  # which later processes then have
        began = time.monotonic()
        assert end(run_in_a_process(work / "undisturbed", *self.options)) == 0
        self.lasts, self.expected = time.monotonic() - began, table(work / "undisturbed")

    def go_through(self) -> None:
        """Kill one run again and again until it has ended."""
        tally, folder = self.tally, self.work / "killed"
        finished: set[str] = set()
        for times in range(1_000):
            code = self.disturb(folder)
            cells, unsound = sound(folder)
            tally.unsound += unsound
            tally.lost += len(finished - cells)
            if code == 0:
                tally.ended += 1
                tally.most_kills = max(tally.most_kills, times)
                tally.other_tables += table(folder) != self.expected or len(cells) != CELLS
                tally.mended += bool(examine(folder / "store"))
                break
            if code != -signal.SIGKILL:
                tally.failed += 1
                break
            if finished:
                tally.of_resumed_drivers += 1
            else:
                tally.of_drivers += 1
            tally.finished_before += len(cells)
            finished = cells
        shutil.rmtree(folder)

    def disturb(self, folder: Path) -> int:
        """The exit code of a run that is killed after a random while; negative if it was."""
        driver, workers = run_in_a_process(folder, *self.options), set[int]()
        # A cell whose workers were lost three times has failed: no run loses more than two.
        for _ in range(2 if self.with_workers else 0):
            time.sleep(self.draw.uniform(0, self.lasts / 2))
            workers |= children(driver)
            if workers:
                victim = self.draw.choice(sorted(workers))
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    self.tally.of_workers += 1
        if not self.with_workers or self.draw.random() < 0.5:
            time.sleep(self.draw.uniform(0, self.lasts))
            workers |= children(driver)
            os.kill(driver, signal.SIGKILL)  # of a process that has ended, only its number is left
        code = end(driver)
        deadline = time.monotonic() + ALONE
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.tally.outlived += sum(map(is_running, workers))
        return code


def children(process: int) -> set[int]:
    """The processes that a process started; those of one that has ended are nobody's."""
    try:
        return set(map(int, Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()))
    except OSError:
        return set()


def main() -> int:
    """Say what became of the runs, as JSON; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=1_000, metavar="KILLS", help="  [%(default)s]")
    parser.add_argument("--workers", action="store_true", help="also kill worker processes, of which runs have two")
    parser.add_argument("--seed", type=int, default=0, help="of the moments  [%(default)s]")
    parser.add_argument("--into", type=Path, metavar="FILE", help="add to what this file says, run after run")
    parser.add_argument("--control", action="store_true", help="commit in the wrong order, which has to be found")
    options = parser.parse_args()
    tally = Tally.of(options.into)
    goal = tally.kills + options.kills
    with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        if options.control:
            patch.setattr(Store, "writing", marker_first)
        # Another piece has other moments.
        killer = Killer(tally, Path(work), random.Random(f"{options.seed} {tally.kills}"), options.workers)
        while tally.kills < goal:
            killer.go_through()
            if options.into:
                write_durably(options.into, tally.to_json())
    print(tally.to_json(), end="")
    return int(tally.bad)


if __name__ == "__main__":
    sys.exit(main())

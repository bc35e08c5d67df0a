"""Kill runs at random moments, a thousand times, also while they resume what the last kill left.

    python -m benchmarks.kills [KILLS] [--seed N]

A run of 17 cells, whose images and scores take no time, is killed by SIGKILL after a random while; the same command
goes on with what is there, until one of them ends; then another store begins.  After every kill each cell that was
finished before has to be there and sound, and nothing may pass for finished that is not.  Every run that ends has to
leave the very table of a run that was never killed, and a store in which ``doctor`` finds nothing to mend.
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
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from erasebench.engine.doctor import examine
from erasebench.engine.store import Store
from tests.engine.runs import CELLS, fast_stages, run_tiny, table
from tests.forks import end, fork


@dataclass
class Tally:
    """What became of the runs.

    Attributes:
        kills: runs that were killed.
        ended: runs that came to their end, each the last of some.
        most_kills: of one store, until its run ended.
        finished_before: cells that were finished when a run was killed, summed over all kills.
        lost: of these, what was not there afterwards, or not sound.
        unsound: cells that passed for finished and were not.
        other_tables: runs that ended with another table.
        mended: of these stores, those in which ``doctor`` found something when the run had ended.
    """

    kills: int = 0
    ended: int = 0
    most_kills: int = 0
    finished_before: int = 0
    lost: int = 0
    unsound: int = 0
    other_tables: int = 0
    mended: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.lost or self.unsound or self.other_tables or self.mended)


def run_for(folder: Path, seconds: float | None) -> int:
    """The exit code of a run in a process of its own, which is killed after so many seconds; negative if it was."""

    def run() -> int:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        return run_tiny(folder)

    child = fork(run)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # of a process that has ended, only its number is left
    return end(child)


def sound(folder: Path) -> tuple[set[str], int]:
    """The cells of a store that are finished and sound, and how many pass for it and are not."""
    if not (folder / "store" / "store.json").exists():
        return set(), 0
    store = Store(folder / "store")
    verdicts = {key: store.verify(key) for key in store.cells()}
    return {key for key, verdict in verdicts.items() if verdict is None}, sum(map(bool, verdicts.values()))


def kill(kills: int, seed: int, work: Path) -> Tally:
    """Kill runs so many times, in a folder for their stores."""
    tally, draw = Tally(), random.Random(seed)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert run_tiny(work / "imports") == 0  # which later processes then have
    began = time.monotonic()
    assert run_for(work / "undisturbed", None) == 0
    lasts, expected = time.monotonic() - began, table(work / "undisturbed")
    while tally.kills < kills:
        folder = work / "killed"
        finished: set[str] = set()
        for times in range(1_000):
            code = run_for(folder, draw.uniform(0, lasts))
            kept, unsound = sound(folder)
            tally.unsound += unsound
            tally.lost += len(finished - kept)
            finished = kept
            if code == 0:
                tally.ended += 1
                tally.most_kills = max(tally.most_kills, times)
                tally.other_tables += table(folder) != expected or len(kept) != CELLS
                tally.mended += bool(examine(folder / "store"))
                break
            if code != -signal.SIGKILL:
                raise SystemExit(f"a run ended with exit code {code} in {folder}")
            tally.kills += 1
            tally.finished_before += len(kept)
        shutil.rmtree(folder)
    return tally


def main() -> int:
    """Say what became of the runs, as JSON; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=1_000, metavar="KILLS", help="  [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments  [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        tally = kill(options.kills, options.seed, Path(work))
    print(json.dumps(asdict(tally), indent=1))
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())

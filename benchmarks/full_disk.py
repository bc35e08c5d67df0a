"""Run on a disk that is full after so many blocks, for every number of blocks; needs root, which mounts small disks.

    python -m benchmarks.full_disk [--step BLOCKS] [--control]

A run of 17 cells, whose images and scores take no time, has its store and its folder on a tmpfs of a few blocks of
4 KiB.  It has to end with exit code 2 and a line that says that the disk is full, and every cell that passes for
finished has to be sound.  Then there is room, and the same command goes on: no finished cell is computed again, and its
table is the very one of a run that never was short of room.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from benchmarks.kills import sound
from erasebench.engine.doctor import examine
from erasebench.engine.store import Store
from tests.engine.runs import done, fast_stages, marker_first, run_tiny, table

BLOCK = 4096
ROOM = 64 * 2**20


@dataclass
class Tally:
    """What became of the runs.

    Attributes:
        blocks: that the undisturbed run needs.
        full: runs for which the disk was too small.
        unsaid: of these, those that did not say so, by what they said instead.
        unsound: cells that passed for finished and were not.
        again: finished cells that were computed again when there was room.
        other_tables: runs that ended with another table, or not at all.
        mended: stores in which ``doctor`` found something when the run had ended.
    """

    blocks: int = 0
    full: int = 0
    unsaid: Counter[str] = field(default_factory=Counter)
    unsound: int = 0
    again: int = 0
    other_tables: int = 0
    mended: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.unsaid or self.unsound or self.again or self.other_tables or self.mended)


def run_here(folder: Path) -> tuple[int, str]:
    """The exit code of a run in this process, and the last thing that it said."""
    output = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(output):
        code = run_tiny(folder)
    return code, (output.getvalue().splitlines() or [""])[-1]


def mount(folder: Path, size: int, *options: str) -> None:
    """Mount a tmpfs of a number of bytes."""
    mount_options = ",".join([f"size={size}", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", mount_options, "tmpfs", str(folder)], check=True)


def sweep(step: int, work: Path) -> Tally:
    """Try every ``step``-th number of blocks, in a folder for disks and an undisturbed run."""
    assert run_here(work / "undisturbed")[0] == 0
    expected = table(work / "undisturbed")
    files = [path.stat().st_size for path in (work / "undisturbed").rglob("*") if path.is_file()]
    tally = Tally(sum(-(-size // BLOCK) for size in files))
    disk = work / "disk"
    disk.mkdir()
    for blocks in range(1, 2 * tally.blocks, step):
        mount(disk, blocks * BLOCK)
        try:
            code, output = run_here(disk)
            if code == 0:
                break
            tally.full += 1
            if code != 2 or "full" not in output:
                tally.unsaid[f"exit code {code}: {output.replace(str(disk), 'DISK')}"] += 1
            finished, unsound = sound(disk)
            tally.unsound += unsound
            mount(disk, ROOM, "remount")
            tally.other_tables += run_here(disk)[0] != 0 or table(disk) != expected
            tally.again += len({line["cell"] for line in done(disk)} & finished)
            tally.mended += bool(examine(disk / "store"))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return tally


def main() -> int:
    """Say what became of the runs, as JSON; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_disk", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--step", type=int, default=1, help="blocks from one disk to the next  [%(default)s]")
    parser.add_argument("--control", action="store_true", help="commit in the wrong order, which has to be found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        if options.control:
            patch.setattr(Store, "writing", marker_first)
        tally = sweep(options.step, Path(work))
    print(json.dumps(asdict(tally), indent=1))
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())

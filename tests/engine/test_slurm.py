"""Jobs by submitit, whose local executor runs them on this machine as Slurm would."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.door import Place
from erasebench.engine.runner import Event, Finished, Joined, Outcome, Retried
from erasebench.engine.slurm import Jobs, SlurmRunner, check_slurm
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.test_remote import Here
from tests.engine.test_remote import run as run_with
from tests.engine.test_workers import ROOT, begun, check_nothing_is_left, matrix, wait_until_gone
from tests.whole.test_hangs import Clock, check_hang, impatient


@pytest.fixture(autouse=True)
def tests_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(folder: Path, cells: Sequence[Cell], events: list[Event], workers: int = 2) -> Outcome:
    (folder / "signs").mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store")
    runner = SlurmRunner(FakeWorkshop(store, folder / "signs"), workers, {"cluster": "local"})
    return runner.run(cells, store, [events.append])


def test_jobs_compute_what_processes_compute(tmp_path: Path) -> None:
    cells = [*matrix(), cell("bad", "raise"), cell("meets", "meet too"), cell("too", "meet meets")]
    events: list[Event] = []
    outcome = run(tmp_path, cells, events)
    assert [cell.title for cell in cells if cell.key in outcome.failed] == ["bad"]
    assert sum(isinstance(event, Finished) for event in events) == len(cells) - 1
    assert {(number, threads) for _, number, threads in begun(tmp_path).values()} == {("0", "1"), ("1", "1")}
    wait_until_gone(tmp_path)
    check_nothing_is_left(tmp_path)
    assert not list((tmp_path / "store" / "work").iterdir())


def test_a_job_that_makes_room_is_queued_again(tmp_path: Path) -> None:
    """Slurm tells it in the middle of a cell; what it was at is done when it is back."""
    sign = tmp_path / "signs" / "hung"

    def preempt() -> None:
        while not (sign.exists() and sign.read_text()):
            time.sleep(0.01)
        os.kill(int(sign.read_text().split()[0]), signal.SIGUSR2)

    Thread(target=preempt, daemon=True).start()
    events: list[Event] = []
    assert not run(tmp_path, [cell("a", "hang")], events, workers=1).failed
    assert [event.failure.error for event in events if isinstance(event, Retried)] == ["ConnectionLost"]
    assert sum(isinstance(event, Joined) for event in events) == 2
    wait_until_gone(tmp_path)
    check_nothing_is_left(tmp_path)


class Debugged(Here):
    """Jobs by the debug executor, which runs them where it is: in processes, which workers end when they go."""

    def launch(self, numbers: Sequence[int], place: Place) -> None:
        code = (
            "import pickle, sys, submitit; from erasebench.engine.slurm import _Job; "
            "job = _Job(*pickle.load(sys.stdin.buffer)); "
            f"submitit.DebugExecutor({str(place.shared)!r}).submit(job).result()"
        )
        self.start([sys.executable, "-c", code], numbers, place)


def test_a_job_by_the_debug_executor(tmp_path: Path) -> None:
    assert not run_with(tmp_path, [cell("a", units=3), cell("b")], Debugged(), [], count=1).failed


def test_jobs_that_cannot_begin_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.remote.LOOK", 0.1)
    monkeypatch.setattr("erasebench.engine.remote.LAUNCHES", 1)
    (tmp_path / "broken" / "erasebench").mkdir(parents=True)
    (tmp_path / "broken" / "erasebench" / "__init__.py").write_text("raise ImportError('no torch for this processor')")
    monkeypatch.chdir(tmp_path / "broken")
    with pytest.raises(EraseBenchError, match=r"no worker could be started: its job is .*no torch for this processor"):
        run(tmp_path, [cell("a")], [], workers=1)


def test_what_is_submitted_is_nobody_elses_to_read(tmp_path: Path) -> None:
    modes: list[int] = []

    def look(event: Event) -> None:
        if isinstance(event, Joined):
            modes.extend(path.stat().st_mode & 0o777 for path in (tmp_path / "store" / "work").glob("*/jobs"))

    (tmp_path / "signs").mkdir()
    store = Store(tmp_path / "store")
    SlurmRunner(FakeWorkshop(store, tmp_path / "signs"), 1, {"cluster": "local"}).run([cell("a")], store, [look])
    assert modes == [0o700]


def test_what_is_asked_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a submission, by a Slurm that takes it and does nothing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, answer in {"sbatch": "echo Submitted batch job 12", "srun": "true"}.items():
        (tools / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path / "submitted"} 2>/dev/null\n{answer}\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    parameters = {"partition": "gpu", "mem_gb": 40, "setup": ["module load cuda"], "timeout_min": 90}
    check_slurm(parameters)
    jobs = Jobs(True, parameters)
    jobs.launch([0, 1, 2], Place("head", 1, b"secret", tmp_path))
    text = (tmp_path / "submitted").read_text()
    for line in ("array=0-2%3", "partition=gpu", "time=90", "mem=40GB", "gpus-per-node=1", "signal=USR2@90"):
        assert f"#SBATCH --{line}\n" in text
    assert text.index("export OMP_NUM_THREADS=1") < text.index("module load cuda")
    assert "secret" not in text
    jobs._jobs.clear()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"partitoin": "gpu"}, "unknown parameter of Slurm 'partitoin'; nearest: partition"),
        ({"tasks_per_node": 2}, "unknown parameter of Slurm 'tasks_per_node'"),
        ({"cluster": "debug"}, "--slurm: unknown cluster 'debug'"),
        ({"partition": "gpu"}, "there is no Slurm here: sbatch is not found"),
    ],
)
def test_what_cannot_be_asked_of_slurm(
    parameters: Mapping[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(EraseBenchError, match=message):
        check_slurm(parameters)


def test_a_machine_that_has_only_half_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/sbatch" if name == "sbatch" else None)
    with pytest.raises(EraseBenchError, match="there is no Slurm here: srun is not found; run on a machine that"):
        check_slurm({})


class _Job:
    def __init__(self, state: str) -> None:
        self.state, self.paths = state, SimpleNamespace(stderr=Path("nowhere"))

    def done(self) -> bool:
        return True


def test_a_job_that_ran_out_of_memory_says_what_to_ask_for() -> None:
    jobs = Jobs(False, {"cluster": "local"})
    jobs._jobs = {0: _Job("OUT_OF_MEMORY"), 1: _Job("TIMEOUT")}
    assert jobs.ended() == {
        0: "its job is out_of_memory: it said nothing; ask for more of it: --slurm mem_gb=N",
        1: "its job is timeout: it said nothing",
    }


def test_a_job_that_hangs_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hire(folder: Path, cells: Sequence[Cell], clock: Clock, patience: float | None) -> Outcome:
        (folder / "signs").mkdir(parents=True, exist_ok=True)
        store = Store(folder / "store")
        runner = SlurmRunner(FakeWorkshop(store, folder / "signs"), 1, {"cluster": "local"}, patience)
        return runner.run(cells, store, [clock.tell])

    check_hang(tmp_path, "hang", hire, Clock(impatient), 900, monkeypatch)


def test_no_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.slurm.find_spec", lambda name: None)
    with pytest.raises(EraseBenchError, match="needs submitit; install it: pip install"):
        check_slurm({})

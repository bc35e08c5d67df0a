"""Workers that come over the network, started by a launcher of this file; Ray's and Slurm's are tested beside it."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.door import Place
from erasebench.engine.remote import drive_elsewhere, see
from erasebench.engine.runner import Asked, Event, Joined, Outcome, Retried
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.test_workers import ROOT, begun, check_nothing_is_left

JOIN = "import pickle, sys; from erasebench.engine.remote import join; join(*pickle.load(sys.stdin.buffer))"


@dataclass
class Here:
    """Starts workers as processes of this machine.

    Attributes:
        before: code that runs in each before it comes.
    """

    before: str = ""
    host: str = "127.0.0.1"
    where: str = "here"
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    launched: list[int] = field(default_factory=list)

    def launch(self, numbers: Sequence[int], place: Place) -> None:
        self.start([sys.executable, "-c", f"{self.before}\n{JOIN}"], numbers, place)

    def start(self, command: Sequence[str], numbers: Sequence[int], place: Place) -> None:
        paths = {**os.environ, "PYTHONPATH": str(ROOT)}
        for number in numbers:
            self.launched.append(number)
            process = subprocess.Popen(command, cwd="/", env=paths, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert process.stdin
            process.stdin.write(pickle.dumps((place, number)))
            process.stdin.close()
            self.processes[number] = process

    def ended(self) -> Mapping[int, str]:
        codes = {number: process.poll() for number, process in self.processes.items()}
        return {
            number: f"exit code {self.processes.pop(number).wait()}" for number in codes if codes[number] is not None
        }

    def end(self, number: int) -> None:
        self.processes[number].kill()

    def close(self) -> None:
        for process in self.processes.values():
            process.wait(timeout=60)
        self.processes.clear()


def run(
    folder: Path,
    cells: Sequence[Cell],
    launcher: Any,
    events: list[Event],
    count: int = 2,
    patience: float | None = None,
) -> Outcome:
    (folder / "signs").mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store")
    return drive_elsewhere(
        lambda: launcher, FakeWorkshop(store, folder / "signs"), count, patience, cells, store, [events.append]
    )


def test_workers_come_work_and_go_home(tmp_path: Path) -> None:
    first = cell("first", units=5)
    cells = [first, cell("meets", "meet too"), cell("too", "meet meets"), cell("last", first=first)]
    events: list[Event] = []
    assert run(tmp_path, cells, Here(), events).computed == {cell.key for cell in cells}
    assert [event for event in events if isinstance(event, Asked | Joined)] == [
        *(Asked(2, "here"), Joined(1, 2), Joined(2, 2))
    ]
    check_nothing_is_left(tmp_path)
    assert not list((tmp_path / "store" / "work").iterdir())


def test_relative_paths_lead_from_where_the_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not run(Path("here"), [cell("a")], Here(), [], count=1).failed
    check_nothing_is_left(tmp_path / "here")


def test_a_worker_that_is_lost_is_launched_again(tmp_path: Path) -> None:
    cells = [cell("dies", "die 2"), *(cell(f"{k}") for k in range(3))]
    events: list[Event] = []
    launcher = Here()
    assert not run(tmp_path, cells, launcher, events, count=1).failed
    assert launcher.launched == [0, 0, 0]
    assert [event.failure.error for event in events if isinstance(event, Retried)] == ["ConnectionLost"] * 2
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("import erasebench; erasebench.__version__ = '0.0.1'", r"a worker has erasebench 0\.0\.1, and this is"),
        ("raise SystemExit(7)", "no worker could be started: exit code 7"),
        ("import pathlib; pathlib.Path.is_dir = lambda path: False", "does not see the store .*; name one on a disk"),
        (
            "import pathlib\ndef write(*args, **more): raise PermissionError(13, 'Permission denied')\n"
            "pathlib.Path.write_text = write",
            "cannot write to the store .*: Permission denied",
        ),
        (
            "import os\ndef change(path): raise FileNotFoundError(2, 'No such file or directory')\nos.chdir = change",
            "does not see the folder .*; run in one that all machines share",
        ),
        ("import sys; sys.modules['tests'] = None", "No module named 'tests|import of tests"),
    ],
)
def test_workers_that_cannot_work_are_one_error(
    before: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.engine.remote.LOOK", 0.1)
    with pytest.raises(EraseBenchError, match=message):
        run(tmp_path, [cell("a"), cell("b")], Here(before), [])
    check_nothing_is_left(tmp_path)
    assert not list((tmp_path / "store" / "work").iterdir())


def test_one_worker_that_never_comes_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to be there works on; the other is launched three times."""
    monkeypatch.setattr("erasebench.engine.remote.LOOK", 0.1)
    monkeypatch.setenv("SIGNS", str(tmp_path / "signs"))
    before = """
import os, pathlib, sys
signs = pathlib.Path(os.environ["SIGNS"])
for k in range(4):
    try:
        (signs / f"begun-{k}").open("x").write("1 0 1")
        break
    except FileExistsError:
        pass
if k:
    sys.exit(3)
"""
    launcher = Here(before)
    assert not run(tmp_path, [cell("a", "meet 3"), cell("b")], launcher, []).failed
    assert sorted(launcher.launched) in ([0, 1, 1, 1], [0, 0, 0, 1])


def test_what_a_worker_wrote_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("12")

    def write() -> None:
        time.sleep(0.3)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "b").write_text("345")

    writer = threading.Thread(target=write)
    writer.start()
    assert see(tmp_path, {"a": 2, "in/b": 3}, seconds=10) == ""
    writer.join()
    assert see(tmp_path, {"a": 2, "in/b": 4}, seconds=0.1) == "in/b"
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "in", "b"}


def test_what_is_not_seen_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose files are lost on their way, once."""
    lost = iter([True])
    monkeypatch.setattr("erasebench.engine.remote.see", lambda *_: "payload" if next(lost, False) else "")
    events: list[Event] = []
    assert not run(tmp_path, [cell("a")], Here(), events, count=1).failed
    (retried,) = [event for event in events if isinstance(event, Retried)]
    assert retried.failure.reason == "its worker wrote payload, which is not seen here"
    assert begun(tmp_path).keys() == {"a"}
    shutil.rmtree(tmp_path)

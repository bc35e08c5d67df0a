"""What many machines do to a store: drivers die, sleep and wake, clocks jump, bytes flip.

Each procedure looks for lost work, for other tables than those of an undisturbed run, and for a word on what was wrong;
and each is shown to find what it looks for, with what should prevent it taken away.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine import leases as leases_module
from erasebench.engine.cells import Cell
from erasebench.engine.doctor import examine
from erasebench.engine.leases import Claim, FolderLeases
from erasebench.engine.ledger import read_ledger
from erasebench.engine.markers import MARKER, Marker, find_marker
from erasebench.engine.runner import Event, Failed, Found, Lost, Started, TakenOver
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from erasebench.files import remove
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.runs import CELLS, copy_of, done, fast_generate, run_tiny, table
from tests.forks import end, fork
from tests.marks import first_quick
from tests.whole.test_kill import count_calls

pytestmark = pytest.mark.usefixtures("fast")
YEAR = 365 * 24 * 3600


def stop() -> None:
    """What a machine that goes to sleep is to the code."""
    os.kill(os.getpid(), signal.SIGSTOP)


def in_the_work(patch: pytest.MonkeyPatch) -> None:
    """The cell itself says so."""


def before_the_commit(patch: pytest.MonkeyPatch) -> None:
    commit = Store._commit

    def slow(self: Store, key: str, partial: Path, marker: Marker, times: dict[str, int]) -> None:
        stop()
        commit(self, key, partial, marker, times)

    patch.setattr(Store, "_commit", slow)


def before_it_has_its_name(patch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def slow(self: Path, target: Path) -> Path:
        if target.parent.parent.name == "cells":
            stop()
        return rename(self, target)

    patch.setattr(Path, "rename", slow)


def after_the_commit(patch: pytest.MonkeyPatch) -> None:
    commit = Store._commit

    def slow(self: Store, key: str, partial: Path, marker: Marker, times: dict[str, int]) -> None:
        commit(self, key, partial, marker, times)
        stop()

    patch.setattr(Store, "_commit", slow)


def overtake(folder: Path, when: Callable[[pytest.MonkeyPatch], None], patch: pytest.MonkeyPatch) -> list[Event]:
    """What a driver does with a cell whose driver falls asleep over it, and wakes up when it is finished."""
    one = cell("one", "stop" if when is in_the_work else "")
    (folder / "signs").mkdir(parents=True)
    store = Store(folder / "store")

    def run(*subscribers: Callable[[Event], None]) -> set[str]:
        own = Store(folder / "store")
        outcome = LocalRunner(FakeWorkshop(own, folder / "signs")).run([one], own, subscribers)
        return set(outcome.failed) or (outcome.computed | set(outcome.costs)) - {one.key}

    def sleeper() -> int:
        events: list[Event] = []
        with pytest.MonkeyPatch.context() as inner:
            when(inner)
            bad = run(events.append)
        return 1 if bad or any(isinstance(event, Failed) for event in events) else 0

    child = fork(sleeper)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    patch.setattr(leases_module, "SILENCE", 0.3)
    events: list[Event] = []
    try:
        assert not run(events.append)
        first = store.folder(one.key).stat().st_ino
    finally:
        os.kill(child, signal.SIGCONT)
        code = end(child)
    assert code == 0, "what the sleeper could not do says nothing of the cell"
    assert store.folder(one.key).stat().st_ino == first, "a finished cell was replaced"
    assert examine(store.root) == [] and (store.read(one.key) / "payload").read_text() == "one 0 []\n"
    return events


@pytest.mark.parametrize("when", [in_the_work, before_the_commit, before_it_has_its_name, after_the_commit])
def test_a_driver_that_slept_does_no_harm_when_it_wakes(
    when: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = overtake(tmp_path, when, monkeypatch)
    if when is not after_the_commit:  # then nothing is left to take over
        (taken,) = [event for event in events if isinstance(event, TakenOver)]
        assert taken.holder.endswith(", silent for 0 s") and taken.holder.startswith("process ")


def test_the_procedure_finds_a_commit_that_replaces_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Store._commit

    def replace(self: Store, key: str, partial: Path, marker: Marker, times: dict[str, int]) -> None:
        aside = partial.with_suffix(".aside")  # which the other does not clear away
        partial.rename(aside)
        if not (self.root / "work" / key).exists():
            self.work(key)
            stop()
        remove(self.folder(key))
        commit(self, key, aside, marker, times)

    monkeypatch.setattr(Store, "_commit", replace)
    with pytest.raises(AssertionError, match="a finished cell was replaced"):
        overtake(tmp_path, in_the_work_of_nobody, monkeypatch)


def in_the_work_of_nobody(patch: pytest.MonkeyPatch) -> None:
    """The commit stops by itself."""


@pytest.mark.parametrize(("what", "workers"), [("raise", 1), ("kill", 2)])
def test_a_driver_that_lost_a_cell_says_so_and_takes_the_result_of_the_other(
    what: str, workers: int, tmp_path: Path
) -> None:
    """What fails is not tried again either, not even if its worker was lost: another run is at it."""
    one = cell("one", what)
    (tmp_path / "signs").mkdir()
    store, other = Store(tmp_path / "store"), Store(tmp_path / "store")
    events = list[Event]()

    def finish(event: Event) -> None:
        events.append(event)
        if isinstance(event, Started):
            (store.root / "leases" / f"{one.key}.json").unlink()
            assert other.leases.claim(one.key).held
        if isinstance(event, Lost):
            with other.writing(one, {"seconds": 1.0}) as folder:
                (folder / "payload").touch()
            other.leases.release(one.key)

    outcome = LocalRunner(FakeWorkshop(store, tmp_path / "signs"), workers).run([one], store, [finish])
    assert not outcome.failed and not outcome.computed and outcome.costs == {one.key: {"seconds": 1.0}}
    assert [type(event) for event in events] == [Started, Lost, Found]


def two_drivers(folder: Path, moment: int, both: float) -> bool:
    """Two runs on one store, of which one is killed at a moment; the other one ends, and so does the first, resumed.

    Args:
        folder: for both.
        moment: of the kill.
        both: seconds for which whoever draws the first images waits for the other one to draw them too.

    Returns:
        Whether the moment came: the other run may have done all that was left before.
    """

    def driver(name: str, dies: bool) -> int:
        def kill(n: int, after: bool) -> None:
            if dies and (n, after) == (moment, True):
                os.kill(os.getpid(), signal.SIGKILL)

        def wait(seconds: float, for_both: str) -> None:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not all((folder / one / for_both).exists() for one in ("a", "b")):
                time.sleep(0.01)

        def slow(cell: Any, session: Any, place: Path) -> dict[str, Any]:
            # No image is drawn before both runs are at work; and if both could draw the first ones, they would.
            wait(60, "out/ledger.jsonl")
            if cell.title == "sd church":
                (folder / name / "drawing").touch()
                wait(both, "drawing")
            return fast_generate(cell, session, place)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("erasebench.stages.generate.run", slow)
            count_calls(patch, kill)
            return run_tiny(folder / name, "--store", folder / "store")

    first, second = fork(lambda: driver("a", True)), fork(lambda: driver("b", False))
    ends = end(first), end(second)
    assert ends[0] in (0, -signal.SIGKILL) and ends[1] == 0
    assert run_tiny(folder / "a", "--store", folder / "store") == 0
    return ends[0] != 0


def computed(folder: Path) -> list[str]:
    """The cells that either run computed, or began and left to the other one."""
    lines = [line for name in ("a", "b") for line in read_ledger(folder / name / "out" / "ledger.jsonl")]
    return [line["cell"] for line in lines if line["event"] in ("ok", "failed", "lost")]


def check_two_drivers(folder: Path, undisturbed: Path, moments: range, both: float = 2) -> None:
    killed = 0
    for moment in moments:
        place = folder / str(moment)
        killed += two_drivers(place, moment, both)
        cells = computed(place)
        assert len(cells) == len(set(cells)), "work was done twice"
        assert len(Store(place / "store").cells()) == CELLS and examine(place / "store") == []
        assert table(place / "a") == table(place / "b") == table(undisturbed)
    assert killed, "all kills came too late"


def test_of_two_drivers_one_may_be_killed_at_any_moment(fast_run: Path, tmp_path: Path) -> None:
    check_two_drivers(tmp_path, fast_run, range(30, 76, 45))


@pytest.mark.slow
def test_the_procedure_finds_drivers_without_leases(
    fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = FolderLeases.claim

    def careless(self: FolderLeases, name: str) -> Claim:
        claim(self, name)
        return Claim(True)

    monkeypatch.setattr(FolderLeases, "claim", careless)
    with pytest.raises(AssertionError, match="work was done twice"):
        check_two_drivers(tmp_path, fast_run, range(90, 91), both=60)


def a_payload(folder: Path, draw: random.Random) -> tuple[str, Path]:
    """A cell of a run, and one of its files."""
    store = Store(folder / "store")
    key = draw.choice(store.cells())
    marker = store.marker(key)
    assert marker
    names = [name for name, (size, _) in sorted(marker.files.items()) if size]
    return key, store.folder(key) / draw.choice(names)


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def check_flipped_bytes(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str], jump: bool) -> None:
    """Flip a byte anywhere: the cell is named, computed again, and no other; where a clock jumped too."""
    draw = random.Random(3)
    for k in range(2):
        place = copy_of(finished, folder / str(k))
        key, path = a_payload(place, draw)
        flip(path, draw)
        if jump:
            # What is written after a clock was put back is older than the notes of what was written before.
            for other in (place / "store" / "cells").rglob("*"):
                if other.name != "verified.json":
                    back = other.stat().st_mtime - YEAR * (1 + draw.random())
                    os.utime(other, (back, back))
        capsys.readouterr()
        assert run_tiny(place) == 0
        said = capsys.readouterr().err.splitlines()
        assert [line["cell"] for line in done(place)] == [key], "a flipped byte went unnoticed"
        (corrupt,) = done(place, "corrupt")
        assert f"{path.name} is not what was written" in corrupt["reason"]
        assert f"{corrupt['stage']} {corrupt['title']} {corrupt['reason']}; it is computed again" in said
        assert table(place) == table(finished) and examine(place / "store") == []
        shutil.rmtree(place)


@pytest.mark.parametrize("jump", first_quick([True, False]))
def test_a_flipped_byte_is_named_and_mended_whatever_the_clock_does(
    jump: bool, fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_flipped_bytes(fast_run, tmp_path, capsys, jump)


def test_the_procedure_finds_files_that_are_trusted_by_their_age(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(folder: Path, marker: Marker) -> bool:
        noted = (folder / "verified.json").stat().st_mtime_ns
        return all((folder / name).stat().st_mtime_ns < noted for name in marker.files)

    monkeypatch.setattr("erasebench.engine.store.is_verified", older)
    with pytest.raises(AssertionError, match="a flipped byte went unnoticed"):
        check_flipped_bytes(fast_run, tmp_path, capsys, jump=True)


def check_clock_that_jumps(undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every time that a run is told, or a file gets, is another one, by up to twenty years."""
    draw, real = random.Random(4), time.time
    monkeypatch.setattr(time, "time", lambda: real() + YEAR * draw.uniform(-20, 20))
    written, commit = list[Path](), Store._commit

    def jumped(self: Store, key: str, partial: Path, marker: Marker, times: dict[str, int]) -> None:
        for path in partial.rglob("*"):
            moment = time.time()
            os.utime(path, (moment, moment))
        times = {name: (partial / name).stat().st_mtime_ns for name in times}  # as if they had been written then
        commit(self, key, partial, marker, times)
        written.append(self.folder(key) / MARKER)

    monkeypatch.setattr(Store, "_commit", jumped)
    assert run_tiny(folder) == 0 and len(written) == CELLS
    assert run_tiny(folder) == 0 and done(folder) == [], "finished work was done again"
    assert table(folder) == table(undisturbed) and examine(folder / "store") == []


def test_a_run_under_a_clock_that_jumps_is_the_same_run(
    fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_clock_that_jumps(fast_run, tmp_path, monkeypatch)


def test_the_procedure_finds_cells_that_are_judged_by_their_age(
    fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def like_make(key: str, folder: Path) -> Marker | str:
        """Whatever was made of something has to be newer."""
        found = find_marker(key, folder)
        if isinstance(found, str):
            return found
        changed = max((folder / name).stat().st_mtime for name in found.files)
        return found if (folder / MARKER).stat().st_mtime >= changed else "is older than what it is of"

    monkeypatch.setattr("erasebench.engine.store.find_marker", like_make)
    with pytest.raises(AssertionError):
        check_clock_that_jumps(fast_run, tmp_path, monkeypatch)


def kinds_of_files(folder: Path) -> dict[str, list[Path]]:
    """By its name one of the files of a store of that name, and all files of the run folder; none that is empty."""
    kinds: dict[str, list[Path]] = {"the run folder": []}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        if path.is_relative_to(folder / "store"):
            kinds.setdefault(path.name, [path])
        else:
            kinds["the run folder"].append(path)
    return kinds


def check_flipped_kinds(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Flip a byte of one file of each kind, and run again; returns those of which that is said to be an error."""
    draw, refused = random.Random(5), []
    for kind, paths in kinds_of_files(finished).items():
        place = copy_of(finished, folder / "copy")
        for path in paths:
            flip(place / path.relative_to(finished), draw)
        capsys.readouterr()
        code = run_tiny(place)
        if code == 0:
            assert table(place) == table(finished) and examine(place / "store") == [], f"{kind} changed the run"
        else:
            assert code == 2 and kind in capsys.readouterr().err.splitlines()[-1], f"{kind}: exit code {code}"
            refused.append(kind)
        shutil.rmtree(place)
    return refused


def test_a_flipped_byte_in_any_kind_of_file_changes_no_table(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(kinds_of_files(fast_run)["the run folder"]) > 10
    assert check_flipped_kinds(fast_run, tmp_path, capsys) == ["store.json"]


def test_the_procedure_finds_a_store_that_looks_at_no_bytes(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.engine.store.is_verified", lambda folder, marker: True)
    with pytest.raises(AssertionError, match="changed the run"):
        check_flipped_kinds(fast_run, tmp_path, capsys)


def test_a_key_is_all_that_two_stores_need_to_have_in_common(tmp_path: Path) -> None:
    """Of two who commit one cell, whoever is first stays, whatever the other one has."""
    one = Cell("fake", {"title": "one"})
    first, second = Store(tmp_path / "store"), Store(tmp_path / "store")
    with second.writing(one, {"seconds": 2.0}) as theirs:
        (theirs / "payload").write_text("second")
        with first.writing(one, {"seconds": 1.0}) as ours:
            (ours / "payload").write_text("first")
            kept = theirs.rename(theirs.with_name("kept"))  # or it would be cleared away
        kept.rename(theirs)
    marker = first.marker(one.key)
    assert marker and marker.cost == {"seconds": 1.0}
    assert (first.read(one.key) / "payload").read_text() == "first" and examine(first.root) == []

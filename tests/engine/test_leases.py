from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from erasebench.engine import leases as module
from erasebench.engine.leases import FolderLeases, Lease
from tests.engine.takeovers import Clock, beats_of, check_taken_over_when_silent, claim_at_once, is_taken_within
from tests.forks import end, fork

NAME = "ab12"
YEAR = 365 * 24 * 3600


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life, and silence, in fractions of a second."""
    monkeypatch.setattr(module, "BEAT", 0.02)
    monkeypatch.setattr(module, "SILENCE", 0.3)


def edit(folder: Path, **facts: object) -> None:
    """Have a lease say something else of its holder."""
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def killed(folder: Path, name: str = NAME) -> int:
    """The number of a process that was killed while it held a lease, and whose parent knows."""

    def hold_and_die() -> None:
        FolderLeases(folder).claim(name)
        os.kill(os.getpid(), signal.SIGKILL)

    child = fork(hold_and_die)
    end(child)
    return child


def test_a_lease_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    one, other = FolderLeases(tmp_path), FolderLeases(tmp_path)
    assert one.claim(NAME) == module.Claim(True)
    assert not one.claim(NAME).held and not other.claim(NAME).held
    assert f"process {os.getpid()} on " in other.claim(NAME).other
    assert one.holds(NAME) and not other.holds(NAME)
    other.release(NAME)
    assert one.holds(NAME), "who does not hold it cannot give it back"
    with other.holding("another") as held, one.holding("another") as twice:
        assert held and not twice
    one.release(NAME)
    assert other.claim(NAME).held
    other.release(NAME)
    assert not any(tmp_path.iterdir())


def test_who_waits_gets_it(tmp_path: Path) -> None:
    one, other = FolderLeases(tmp_path), FolderLeases(tmp_path)
    one.claim(NAME)
    threading.Timer(0.2, one.release, (NAME,)).start()
    with other.holding(NAME, wait=True) as held:
        assert held


def test_the_lease_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path: Path) -> None:
    process = killed(tmp_path)
    (seen,) = FolderLeases(tmp_path).seen()
    claim = FolderLeases(tmp_path).claim(NAME)
    assert claim.held and claim.other == f"{seen}, which has ended" and f"process {process} on " in claim.other


def test_a_number_that_another_process_has_by_now_deceives_nobody(tmp_path: Path) -> None:
    FolderLeases(tmp_path).claim(NAME)
    assert not FolderLeases(tmp_path).claim(NAME).held
    edit(tmp_path, started="1")
    assert FolderLeases(tmp_path).claim(NAME).held


def test_a_process_of_another_machine_is_not_looked_for_here(tmp_path: Path) -> None:
    process = killed(tmp_path)
    edit(tmp_path, machine="another")
    claim = FolderLeases(tmp_path).claim(NAME)
    assert not claim.held and f"process {process} on " in claim.other


@pytest.mark.usefixtures("quick")
def test_a_lease_of_another_machine_is_taken_over_when_it_is_silent_and_no_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, watcher = FolderLeases(tmp_path), FolderLeases(tmp_path)
    check_taken_over_when_silent(holder, watcher, NAME, lambda: edit(tmp_path, machine="another"), monkeypatch)


@pytest.mark.usefixtures("quick")
def test_who_looks_for_the_first_time_has_not_watched(tmp_path: Path) -> None:
    killed(tmp_path)
    edit(tmp_path, machine="another")
    os.utime(tmp_path / f"{NAME}.json", (1, 1))
    time.sleep(0.4)
    assert not FolderLeases(tmp_path).claim(NAME).held


def jumping(folder: Path, watcher: FolderLeases) -> None:
    """A living holder whose clock jumps, and a dead one whose clock ran ahead."""
    holder = FolderLeases(folder)
    holder.claim(NAME)
    edit(folder, machine="another")
    for k in range(100):
        now = time.time() + (-1) ** k * YEAR * (k % 7)
        os.utime(folder / f"{NAME}.json", (now, now))
        assert not watcher.claim(NAME).held, "a living holder lost its lease"
        time.sleep(0.005)
    holder._stop.set()
    ahead = time.time() + YEAR
    os.utime(folder / f"{NAME}.json", (ahead, ahead))
    assert is_taken_within(5.0, watcher, NAME), "a dead holder keeps its lease"


@pytest.mark.usefixtures("quick")
def test_no_clock_that_jumps_gives_or_takes_a_lease(tmp_path: Path) -> None:
    jumping(tmp_path, FolderLeases(tmp_path))


@pytest.mark.usefixtures("quick")
def test_the_procedure_finds_a_watcher_that_compares_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: FolderLeases, lease: Lease) -> str:
        return "silent" if time.time() - int(lease.changed) / 1e9 > module.SILENCE else ""

    monkeypatch.setattr(FolderLeases, "_silent", silent)
    with pytest.raises(AssertionError, match="a living holder lost its lease"):
        jumping(tmp_path, FolderLeases(tmp_path))


def overtaken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FolderLeases, FolderLeases]:
    """Two who take over the same lease: the second one wholly, when the first is just about to."""
    killed(folder)
    first, second = FolderLeases(folder), FolderLeases(folder)
    drop = FolderLeases.drop

    def overtake(self: FolderLeases, lease: Lease) -> None:
        monkeypatch.setattr(FolderLeases, "drop", drop)
        assert second.claim(NAME).held
        drop(self, lease)

    monkeypatch.setattr(FolderLeases, "drop", overtake)
    first.claim(NAME)
    return first, second


def test_two_who_take_over_a_lease_cannot_both_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = overtaken(tmp_path, monkeypatch)
    assert not first.holds(NAME) and second.holds(NAME)
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.json"]


def test_the_procedure_finds_a_take_over_without_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderLeases, "drop", lambda self, lease: self._path(lease.name).unlink(missing_ok=True))
    first, second = overtaken(tmp_path, monkeypatch)
    assert first.holds(NAME) and not second.holds(NAME) and NAME in second._held


def test_of_many_who_claim_an_abandoned_lease_at_once_one_gets_it(tmp_path: Path) -> None:
    for k in range(20):
        folder = tmp_path / str(k)
        folder.mkdir()
        killed(folder)
        _, holding = claim_at_once([FolderLeases(folder) for _ in range(8)], NAME)
        assert holding == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 100_000, '{"owner": 1}', json.dumps(dict.fromkeys(("owner", "host"), "x"))]
)
def test_a_lease_that_was_cut_short_is_taken_over_when_it_is_silent(text: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.json").write_text(text)
    watcher = FolderLeases(tmp_path)
    assert watcher.claim(NAME) == module.Claim(False, "an unknown process")
    assert is_taken_within(5.0, watcher, NAME)


def test_what_no_run_can_have_made_gives_way(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.json"
    stand: list[Callable[[], object]] = [
        path.mkdir,
        lambda: path.symlink_to(path),
        lambda: path.symlink_to(tmp_path / "nowhere"),
        lambda: path.symlink_to(tmp_path),
        lambda: os.mkfifo(path),
    ]
    for make in stand:
        make()
        with FolderLeases(tmp_path).holding(NAME) as held:
            assert held


@pytest.mark.usefixtures("quick")
def test_a_survey_tells_the_living_from_the_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere, mine = FolderLeases(tmp_path), FolderLeases(tmp_path), FolderLeases(tmp_path)
    killed(tmp_path)
    (tmp_path / f"{NAME}.json").rename(tmp_path / "dead.json")
    killed(tmp_path)
    edit(tmp_path, machine="another")
    (tmp_path / f"{NAME}.json").rename(tmp_path / "silent.json")
    elsewhere.claim(NAME)
    edit(tmp_path, machine="another")
    here.claim("here")
    mine.claim("mine")
    Clock(monkeypatch, meanwhile=beats_of(elsewhere, monkeypatch))
    alive, abandoned = mine.survey()
    assert sorted(lease.name for lease in alive) == [NAME, "here"]
    assert {lease.name: holder.partition(", ")[2] for lease, holder in abandoned.items()} == {
        "dead": "which has ended",
        "silent": "silent for 0 s",
    }
    assert capsys.readouterr().err.startswith("watching for 0 s at most whether process ")
    for lease in abandoned:
        mine.drop(lease)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [NAME, "here", "mine"]
    for leases, name in ((here, "here"), (elsewhere, NAME), (mine, "mine")):
        leases.release(name)


def test_a_survey_of_this_machine_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(tmp_path)
    Clock(monkeypatch, meanwhile=lambda: pytest.fail("it waits"))
    with FolderLeases(tmp_path).holding("alive"):
        alive, abandoned = FolderLeases(tmp_path).survey()
        assert [lease.name for lease in alive] == ["alive"] and [lease.name for lease in abandoned] == [NAME]


def test_a_lease_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: object, **options: object) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_text", full)
        FolderLeases(tmp_path).claim(NAME)
    assert not any(tmp_path.iterdir())


def test_another_process_has_leases_of_its_own(tmp_path: Path) -> None:
    one = FolderLeases(tmp_path)
    with one.holding(NAME):
        copy = pickle.loads(pickle.dumps(one))
        assert copy.folder == tmp_path and copy.owner != one.owner and not copy.holds(NAME)


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FolderLeases(tmp_path).holding(NAME):
        (beating,) = set(threading.enumerate()) - before
    beating.join(5)
    assert not beating.is_alive()


def test_a_lease_costs_less_than_a_millisecond(tmp_path: Path) -> None:
    """Of a processor: other programs take from the rest."""
    leases = FolderLeases(tmp_path)
    with leases.holding("run"):
        times = []
        for k in range(300):
            began = time.process_time()
            assert leases.claim(f"{k}").held
            leases.release(f"{k}")
            times.append(time.process_time() - began)
        assert sorted(times)[150] < 1e-3

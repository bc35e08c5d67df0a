"""Ray for real: a cluster of this machine with two processors."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import ray

from erasebench.engine.cells import Cell
from erasebench.engine.ray import OBJECT_STORE, RayRunner, check_ray
from erasebench.engine.runner import Event, Finished, Joined, Outcome, Retried
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.runs import CELLS, TINY, copy_of, done, load_once, places, run_tiny, table
from tests.engine.test_workers import ROOT, begun, check_nothing_is_left, matrix, wait_until_gone
from tests.whole.test_hangs import Clock, check_hang, impatient

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's sockets and logs


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests, since it takes seconds to start: a runner uses the one that its process is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the workers' tests are here
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        connect: Any = ray.init
        connect(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


def run(folder: Path, cells: Sequence[Cell], events: list[Event], workers: int = 2) -> Outcome:
    (folder / "signs").mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store")
    return RayRunner(FakeWorkshop(store, folder / "signs"), workers).run(cells, store, [events.append])


def test_actors_compute_what_processes_compute(cluster: None, tmp_path: Path) -> None:
    """Parts, batches, a failure, two that wait for each other, and actors that are killed in the middle of a cell."""
    cells = [
        cell("one", "meet other"),
        cell("other", "meet one"),
        *matrix(),
        cell("bad", "raise"),
        cell("dies", "die 2", units=6, part=2),
    ]
    cells += [cell(f"batch {k}", batch="some") for k in range(5)]
    events: list[Event] = []
    outcome = run(tmp_path, cells, events)
    assert [cell.title for cell in cells if cell.key in outcome.failed] == ["bad"]
    assert len(outcome.computed) == len(cells) - 1
    assert [event.failure.error for event in events if isinstance(event, Retried)] == ["ConnectionLost"] * 2
    processes = begun(tmp_path)
    assert {number for _, number, _ in processes.values()} == {"0", "1"}
    assert {threads for *_, threads in processes.values()} == {"1"}
    assert str(os.getpid()) not in {process for process, *_ in processes.values()}
    # Two that were there, and those that took the places of the killed.
    assert 2 <= sum(isinstance(event, Joined) for event in events) <= 4
    for one in cells:
        if one.title.startswith(("second", "dies", "batch")):
            payload = (Store(tmp_path / "store").read(one.key) / "payload").read_text()
            assert payload == "".join(f"{one.title} {k} []\n" for k in range(one.units))
    wait_until_gone(tmp_path)
    check_nothing_is_left(tmp_path)


def test_an_actor_that_hangs_is_killed(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hire(folder: Path, cells: Sequence[Cell], clock: Clock, patience: float | None) -> Outcome:
        (folder / "signs").mkdir(parents=True, exist_ok=True)
        store = Store(folder / "store")
        runner = RayRunner(FakeWorkshop(store, folder / "signs"), 1, patience=patience)
        return runner.run(cells, store, [clock.tell])

    check_hang(tmp_path, "hang", hire, Clock(impatient), 900, monkeypatch)


def test_an_interrupt_ends_every_actor(cluster: None, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    (tmp_path / "signs").mkdir()
    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        RayRunner(FakeWorkshop(store, tmp_path / "signs"), 2).run(
            [cell("long", "sleep"), cell("short", "meet long")], store, [interrupt]
        )
    wait_until_gone(tmp_path)
    check_nothing_is_left(tmp_path)


def test_more_workers_than_the_cluster_has_room_for(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="the Ray cluster has 2 CPUs, and 3 workers need one each"):
        run(tmp_path, [cell("a")], [], workers=3)


@pytest.mark.slow
def test_a_run_on_ray_gives_the_very_table(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver is killed, and it goes on, on Ray and without.  It takes a while: five processes load."""
    load_once(monkeypatch)
    ledger = tmp_path / "killed" / "out" / "ledger.jsonl"
    arguments = [str(text) for text in (*TINY, *places(tmp_path / "killed"), "--runner", "ray", "--workers", "2")]
    driver = subprocess.Popen(
        [sys.executable, "-m", "erasebench", "run", *arguments], stderr=subprocess.DEVNULL, process_group=0
    )

    def kill() -> None:
        while not ledger.exists() or ledger.read_text().count('"ok"') < 2:
            if driver.poll() is not None:
                return
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)

    killing = Thread(target=kill, daemon=True)
    killing.start()
    assert run_tiny(tmp_path / "local") == 0
    killing.join(300)
    assert not killing.is_alive() and driver.wait() == -signal.SIGKILL
    copy_of(tmp_path / "killed", tmp_path / "resumed")
    for folder, options in ((tmp_path / "killed", ()), (tmp_path / "resumed", ("--runner", "ray", "--workers", "2"))):
        assert list((folder / "store" / "work").glob("run-*")), "what its workers needed is left"
        assert run_tiny(folder, *options) == 0
        assert not list((folder / "store" / "work").glob("run-*"))
        assert 0 < len(done(folder)) < CELLS, "the kill came too late"
        assert table(folder) == table(tmp_path / "local")


def test_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.ray.find_spec", lambda name: None)
    with pytest.raises(EraseBenchError, match="needs Ray; install it: pip install"):
        check_ray(None)


@pytest.mark.parametrize("address", ["head", "head:port", "ray://head:10001", "head:99999", ":6379"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(EraseBenchError, match=f"'{address}' is no address of a Ray cluster; write host:port"):
        check_ray(address)


def test_no_cluster_that_this_machine_is_part_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        assert options["address"] == "auto"
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to by ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    store = Store(tmp_path / "store")
    with pytest.raises(EraseBenchError, match="no Ray cluster is running that this machine is part of; run on one of"):
        RayRunner(FakeWorkshop(store, tmp_path), 1, "auto").run([cell("a")], store, [])
    assert not Store(tmp_path / "store").cells()


@pytest.mark.slow
def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EraseBenchError, match=f"no Ray cluster answers at 127.0.0.1:{port}: .*refused"):
        check_ray(f"127.0.0.1:{port}")

"""The runner, on stages that take no time."""

from __future__ import annotations

import csv
import errno
import io
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from erasebench.config import make_config, read_layer
from erasebench.engine.estimate import estimate
from erasebench.engine.ledger import Ledger, read_ledger
from erasebench.engine.markers import MARKER
from erasebench.engine.progress import Progress
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from erasebench.runs import run
from erasebench.stages.session import Session
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.runs import CELLS, command, copy_of, done, fast_generate, places, run_tiny, table
from tests.forks import end, fork
from tests.marks import first_quick
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("fast")


def rows(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    text = (folder / "out" / "table.csv").read_text(encoding="utf-8")
    return {(row["method"], row["concept"]): row for row in csv.DictReader(io.StringIO(text))}


def finished(folder: Path) -> set[str]:
    store = Store(folder / "store")
    return {key for key in store.cells() if store.verify(key) is None}


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("this must not be called")


def test_each_cell_is_computed_once_and_said_so(fast_run: Path) -> None:
    lines = done(fast_run)
    assert [line["event"] for line in lines] == ["ok"] * CELLS
    assert len({line["cell"] for line in lines}) == CELLS
    assert finished(fast_run) == {line["cell"] for line in lines}
    assert all(line["seconds"] >= 0 and line["peak_memory_mb"] > 0 for line in lines)
    assert not any((fast_run / "store" / "work").iterdir())


def test_the_same_command_again_computes_and_loads_nothing(
    fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    for name in ("load_model", "Session.judge"):
        monkeypatch.setattr(f"erasebench.stages.session.{name}", refuse)
    assert run_tiny(tmp_path) == 0
    assert done(tmp_path) == []
    assert f"{CELLS} cells: 0 computed, {CELLS} from the store" in capsys.readouterr().err
    assert table(tmp_path) == table(fast_run)


def test_run_yaml_is_the_run(fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of(fast_run, tmp_path)
    monkeypatch.setattr("erasebench.stages.session.load_model", refuse)
    assert command("run", "--config", fast_run / "out" / "run.yaml", *places(tmp_path)) == 0
    assert done(tmp_path) == []
    assert table(tmp_path) == table(fast_run)
    before = (fast_run / "out" / "run.yaml").read_text().replace(str(fast_run), "F")
    assert (tmp_path / "out" / "run.yaml").read_text().replace(str(tmp_path), "F") == before


def test_a_corrupt_cell_is_computed_again_and_no_other(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    key = next(line["cell"] for line in done(fast_run) if line["title"] == "uce church" and line["stage"] == "generate")
    payload = tmp_path / "store" / "cells" / key[:2] / key / "images.zip"
    data = bytearray(payload.read_bytes())
    data[100] ^= 1
    payload.write_bytes(bytes(data))
    assert run_tiny(tmp_path) == 0
    corrupt, ok = done(tmp_path, "corrupt", "ok")
    assert (corrupt["event"], corrupt["cell"], ok["event"], ok["cell"]) == ("corrupt", key, "ok", key)
    assert "images.zip" in corrupt["reason"]
    assert "[1/1] generate uce church: ok" in capsys.readouterr().err
    assert table(tmp_path) == table(fast_run) and len(finished(tmp_path)) == CELLS


def test_a_failed_cell_takes_only_its_row_and_is_tried_again(
    fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cell: Any, session: Session, folder: Path) -> dict[str, Any]:
        if cell.title == "uce church":
            (folder / "half").write_bytes(b"x")
            raise ValueError("first line\nno such picture")
        return fast_generate(cell, session, folder)

    with monkeypatch.context() as patch:
        patch.setattr("erasebench.stages.generate.run", fail)
        assert run_tiny(tmp_path) == 3
    found = rows(tmp_path)
    assert [(key[0], row["status"], row["reason"]) for key, row in found.items()] == [
        ("sd", "ok", ""),
        ("negative-prompt", "ok", ""),
        ("uce", "failed", "ValueError: first line no such picture"),
    ]
    first, needs = done(tmp_path, "failed")
    assert 'raise ValueError("first line\\nno such picture")' in first["traceback"]
    assert needs["stage"] == "judge" and needs["reason"] == "needs generate uce church, which failed"
    assert len(done(tmp_path, "ok")) == len(finished(tmp_path)) == CELLS - 2
    assert "failed" in (tmp_path / "out" / "table.md").read_text()
    assert run_tiny(tmp_path) == 0
    assert [line["event"] for line in done(tmp_path)] == ["ok", "ok"]
    assert table(tmp_path) == table(fast_run)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "safetensors"],
)
def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(cell: Any, session: Session, folder: Path) -> dict[str, Any]:
        if cell.title == "negative-prompt church":
            raise error
        return fast_generate(cell, session, folder)

    with monkeypatch.context() as patch:
        patch.setattr("erasebench.stages.generate.run", full)
        assert run_tiny(tmp_path) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: the disk of the store ") and "is full; free some space" in message
    kept = finished(tmp_path)
    assert len(kept) == len(done(tmp_path, "ok")) == 6 and not Store(tmp_path / "store").leftovers()
    assert run_tiny(tmp_path) == 0
    assert len(done(tmp_path, "ok")) == CELLS - 6


def test_a_disk_that_fills_up_in_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        if path.name == MARKER:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("erasebench.engine.store.write_durably", full)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text('{"format": 1}')
    assert run_tiny(tmp_path) == 2
    assert "is full; free some space" in capsys.readouterr().err
    assert not finished(tmp_path)


def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(cell: Any, session: Session, folder: Path) -> dict[str, Any]:
        if cell.title == "sd retain":
            raise KeyboardInterrupt
        return fast_generate(cell, session, folder)

    with monkeypatch.context() as patch:
        patch.setattr("erasebench.stages.generate.run", interrupt)
        assert run_tiny(tmp_path) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    assert len(finished(tmp_path)) == 3 and not Store(tmp_path / "store").leftovers()
    assert run_tiny(tmp_path) == 0
    assert len(done(tmp_path, "ok")) == CELLS - 3


def test_a_broken_model_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any) -> None:
        from erasebench import EraseBenchError

        raise EraseBenchError("diffusers cannot load it")

    monkeypatch.setattr("erasebench.stages.session.load_model", broken)
    assert run_tiny(tmp_path) == 2
    assert capsys.readouterr().err == "error: diffusers cannot load it\n"


def test_two_runs_on_one_store_share_the_work(fast_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(cell: Any, session: Session, folder: Path) -> dict[str, Any]:
        # No image is drawn before both runs are at work.
        ledgers = [tmp_path / name / "out" / "ledger.jsonl" for name in ("a", "b")]
        wait_until(lambda: all(ledger.exists() for ledger in ledgers), "one does not begin")
        time.sleep(0.02)
        return fast_generate(cell, session, folder)

    monkeypatch.setattr("erasebench.stages.generate.run", slow)
    children = [fork(partial(run_tiny, tmp_path / name, "--store", tmp_path / "store")) for name in ("a", "b")]
    assert [end(child) for child in children] == [0, 0]
    computed = [
        line["cell"]
        for name in ("a", "b")
        for line in read_ledger(tmp_path / name / "out" / "ledger.jsonl")
        if line["event"] in ("ok", "failed")
    ]
    assert len(computed) == len(set(computed)) == CELLS
    assert table(tmp_path / "a") == table(tmp_path / "b") == table(fast_run)


def test_a_run_says_that_it_waits_for_another(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    store = Store(tmp_path / "store")
    key = next(line["cell"] for line in done(fast_run) if line["title"] == "uce church" and line["stage"] == "generate")
    store.folder(key).rename(tmp_path / "elsewhere")
    assert store.leases.claim(key).held

    class Terminal(io.StringIO):
        """The other run ends when this one says that it waits."""

        def write(self, text: str) -> int:
            if "waiting" in text:
                (tmp_path / "elsewhere").rename(store.folder(key))
                store.leases.release(key)
            return super().write(text)

    stream = Terminal()
    config = make_config(read_layer(tmp_path / "out" / "run.yaml"), {"store": store.root, "out": tmp_path / "out"})
    assert run(config, stream).outcome.computed == set()
    who = f"process {os.getpid()} on {socket.gethostname()}"
    assert stream.getvalue() == f"waiting for {who} at generate uce church\n"
    assert table(tmp_path) == table(fast_run)


def test_an_amended_run_computes_only_what_is_new(fast_run: Path, tmp_path: Path) -> None:
    copy_of(fast_run, tmp_path)
    assert run_tiny(tmp_path, "--methods", "uce,negative-prompt,uce[lamb=0.3]") == 0
    assert {line["title"].partition(" ")[0] for line in done(tmp_path, "ok")} == {"uce[lamb=0.3]"}
    assert len(done(tmp_path)) == 5
    begun = [line for line in read_ledger(tmp_path / "out" / "ledger.jsonl") if line["event"] == "run"][-1]
    assert begun["already_there"] == begun["cells"] - 5 == CELLS
    assert list(rows(tmp_path)) == [(m, "church") for m in ("sd", "uce", "negative-prompt", "uce[lamb=0.3]")]
    assert run_tiny(tmp_path) == 0
    assert done(tmp_path) == [] and table(tmp_path) == table(fast_run)


def test_cells_of_a_reference_are_in_the_costs(fast_run: Path) -> None:
    text = (fast_run / "out" / "costs.csv").read_text()
    assert text.count("\n") == 1 + CELLS


@pytest.mark.parametrize(("number", "limit"), first_quick([(300, 1.0), (1000, 2.0)]))
def test_a_thousand_finished_cells_are_found_in_two_seconds(number: int, limit: float, tmp_path: Path) -> None:
    """Seconds of a processor: other programs take from the rest."""
    (tmp_path / "signs").mkdir()
    (tmp_path / "out").mkdir()
    cells = [cell("base")]
    cells += [cell(f"{k}", base=cells[0]) for k in range(1, number)]
    for seconds in (60.0, 60.0, limit):  # the second time files are read whose times are those of their notes
        store = Store(tmp_path / "store")
        ledger = Ledger(tmp_path / "out" / "ledger.jsonl")
        progress = Progress(cells, io.StringIO())
        began = time.process_time()
        outcome = LocalRunner(FakeWorkshop(store, tmp_path / "signs")).run(cells, store, [ledger, progress])
        assert time.process_time() - began < seconds
        ledger.close()
        assert len(outcome.costs) == number
    assert not outcome.computed
    began = time.process_time()
    assert estimate([cell("new")], [store])[0].startswith("about ")
    assert time.process_time() - began < 2

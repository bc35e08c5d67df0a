"""A worker at the other end of a connection, here in a thread; processes are in ``test_workers.py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from erasebench.engine.runner import Report
from erasebench.engine.work import Failure, Task
from erasebench.engine.worker import At, Ready, WhereAreYou, work_for
from tests.engine.fake import FakeWorkshop, cell, wait_for


@contextmanager
def worker(number: int = 0, **options: Any) -> Iterator[Connection]:
    """The connection to a worker, which has ended afterwards."""
    here, there = Pipe()
    thread = Thread(target=work_for, args=(there, number), kwargs=options, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        here.send(None)  # whatever became of the test: a closed connection would end this process
        thread.join(timeout=20)
        assert not thread.is_alive()


def receive(connection: Connection) -> Any:
    assert connection.poll(20)
    return connection.recv()


def task(folder: Path, title: str, act: str = "") -> Task:
    return Task((cell(title, act),), None, (folder / title,))


def test_one_task_after_the_other_until_there_is_nothing_more(workshop: FakeWorkshop, tmp_path: Path) -> None:
    with worker(7) as connection:
        connection.send(workshop)
        ready = receive(connection)
        assert isinstance(ready, Ready) and ready.hardware == "a processor" and ready.process.startswith("process ")
        for each in (task(tmp_path, "one"), task(tmp_path, "two", "raise"), None):
            connection.send(each)
        assert receive(connection) == (1, 1, "lines"), "how far it is"
        [cost] = receive(connection)
        assert cost["lines"] == 1
        failure = receive(connection)
        assert isinstance(failure, Failure) and failure.reason == "ValueError: it cannot be done"
    assert (tmp_path / "one" / "payload").read_text() == "one 0 []\n"
    assert (tmp_path / "signs" / "begun-one").read_text().split()[1] == "7"


def test_the_answer_is_what_the_other_end_wants(workshop: FakeWorkshop, tmp_path: Path) -> None:
    def answer(done: Task, report: Report) -> object:
        return done.cells[0].title, not isinstance(report, Failure)

    with worker(answer=answer) as connection:
        connection.send(workshop)
        receive(connection)
        connection.send(task(tmp_path, "one", "raise"))
        assert receive(connection) == ("one", False)


def test_who_is_asked_where_it_is_says_its_calls_while_it_works(workshop: FakeWorkshop, tmp_path: Path) -> None:
    with worker() as connection:
        connection.send(workshop)
        receive(connection)
        connection.send(task(tmp_path, "one", "hang"))
        wait_for(tmp_path / "signs" / "hung", "it does not hang")
        connection.send(WhereAreYou())
        at = receive(connection)
        assert isinstance(at, At)
        functions = [call.rpartition(" ")[2] for call in at.calls]
        assert functions.index("act") < functions.index("do") < functions.index("work_for"), "the innermost first"
        assert any(call.startswith("tests.engine.fake:") for call in at.calls)
        (tmp_path / "signs" / "let-go").touch()
        assert receive(connection) == (1, 1, "lines")


def test_a_workshop_that_cannot_be_opened_is_a_fatal_failure(workshop: FakeWorkshop) -> None:
    (workshop.signs / "closed").touch()
    with worker() as connection:
        connection.send(workshop)
        failure = receive(connection)
        assert isinstance(failure, Failure) and failure.fatal and "a plug-in cannot be loaded" in failure.reason


def test_a_connection_that_closes_before_anything_came_is_no_error() -> None:
    here, there = Pipe()
    here.close()
    work_for(there, 0)
    there.close()

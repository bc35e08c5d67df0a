"""Cells that are being computed: the folders of their tries, what they cost, and how they are given up."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.jobs import Begun, Job
from erasebench.engine.store import Store
from erasebench.engine.work import Task
from tests.engine.fake import cell

ONE = cell("one")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def begin(store: Store) -> Begun:
    assert store.leases.claim(ONE.key).held
    stack, cost = ExitStack(), dict[str, Any]()
    folder = stack.enter_context(store.writing(ONE, cost))
    return Begun(ONE, stack, folder, cost, lambda: store.leases.release(ONE.key))


def test_no_two_tries_share_a_folder_and_none_is_taken_for_a_cell(store: Store) -> None:
    begun = begin(store)
    tries = [begun.new_try() for _ in range(3)]
    assert len({begun.folder, *tries}) == 4 and tries == begun.tries
    for folder in tries:
        folder.mkdir()
        (folder / "half").touch()
    assert store.cells() == [] and len(store.leftovers()) >= 3
    begun.abandon()


def test_what_tasks_cost_is_added_up_but_memory_is_the_most_of_one(store: Store) -> None:
    begun = begin(store)
    begun.add_cost({"seconds": 0.1, "peak_memory_mb": None, "images": 3})
    begun.add_cost({"seconds": 0.2, "peak_memory_mb": 700.5, "images": 4})
    begun.add_cost({"seconds": 0.0004, "peak_memory_mb": 300.0, "looks": 1})
    begun.add_cost({"peak_memory_mb": None})
    assert begun.cost == {"seconds": 0.3, "peak_memory_mb": 700.5, "images": 7, "looks": 1}
    begun.abandon()


def test_what_is_abandoned_leaves_nothing_and_can_be_begun_by_others(store: Store) -> None:
    begun = begin(store)
    (begun.folder / "payload").touch()
    begun.new_try().mkdir()
    begun.new_try()  # which nobody has made yet
    begun.abandon()
    assert store.cells() == [] and not store.leftovers()
    other = Store(store.root)
    assert other.leases.claim(ONE.key).held
    other.leases.release(ONE.key)


def test_what_is_closed_is_committed_with_its_cost(store: Store) -> None:
    begun = begin(store)
    (begun.folder / "payload").write_text("whole")
    begun.add_cost({"seconds": 2.0})
    begun.stack.close()
    marker = store.marker(ONE.key)
    assert marker and marker.cost == {"seconds": 2.0} and store.verify(ONE.key) is None
    begun.release()


def test_two_jobs_are_never_one() -> None:
    task = Task((ONE,), None, ())
    assert Job() != Job() and Task((ONE,), None, ()) != task
    job = Job(tasks=[task], done={task: 3})
    assert job.done[task] == 3 and job.running == 0 and job.failure is None

"""Disks that refuse to be written to: full, or for reading only, from any call on that changes them."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.doctor import examine
from erasebench.engine.store import Store
from tests.engine.runs import done, marker_first, run_tiny, table
from tests.marks import some_quick

pytestmark = pytest.mark.usefixtures("fast")
WRITES = ("fsync", "rename", "replace", "mkdir", "link")
"""What may find that there is no room; that files can still be removed is true of full disks."""
SAID = {
    errno.ENOSPC: "is full; free some space and run the same command again",
    errno.EROFS: "Read-only file system; its disk is mounted for reading only; name another place",
}


def refuse(patch: pytest.MonkeyPatch, code: int, first: int) -> list[int]:
    """Have writes fail from one on, counted from 0; the list holds how many there were."""
    seen = [0]

    def failing(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] > first:
                raise OSError(code, os.strerror(code), *args[:1])
            return write(*args, **kwargs)

        return call

    for name in WRITES:
        patch.setattr(os, name, failing(getattr(os, name)))
    return seen


def check_refused(folder: Path, undisturbed: Path, code: int, first: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk refuses from one write on: that is said, nothing passes for finished that is not, and the run goes on."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, code, first)
        ended = run_tiny(folder)
    said = capsys.readouterr().err.splitlines()[-1]
    assert ended == 2 and SAID[code] in said, f"it is not said: exit code {ended}, {said}"
    finished: set[str] = set()
    if (folder / "store" / "store.json").exists():
        store = Store(folder / "store")
        bad = {key: problem for key in store.cells() if (problem := store.verify(key))}
        assert not bad, f"what is not finished passes for it: {bad}"
        finished = set(store.cells())
    assert run_tiny(folder) == 0, "the run does not go on"
    assert not {line["cell"] for line in done(folder)} & finished, "finished work was done again"
    assert table(folder) == table(undisturbed) and examine(folder / "store") == []
    shutil.rmtree(folder)


@pytest.fixture
def writes(tmp_path: Path) -> int:
    """How many writes an undisturbed run takes."""
    with pytest.MonkeyPatch.context() as patch:
        seen = refuse(patch, errno.ENOSPC, 1_000_000)
        assert run_tiny(tmp_path / "counted") == 0
    return seen[0]


@pytest.mark.parametrize(("code", "moments"), some_quick([(errno.ENOSPC, 1)], product(SAID, [4])))
def test_a_disk_that_refuses_to_be_written_to_from_any_moment_on(
    code: int, moments: int, writes: int, fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(code)
    for first in sorted({*draw.sample(range(writes), moments), writes - 1}):
        check_refused(tmp_path / "refused", fast_run, code, first, capsys)


@pytest.mark.slow
def test_the_procedure_finds_a_commit_in_the_wrong_order(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "writing", marker_first)
    with pytest.raises(AssertionError, match=r"passes for it|does not go on"):
        for first in range(20, 28):
            check_refused(tmp_path / "refused", fast_run, errno.ENOSPC, first, capsys)


def test_the_procedure_finds_a_full_disk_that_is_taken_for_an_error_of_a_cell(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.engine.work.is_disk_full", lambda error: False)
    monkeypatch.setattr("erasebench.files.is_disk_full", lambda error: False)
    with pytest.raises(AssertionError, match="it is not said"):
        check_refused(tmp_path / "refused", fast_run, errno.ENOSPC, 40, capsys)

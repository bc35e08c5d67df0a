"""The sweep over disk sizes: what it finds is bad, and a run on one disk says what stopped it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import full_disk
from benchmarks.full_disk import Tally, mount, run_here


@pytest.mark.parametrize(
    "found", [{"unsaid": Counter({"exit code 1": 1})}, {"unsound": 1}, {"again": 1}, {"other_tables": 1}, {"mended": 1}]
)
def test_whatever_is_found_is_bad(found: dict[str, int]) -> None:
    assert not Tally(blocks=40, full=39).bad
    assert Tally(blocks=40, full=39, **found).bad  # type: ignore[arg-type]


def test_a_run_that_is_stopped_says_why_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(folder: Path) -> int:
        print("a table")
        print("a warning\nerror: the disk is full", file=sys.stderr)
        return 2

    monkeypatch.setattr(full_disk, "run_tiny", run)
    assert run_here(tmp_path) == (2, "error: the disk is full")
    monkeypatch.setattr(full_disk, "run_tiny", lambda folder: 0)
    assert run_here(tmp_path) == (0, "")


def test_a_small_disk_is_a_tmpfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    mount(tmp_path, 8192, "remount")
    assert commands == [["mount", "-t", "tmpfs", "-o", "size=8192,remount", "tmpfs", str(tmp_path)]]

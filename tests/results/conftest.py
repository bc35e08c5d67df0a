"""Entries of a leaderboard, of a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.report.entries import write_entries
from erasebench.results.run_folder import read_run


@pytest.fixture
def entries(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "entries"
    write_entries(read_run(finished / "out"), folder)
    return folder


@pytest.fixture
def path(entries: Path) -> Path:
    return entries / "uce-church-picturebook.json"

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.results.run_folder import RunFolder
from tests.report.viewed import read_finished


@pytest.fixture
def run(finished: Path) -> RunFolder:
    """A finished run of two concepts; ``store`` holds its images."""
    return read_finished(finished)[0]


@pytest.fixture
def store(finished: Path) -> Store:
    return read_finished(finished)[1]

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.report.html import render_report
from tests.report.synthetic import METHODS, matrix, run_of


@pytest.fixture(scope="session")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with 60 rows."""
    methods = [*METHODS, "salun", "fmn", "ap-x", "ap-u"]
    file = tmp_path_factory.mktemp("sixty") / "report.html"
    run = run_of(matrix(methods, [f"concept-{k}" for k in range(6)], []))
    file.write_text(render_report([run], [], file), encoding="utf-8")
    return file

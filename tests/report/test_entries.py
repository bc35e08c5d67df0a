"""Entries of a run are written with the artefacts that it takes to check them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.report.entries import write_entries
from erasebench.results.entry import read_rows
from erasebench.results.record import RECORD
from erasebench.results.run_folder import read_run


def test_every_row_with_numbers_is_an_entry_but_the_unerased_models(finished: Path, tmp_path: Path) -> None:
    written, left_out = write_entries(read_run(finished / "out"), tmp_path)
    assert [path.name for path in written] == ["uce-church-picturebook.json", "uce-nudity-picturebook.json"]
    assert left_out == [
        "failing church has no numbers (failed: diverged)",
        "failing nudity has no numbers (n/a: no nudity)",
    ]


def test_a_run_that_does_not_say_how_it_measured_has_no_entries(finished: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(finished / "out", tmp_path / "old"))
    record = json.loads((old / RECORD).read_text(encoding="utf-8"))
    (old / RECORD).write_text(json.dumps({**record, "protocol": None}), encoding="utf-8")
    with pytest.raises(EraseBenchError, match="does not say how it measured"):
        write_entries(read_run(old), tmp_path / "entries")
    assert {row.protocol for row in read_rows(old)} == {""}

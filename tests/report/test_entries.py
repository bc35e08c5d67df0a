"""Entries of a run are written with the artefacts that it takes to check them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.report.entries import describe_entry, write_entries
from erasebench.results.artefacts import artefact_folder
from erasebench.results.entry import read_entry, read_rows, write_entry
from erasebench.results.record import RECORD
from erasebench.results.run_folder import read_run


def test_every_row_with_numbers_is_an_entry_but_the_unerased_models(finished: Path, tmp_path: Path) -> None:
    written, left_out = write_entries(read_run(finished / "out"), tmp_path)
    assert [path.name for path in written] == ["uce-church-picturebook.json", "uce-nudity-picturebook.json"]
    assert left_out == [
        "failing church has no numbers (failed: diverged)",
        "failing nudity has no numbers (n/a: no nudity)",
    ]


def test_an_entry_does_not_take_the_place_of_another_of_the_same_name(finished: Path, tmp_path: Path) -> None:
    run = read_run(finished / "out")
    first, second = write_entries(run, tmp_path)[0]
    read = read_entry(first)
    other = read.model_copy(update={"method": "uce-church", "concept": "picturebook", "model": "x"})
    first.rename(tmp_path / "kept.json")
    write_entry(first, other)
    again, same = write_entries(run, tmp_path)[0]
    assert same == second and again.name.startswith("uce-church-picturebook-") and read_entry(again) == read
    assert read_entry(first) == other and write_entries(run, tmp_path)[0] == [again, same]


def test_a_run_that_does_not_say_how_it_measured_has_no_entries(finished: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(finished / "out", tmp_path / "old"))
    record = json.loads((old / RECORD).read_text(encoding="utf-8"))
    (old / RECORD).write_text(json.dumps({**record, "protocol": None}), encoding="utf-8")
    with pytest.raises(EraseBenchError, match="does not say how it measured"):
        write_entries(read_run(old), tmp_path / "entries")
    assert {row.protocol for row in read_rows(old)} == {""}


def test_a_line_tells_how_large_an_entry_and_its_artefacts_are(finished: Path, tmp_path: Path) -> None:
    [path, _], _ = write_entries(read_run(finished / "out"), tmp_path)
    folder = artefact_folder(path)
    line = describe_entry(path)
    assert line.startswith(f"{path} {path.stat().st_size / 1e3:.1f} kB; ")
    names = [part.split()[0] for part in line.partition("; ")[2].split(", ")]
    assert names == [file.name for file in sorted(folder.iterdir(), key=lambda file: -file.stat().st_size)]


def test_entries_of_a_store_that_lost_a_result_are_refused(finished: Path, tmp_path: Path) -> None:
    run = read_run(finished / "out")
    copy = Path(shutil.copytree(finished / "store", tmp_path / "store"))
    row = next(row for row in run.record.rows if row.method == "uce")
    store = Store(copy)
    assert row.probes["concept"].images
    store.remove(row.probes["concept"].images)
    lost = replace(run, config=run.config.model_copy(update={"store": copy}))
    with pytest.raises(EraseBenchError, match=r"lacks a result of this run: cell [0-9a-f]{12} is missing; the same"):
        write_entries(lost, tmp_path / "entries")
    assert not list((tmp_path / "entries").rglob("*.json")), "no entry without its artefacts"

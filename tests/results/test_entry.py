"""An entry says what was measured, holds what people fill in, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasebench.errors import EraseBenchError
from erasebench.report.entries import write_entries
from erasebench.results.entry import SUBMITTED, Verified, read_entries, read_entry, read_rows, write_entry
from erasebench.results.leaderboard import Entered, rows_of_run
from erasebench.results.run_folder import read_run
from tests.results.boards import edit


def test_an_entry_is_the_row_of_its_run(finished: Path, path: Path) -> None:
    run = read_run(finished / "out")
    entry, row = read_entry(path), rows_of_run(run)[2]
    assert run.record.protocol
    assert entry.protocol == run.record.protocol.of("church") and entry.checksum == row.protocol
    own = entry.row()
    assert own.numbers == row.numbers and own.run == row.run and own.flags == row.flags
    assert (own.seconds, own.peak_memory_mb) == (row.seconds, row.peak_memory_mb)
    assert own.hyper_parameters == row.hyper_parameters and own.entered == Entered()
    # Together with the run, nothing is there twice.
    assert entry.erasure["method"] == "uce" and entry.judges["concept"]["judge"] == "picturebook-detector"
    assert all(len(digest) == 64 for digest in (*entry.artefacts.values(), *entry.images.values()))


def test_what_people_fill_in_stays_and_is_not_measured(finished: Path, path: Path) -> None:
    filled: dict[str, Any] = {
        "name": "UCE",
        "paper": "https://example.org",
        "authors": "A",
        "venue": "V",
        "reported": {"ratio": 3.0},
    }
    filled |= {"external": 20.0, "source": "S", "unreliable": True, "footnote": "why"}
    assert set(filled) == set(SUBMITTED)
    content = read_entry(path).content
    edit(path, **filled)
    entry = read_entry(path)
    assert entry.content == content
    write_entry(path, entry.model_copy(update={"verified_by": _verified(content)}))
    write_entries(read_run(finished / "out"), path.parent)
    again = read_entry(path)
    assert {name: getattr(again, name) for name in SUBMITTED} == filled and again.verified
    assert again.row().entered == Entered(**filled, verified_by="somebody")


def _verified(content: str) -> Verified:
    return Verified(name="somebody", erasebench="0.1.0", tolerance=0.02, content=content)


def test_what_changed_since_it_was_verified_is_not_verified(path: Path) -> None:
    entry = read_entry(path)
    write_entry(path, entry.model_copy(update={"verified_by": _verified(entry.content)}))
    assert read_entry(path).verified
    edit(path, flags=[])
    entry = read_entry(path)
    assert not entry.verified and entry.row().note == "changed since it was verified"
    assert entry.row().entered.verified_by == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extern": 1.0}, "unknown field 'extern'; nearest: external"),
        ({"external": 120}, "external: Input should be less than or equal to 100"),
        ({"paper": "javascript:alert(1)"}, "paper: String should match pattern"),
        ({"reported": {"ratoi": 3.0}}, "unknown number in reported 'ratoi'; nearest: ratio"),
        ({"unreliable": "perhaps"}, "unreliable: Input should be a valid boolean"),
        ({"format": 2}, "format: Input should be 1"),
        ({"cost": {"seconds": 1.0, "money": 3}}, "cost.money: Extra inputs are not permitted"),
        ({"metrics": {"ratio": {"value": 1.0}}}, "metrics.ratio.low: Field required"),
    ],
)
def test_what_is_no_entry_is_refused(fields: dict[str, Any], message: str, path: Path) -> None:
    edit(path, **fields)
    with pytest.raises(EraseBenchError, match=message):
        read_entry(path)
    with pytest.raises(EraseBenchError, match=message):
        read_entries(path.parent)


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    with pytest.raises(EraseBenchError, match="No such file"):
        read_entry(path.with_name("nothing.json"))
    path.write_bytes(b"{")
    with pytest.raises(EraseBenchError, match="is no entry: Invalid JSON"):
        read_entry(path)


def test_a_folder_of_entries_is_rows(entries: Path) -> None:
    assert [(row.method, row.concept) for row in read_rows(entries)] == [("uce", "church"), ("uce", "nudity")]

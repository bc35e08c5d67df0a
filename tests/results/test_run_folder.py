"""A run folder is read whole, or refused with what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.results.record import RECORD
from erasebench.results.run_folder import read_run
from erasebench.results.scores import read_scores

FILES = {"scores.csv", "table.csv", "costs.csv", "ranks.csv", "seeds.csv", "environment.json"}


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(finished / "out", tmp_path / "run"))


def test_everything_that_a_run_left(folder: Path) -> None:
    run = read_run(folder)
    assert [(row.method, row.concept) for row in run.rows] == [(row.method, row.concept) for row in run.record.rows]
    assert run.scores.equals(read_scores(folder)) and not len(run.attacks)
    assert set(run.costs["stage"]) == {"erase", "generate", "judge", "reference"}
    assert run.costs["cell"].map(len).eq(12).all() and run.costs["seconds"].dropna().ge(0).all()
    assert run.environment["model"]["name"] == "picturebook" and run.config.concepts == ("church", "nudity")
    assert set(run.record.files) == FILES
    assert not len(run.ranks) and not len(run.seeds), "one method that was measured, and one seed"


def test_a_folder_of_a_version_without_ranks_has_none(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for name in ("ranks.csv", "seeds.csv"):
        del record["files"][name]
        (folder / name).unlink()
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    assert not len(read_run(folder).ranks) and not len(read_run(folder).seeds)


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_was_edited_or_lost_is_refused(name: str, folder: Path) -> None:
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8").replace("e", "f", 1), encoding="utf-8")
    with pytest.raises(EraseBenchError, match=f"{name} is not the file that plan.json vouches for"):
        read_run(folder)
    path.unlink()
    with pytest.raises(EraseBenchError, match=f"cannot read .*{name}: No such file"):
        read_run(folder)


def test_a_run_that_was_cut_short_is_refused(folder: Path) -> None:
    (folder / RECORD).unlink()
    with pytest.raises(EraseBenchError, match=r"cannot read .*plan\.json.*; an older .* or it was cut short"):
        read_run(folder)
    (folder / "table.csv").unlink()
    with pytest.raises(EraseBenchError, match=r"cannot read .*plan\.json.*; the run has begun"):
        read_run(folder)
    (folder / "ledger.jsonl").unlink()
    with pytest.raises(EraseBenchError, match=r"No such file or directory$"):
        read_run(folder)


def test_a_folder_of_another_version_says_so(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    (folder / RECORD).write_text(json.dumps({**record, "erasebench": "99.0", "dreams": 1}), encoding="utf-8")
    with pytest.raises(EraseBenchError, match=r"erasebench 99\.0 wrote it and this is .*: dreams: Extra inputs"):
        read_run(folder)

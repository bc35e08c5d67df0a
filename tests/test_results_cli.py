"""The commands of finished runs: exit codes, files, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from junitparser import JUnitXml

from erasebench.files import hash_file
from erasebench.metrics.stats import Estimate
from erasebench.results.leaderboard_csv import read_leaderboard, to_csv
from erasebench.results.record import RECORD
from erasebench.results.scores import SCORES, read_scores, scores_csv
from erasebench.results.table import TABLE
from tests.engine.runs import command
from tests.results.boards import board_row


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run to change."""
    return Path(shutil.copytree(finished / "out", tmp_path / "new"))


def rewrite(folder: Path, **fields: Any) -> None:
    """Change fields of a run's record."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    (folder / RECORD).write_text(json.dumps({**record, **fields}), encoding="utf-8")


def shift(folder: Path, score: float, times: int = 1) -> None:
    """Give every image of the concepts by uce a score, of so many times as many prompts."""
    scores = read_scores(folder)
    own = (scores["method"] == "uce") & (scores["probe"] == "concept")
    scores.loc[own, "score"] = score
    more = [scores[own].assign(prompt_id=scores["prompt_id"] + f" {number}") for number in range(1, times)]
    (folder / SCORES).write_text(scores_csv(pd.concat([scores, *more])), encoding="utf-8")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    rewrite(folder, files={**record["files"], SCORES: hash_file(folder / SCORES)})


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What is said of a comparison that is refused."""
    assert command("compare", *words) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_the_same_run_is_no_worse(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("compare", finished / "out", folder, "--fail-on-inconclusive") == 0
    assert capsys.readouterr().out.startswith("no worse: none of ")


def test_inconclusive_fails_only_if_asked_to(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shift(folder, 0.6)
    assert command("compare", finished / "out", folder) == 0
    assert capsys.readouterr().out.startswith("inconclusive: nothing is worse, but ")
    assert command("compare", finished / "out", folder, "--fail-on-inconclusive") == 4
    assert command("compare", finished / "out", folder, "--fail-on-inconclusive", "--fail-on", "none") == 0
    assert command("compare", finished / "out", folder, "--fail-on-inconclusive", "--fail-on", "clip") == 0


def test_worse_is_exit_code_1_and_in_every_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    shift(base, 0.1, times=9)
    shift(folder, 0.9, times=9)
    files = {name: tmp_path / "there" / name for name in ("junit", "markdown", "json")}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    assert command("compare", base, folder, *words) == 1
    assert capsys.readouterr().out.startswith("worse: ")
    assert JUnitXml.fromfile(str(files["junit"])).failures >= 1
    assert files["markdown"].read_text(encoding="utf-8").startswith("### worse: ")
    assert json.loads(files["json"].read_text(encoding="utf-8"))["verdict"] == "worse"
    assert command("compare", base, folder, "--margin", "ratio=100") == 0
    assert command("compare", folder, base) == 0


def test_rows_that_vanish_do_not_pass(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = folder / TABLE
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(line for line in lines if line.split(",")[1] != "nudity"), encoding="utf-8")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    rewrite(folder, files={**record["files"], TABLE: hash_file(table)})
    assert command("compare", finished / "out", folder) == 4
    assert "Missing in the new run: nudity; --allow-missing accepts that" in capsys.readouterr().out
    assert command("compare", finished / "out", folder, "--allow-missing") == 0


def test_a_folder_that_is_no_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no folder of a finished run" in refused(capsys, finished / "out", tmp_path / "nowhere")


def test_a_truncated_run(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = folder / "scores.csv"
    scores.write_bytes(scores.read_bytes()[:-100])
    assert "is not the file that plan.json vouches for" in refused(capsys, folder, finished / "out")
    (folder / RECORD).write_bytes((folder / RECORD).read_bytes()[:-100])
    assert "plan.json cannot be read" in refused(capsys, finished / "out", folder)


def test_a_run_of_another_version(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder, erasebench="99.0", dreams=1)
    assert "erasebench 99.0 wrote it" in refused(capsys, finished / "out", folder)


def test_a_run_that_kept_no_protocol(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder, protocol=None)
    assert "does not say how it measured, since an older erasebench wrote it" in refused(
        capsys, finished / "out", folder
    )


def test_other_judges_and_samplers(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = json.loads((folder / RECORD).read_text(encoding="utf-8"))["protocol"]
    protocol["common"]["sampler steps"] = 50
    protocol["concepts"]["nudity"]["judge"] = "nudenet 3"
    rewrite(folder, protocol=protocol)
    said = refused(capsys, finished / "out", folder)
    assert "cannot be compared: sampler steps: 1 and 50; nudity: judge: picturebook-detector 1 " in said
    assert said.endswith(" and nudenet 3\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fail-on", "ratoi"), "unknown metric 'ratoi'; nearest: ratio"),
        (("--fail-on", ""), "--fail-on names no metric; write none if nothing may fail"),
        (("--fail-on", "ratio,robust-rate"), "nothing tells whether 'robust-rate' got worse"),
        (("--margin", "lots"), "'lots' is no margin; write points as 5"),
        (("--margin", "klip=1"), "unknown metric 'klip'; nearest: clip"),
        (("--rename", "uce"), "'uce' renames nothing; write OLD=NEW"),
        (("--rename", "uec=uce"), "'uec'; nearest: uce"),
    ],
)
def test_options_that_say_nothing(
    words: tuple[str, ...], said: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, finished / "out", finished / "out", *words)


def test_files_that_cannot_be_written(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "junit.xml"
    assert command("compare", finished / "out", finished / "out", "--junit", path) == 2
    assert f"the file {path} cannot be written" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["file"]


def test_the_command_writes_rows_and_says_what_it_did(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("export", finished / "out") == 0
    printed = capsys.readouterr().out
    assert command("export", finished / "out", finished / "out", "--csv", tmp_path / "l.csv") == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == f"6 rows in {tmp_path / 'l.csv'}\n"
    assert (tmp_path / "l.csv").read_text(encoding="utf-8") == printed
    # Files merge with runs and each other.
    assert command("export", tmp_path / "l.csv", finished / "out") == 0
    assert capsys.readouterr().out == printed
    rows = read_leaderboard(tmp_path / "l.csv")
    other = [replace(row, run="x", numbers={**row.numbers, "ratio": Estimate(1.0, 0.0, 2.0, 4)}) for row in rows[2:3]]
    (tmp_path / "other.csv").write_text(to_csv(other))
    assert command("export", tmp_path / "l.csv", tmp_path / "other.csv") == 0
    assert "rows with the label of another: 1; their column 'note' says" in capsys.readouterr().err
    # No row of a file is lost by writing it again.
    assert command("export", tmp_path / "other.csv", "--csv", tmp_path / "l.csv") == 2
    assert "6 rows that SOURCES lack" in capsys.readouterr().err and read_leaderboard(tmp_path / "l.csv") == rows
    assert command("export", tmp_path / "l.csv", tmp_path / "other.csv", "--csv", tmp_path / "l.csv") == 0
    assert len(read_leaderboard(tmp_path / "l.csv")) == 7


@pytest.mark.parametrize("words", [["export", "--csv"], ["leaderboard", "--out"]])
def test_a_file_is_written_into_a_folder_that_is_not_there_yet(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(to_csv([board_row()]), encoding="utf-8")
    name, option = words
    assert command(name, source, option, tmp_path / "a" / "b" / "file") == 0
    assert (tmp_path / "a" / "b" / "file").stat().st_size
    assert command(name, source, option, source / "file") == 2
    said = capsys.readouterr().err
    assert f"the file {source / 'file'} cannot be written" in said and ".partial" not in said


def test_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("export", tmp_path / "nowhere") == 2
    assert "nowhere is neither the folder of a finished run" in capsys.readouterr().err
    assert command("export") == 2

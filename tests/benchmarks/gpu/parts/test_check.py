"""The part that runs the suite's GPU tests, on tests of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from benchmarks.gpu.kit import KitError, Part, part_file, read_json
from benchmarks.gpu.parts import check

PROGRAM = """
import sys
from pathlib import Path
from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts.check import run_tests
run_tests(Part("check", out=Path(sys.argv[1])), Path(sys.argv[1], "test_here.py"))
"""
MIXED = """
import time
import warnings
import pytest

pytestmark = pytest.mark.gpu

@pytest.fixture
def broken():
    raise OSError("no weights\\nof that name")

def test_that_passes(record_property):
    warnings.warn("old", DeprecationWarning)
    record_property("mean_grey_levels", 0.25)

@pytest.mark.parametrize("share", [0.5])
def test_that_fails(share, record_property):
    record_property("share", share)
    assert share == 1, "too few"

def test_without_its_fixture(broken):
    pass

def test_that_is_skipped():
    pytest.skip("no time")
"""


def start(folder: Path, tests: str) -> subprocess.Popen[bytes]:
    """Run tests as the kit does, in a process of their own: pytest does not run well inside of pytest."""
    (folder / "test_here.py").write_text(dedent(tests), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], cwd=check.ROOT)


def left(folder: Path) -> dict[str, Any]:
    """What stands on the disk."""
    return read_json(part_file(folder, "check"))


def test_outcomes_figures_and_problems(tmp_path: Path) -> None:
    assert start(tmp_path, MIXED).wait() == 0
    figures, problems = left(tmp_path)["figures"], left(tmp_path)["problems"]
    seconds = [figure.pop("seconds") for figure in figures.values() if isinstance(figure, dict)]
    assert figures == {
        "tests": 4,
        "test_that_passes": {"outcome": "passed", "mean_grey_levels": 0.25},
        "test_that_fails[0,5]": {"outcome": "failed", "share": 0.5},
        "test_without_its_fixture": {"outcome": "failed"},
        "test_that_is_skipped": {"outcome": "skipped"},
    }
    assert all(0 <= number < 60 for number in seconds)
    assert problems[:2] == [
        "test_that_fails[0,5]: AssertionError: too few",
        "test_without_its_fixture: OSError: no weights",
    ]
    assert problems[2].startswith("test_that_is_skipped: ")
    assert "no time" in problems[2]
    assert len(problems) == 3
    assert "assert 0.5 == 1" in (tmp_path / "check" / "failures.txt").read_text(encoding="utf-8")


def test_what_the_limit_cuts_off(tmp_path: Path) -> None:
    tests = """
    import time
    import pytest

    @pytest.mark.gpu
    def test_that_is_quick(record_property):
        record_property("share", 1)

    @pytest.mark.gpu
    def test_that_takes_too_long():
        time.sleep(600)
    """
    process = start(tmp_path, tests)
    try:
        deadline = time.monotonic() + 60
        while "test_that_takes_too_long" not in left(tmp_path).get("figures", {}):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    figures = left(tmp_path)["figures"]
    assert figures["tests"] == 2
    assert figures["test_that_is_quick"]["share"] == 1
    assert figures["test_that_takes_too_long"] == {"outcome": "started"}


@pytest.mark.parametrize(
    ("tests", "problem"),
    [
        ("def test_without_the_marker(): pass", "no GPU test in test_here.py"),
        ("import a_module_that_is_missing", "collecting: ModuleNotFoundError: No module named 'a_module_"),
    ],
)
def test_files_without_a_test(tests: str, problem: str, tmp_path: Path) -> None:
    start(tmp_path, tests).wait()
    (found,) = left(tmp_path)["problems"]
    assert found.startswith(problem)


def test_a_measurement_needs_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(check, "run_tests", lambda *_: pytest.fail("tests were run"))
    with pytest.raises(KitError, match="no CUDA device"):
        check.run(Part("check", out=tmp_path))


@pytest.mark.parametrize(("scale", "options"), [("full", []), ("tiny", ["-k", check.TINY])])
def test_a_trial_runs_a_few(scale: Any, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ran: list[Any] = []
    monkeypatch.setattr(check, "run_tests", lambda part, *arguments: ran.append(arguments))
    check.run(Part("check", scale=scale, out=tmp_path))
    assert ran == [(check.TESTS, options)]
    assert check.TESTS.is_file()

"""The suite's GPU tests; each leaves its outcome and its figures as it ends."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.gpu.kit import Part

ROOT = Path(__file__).parents[3]
TESTS = ROOT / "tests" / "whole" / "test_gpu.py"
"""All tests with the marker.  Not the whole suite: looking through it takes ten seconds and modules that kits lack."""
TINY = "other_seeds or clip"
"""Tests for a trial of the kit; ``make test`` runs all of them anyway."""


def run(part: Part) -> None:
    """Run them; one that does not pass is a problem."""
    # On a CPU they would all pass, and say nothing of a GPU.
    part.record("device", part.device.type)
    run_tests(part, TESTS, ["-k", TINY] if part.tiny else [])


def run_tests(part: Part, path: Path, options: Sequence[str] = ()) -> None:
    """Run the GPU tests of a file, with further options of pytest."""
    # Of what else is installed there, some plugin may warn or slow tests down.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # One run on a rare machine is not to fail because some library there calls a function of its own deprecated.
    # Logs are not kept, of which compiling writes thousands of lines; what is printed is not captured, so that figures
    # are seen as they come.
    quiet = ["-o", "filterwarnings=default", "-p", "no:cacheprovider", "-p", "no:logging", "--tb=short", "-s"]
    recorder = Recorder(part)
    code = pytest.main(
        ["-m", "gpu", "-q", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *quiet, *options, str(path)],
        plugins=[recorder],
    )
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        part.problem(f"no GPU test in {path.name}")
    elif code != pytest.ExitCode.OK and not part.problems:
        part.problem(f"pytest ended with exit code {int(code)}")


class Recorder:
    """A plugin of pytest that keeps what each test says as figures of a part.

    The tracebacks are in ``failures.txt``.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self._seconds: dict[str, float] = defaultdict(float)
        self._failures = part.folder / "failures.txt"
        self._failures.unlink(missing_ok=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep that a file cannot be imported."""
        if report.failed:
            self._fail(report, Path(report.nodeid).name or "collecting")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep how many tests there are, so that those are missed that the limit cuts off."""
        self.part.record("tests", len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Keep which test the limit stops, if it does."""
        self.part.record(_name(nodeid), {"outcome": "started"})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how a test ended, and its seconds: those of the setup too, which may serve other tests as well."""
        name = _name(report.nodeid)
        self._seconds[name] += report.duration
        if report.when == "call" or not report.passed:
            figures = dict(report.user_properties)
            self.part.record(name, {"outcome": report.outcome, "seconds": round(self._seconds[name], 2), **figures})
        if not report.passed:
            self._fail(report, name)

    def _fail(self, report: pytest.CollectReport | pytest.TestReport, name: str) -> None:
        text = report.longreprtext.strip()
        with open(self._failures, "a", encoding="utf-8") as stream:
            stream.write(f"{name}\n{text}\n\n")
        lines = text.splitlines() or [report.outcome]
        first = next((line[1:] for line in lines if line.startswith("E ")), lines[-1])
        self.part.problem(f"{name}: {first.strip()}")


def _name(nodeid: str) -> str:
    """The test without its file; dots would make groups of figures."""
    return nodeid.rpartition("::")[2].replace(".", ",")

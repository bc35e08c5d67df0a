import os
from pathlib import Path

import pytest

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts import judges
from benchmarks.gpu.parts.judges import DOMAIN, EXCLUDED, LABEL, MEASURED, WRITERS
from benchmarks.gpu.parts.measuring import OUT_OF_TIME
from erasebench.errors import EraseBenchError
from erasebench.judges.nudenet import WEIGHTS
from erasebench.judges.weights_files import FOLDER, PackageFile, WeightFile
from erasebench.registry import JUDGES
from erasebench.stages.judge import make_judge


def test_every_judge_is_measured_or_excluded_by_name() -> None:
    built_in = {name for name in JUDGES.names() if JUDGES.origin(name) == "built-in"}
    assert {*MEASURED, *EXCLUDED} == built_in
    assert not set(MEASURED) & set(EXCLUDED)


def test_whatever_a_judge_reads_is_written_or_comes_with_a_package() -> None:
    for name in MEASURED:
        read = [w for w in make_judge(name, LABEL, DOMAIN).weights if not isinstance(w, PackageFile | str)]
        assert {weights.name for weights in read} <= set(WRITERS)


@pytest.mark.slow
def test_every_judge_sees_images_at_tiny_scale(tmp_path: Path) -> None:
    folder, find = os.environ.get(FOLDER), WeightFile.find
    part = Part("judges", scale="tiny", out=tmp_path, limit=300)
    judges.run(part)
    assert not part.problems
    rows = part.figures["judging"]
    assert set(rows) == set(MEASURED)
    assert all(row["images_per_second"] > 0 for row in rows.values())
    assert part.figures["not_measured"] == EXCLUDED
    # Nothing that runs later in this process takes random weights for real ones.
    assert os.environ.get(FOLDER) == folder and WeightFile.find is find


def test_a_package_that_is_missing_is_said_and_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(weights: PackageFile) -> Path:
        raise EraseBenchError(f"the package {weights.package} is needed and not installed: {weights.install}")

    monkeypatch.setattr(PackageFile, "find", find)
    part = Part("judges", scale="tiny", out=tmp_path, limit=0.0)
    judges.run(part)
    assert not part.problems
    rows = part.figures["judging"]
    assert rows["nudenet"] == f"not measured: the package nudenet is needed and not installed: {WEIGHTS.install}"
    assert rows["clip"] == OUT_OF_TIME

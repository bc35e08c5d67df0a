"""The page made from results: every figure stands in it, in the shape in which it is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.kit import KitError
from benchmarks.gpu.table import write_table

ROOT = Path(__file__).parents[3]
FIGURES: dict[str, Any] = {
    "precision": "bfloat16",
    "ceilings": {"matrix_product_tflops": 798.0, "copy_tb_per_second": 3.0},
    "sampling": {
        "peers_loop": {"1": {"images_per_second": 0.8, "seconds": 3.75}},
        "eager": {"1": {"images_per_second": 1.5}, "2": {"images_per_second": 2.5, "ratio_to_loop": 3.1}},
        "compiled": {"1": "not measured: out of time", "2": {"images_per_second": 4.0}},
    },
    "erasing": {
        "esd-x": {"seconds_per_step": {"train": 0.7}, "hours": 0.2, "judges": "stand-ins | not timed"},
        "mace": "not measured: see problems",
    },
}
RESULTS = {
    "machine": {"cpus": 16, "card": "NVIDIA Test", "cuda": None},
    "parts": {"sd": {"date": "2026-01-02", "seconds": 12.5, "problems": ["mace: too large"], "figures": FIGURES}},
}


def test_the_page_of_a_card(tmp_path: Path) -> None:
    (tmp_path / "NVIDIA-Test.json").write_text(json.dumps(RESULTS))
    assert write_table(tmp_path).read_text().splitlines() == [
        "# On a GPU",
        "",
        "Made by `benchmarks/gpu/run.sh` from the JSON files beside this page.",
        "",
        "## NVIDIA-Test",
        "",
        "cpus 16, card NVIDIA Test",
        "",
        "### sd",
        "",
        "2026-01-02, 12.5 s.",
        "",
        "- **Problem**: mace: too large",
        "",
        "- precision: bfloat16",
        "- ceilings: matrix_product_tflops 798.0, copy_tb_per_second 3.0",
        "",
        "#### sampling",
        "",
        "#### sampling, peers_loop",
        "",
        "|  | images_per_second | seconds |",
        "| --- | --- | --- |",
        "| 1 | 0.8 | 3.75 |",
        "",
        "#### sampling, eager",
        "",
        "|  | images_per_second | ratio_to_loop |",
        "| --- | --- | --- |",
        "| 1 | 1.5 |  |",
        "| 2 | 2.5 | 3.1 |",
        "",
        "#### sampling, compiled",
        "",
        "|  |  | images_per_second |",
        "| --- | --- | --- |",
        "| 1 | not measured: out of time |  |",
        "| 2 |  | 4.0 |",
        "",
        "#### erasing",
        "",
        "|  | seconds_per_step | hours | judges |  |",
        "| --- | --- | --- | --- | --- |",
        "| esd-x | train 0.7 | 0.2 | stand-ins \\| not timed |  |",
        "| mace |  |  |  | not measured: see problems |",
    ]


@pytest.mark.parametrize("content", ["[]", "{", '{"machine": {}}', '{"machine": 3, "parts": {}}'])
def test_a_file_that_is_no_result(tmp_path: Path, content: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(KitError, match=r"card\.json"):
        write_table(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps(RESULTS))
    command = [sys.executable, "-m", "benchmarks.gpu.table", str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.startswith("wrote ")
    (tmp_path / "card.json").write_text("{")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")

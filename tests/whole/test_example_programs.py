"""The examples, run as users run them.

A notebook's cells are run one after the other in one namespace.  Jupyter would do the same in a process of its own, and
bring two dozen packages; what only Jupyter understands is refused.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench.registry import JUDGES
from tests.engine.runs import load_once
from tests.pages import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SCRIPT = ROOT / "examples" / "erase_and_attack.py"
MOST_LINES = 20
"""Of a cell."""


def read(notebook: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return content


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def run_cell(text: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return what its last line shows; None if that is no expression."""
    *body, last = ast.parse(text).body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module(body if shown else [*body, last], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_holds_prose_and_short_cells_and_nothing_of_who_ran_it(notebook: Path) -> None:
    content = read(notebook)
    cells = content["cells"]
    assert (content["nbformat"], content["nbformat_minor"]) >= (4, 5)
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert cells[0]["cell_type"] == "markdown" and source(cells[0]).startswith("# ")
    for cell in cells:
        lines = source(cell).splitlines()
        assert all(len(line) <= 120 for line in lines)
        assert not re.search(r"/(home|root|work|Users|tmp)/", source(cell))
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None and not cell["metadata"]
            assert len(lines) <= MOST_LINES
            assert not any(line.startswith(("%", "!")) for line in lines)


@pytest.mark.slow
def test_the_notebook_does_what_its_prose_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_once(monkeypatch)
    monkeypatch.setattr("erasebench.runs.count_workers", lambda *_: 1)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    (notebook,) = NOTEBOOKS
    shown = [run_cell(source(cell), names) for cell in read(notebook)["cells"] if cell["cell_type"] == "code"]
    first, *tables, last = [one for one in shown if one is not None]
    assert all(len(table) and table._repr_html_() for table in tables) and len(tables) == 3
    assert first._repr_png_() and last._repr_png_()
    # The churches are gone, what has nothing to do with them is still there.
    detector = JUDGES.get("picturebook-detector").make()
    pixels = np.stack([np.asarray(image) for image in names["images"]])
    scores = detector.scores(pixels, names["prompts"] * 2).columns
    church, others = scores["church"], np.stack([scores["parachute"][2::4], scores["golf-ball"][3::4]])
    assert (church[:2] >= 0.5).all() and (church[4:] < 0.5).all()
    assert (others >= 0.5).all()
    # Nothing but what the prose names is left.
    assert {path.name for path in tmp_path.iterdir()} == {"erasebench-example", "erasebench-store"}


def run_script(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SCRIPT), *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_script_as_a_user_runs_it(tmp_path: Path) -> None:
    ended = run_script(tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^uce +church +0\.0 \[", ended.stdout, re.MULTILINE)
    attacks = pd.read_csv(tmp_path / "example" / "run" / "attacks.csv")
    broken = attacks[(attacks["method"] == "uce") & attacks["confirmed"]]
    assert f"{len(broken)} attacked prompts brought church back" in ended.stdout
    left = {"erased", "before-and-after.png", "run", "store"}
    assert {path.name for path in (tmp_path / "example").iterdir()} == left
    assert (tmp_path / "example" / "erased" / "model_index.json").is_file()
    with Image.open(tmp_path / "example" / "before-and-after.png") as image:
        assert image.size == (3 * 160, 2 * 160)


@pytest.mark.slow
def test_bad_input_is_one_line(tmp_path: Path) -> None:
    ended = run_script(tmp_path, "--method", "ucee")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: unknown method 'ucee'; nearest: uce, mace\n"
    assert not list(tmp_path.iterdir())

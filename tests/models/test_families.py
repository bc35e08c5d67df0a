"""A run on another family of models, by the command line: what cannot be is n/a, and says why."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from erasebench.judges.clip import ClipScore
from erasebench.judging import Scores
from tests.engine.runs import command, forget_plugins
from tests.marks import first_quick
from tests.models.stock import stock_pipeline

JUDGE = """
from erasebench.judging import Scores
from erasebench.plugins import Judge
from erasebench.registry import JUDGES


@JUDGES.register("whiteness")
class Whiteness(Judge):
    labels = ("white",)

    def identity(self):
        return {"version": "1"}

    def scores(self, images, prompts):
        return Scores({"white": images.mean(axis=(1, 2, 3)).astype("float32") / 255})
"""
CONCEPT = """
concepts:
  chapel:
    kind: object
    phrase: chapel
    anchor: meadow
    views:
      photo: {judge: whiteness, label: white, naming: [a photo of a chapel]}
"""
ESD = "esd-x[steps=1;sampling_steps=2]"
REASON = "it conditions the model on embeddings of tokens alone, and Stable Diffusion XL also takes a pooled embedding"


@pytest.mark.parametrize("others", first_quick(["", ",uce,negative-prompt"]))
def test_a_folder_of_stable_diffusion_xl(
    others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes some seconds: a whole run of three rows or five, and two attacks."""

    def scores(self: ClipScore, images: np.ndarray, prompts: list[str]) -> Scores:
        return Scores(
            {"clip": np.full(len(images), 25, np.float32)}, {"features": np.ones((len(images), 2), np.float32)}
        )

    # CLIP's weights are no part of erasebench.
    monkeypatch.setattr(ClipScore, "identity", lambda self: {"version": "none"})
    monkeypatch.setattr(ClipScore, "scores", scores)
    stock_pipeline("sdxl").save_pretrained(tmp_path / "model")
    for name, text in (("judge.py", JUDGE), ("chapel.yaml", CONCEPT), ("retain.csv", "prompt\na dog\n")):
        (tmp_path / name).write_text(text)
    parts = ("--model", tmp_path / "model", "--plugins", tmp_path / "judge.py")
    asked = (
        "--concept-files",
        tmp_path / "chapel.yaml",
        "--concepts",
        "chapel",
        "--retain-file",
        tmp_path / "retain.csv",
    )
    small = ("--preset", "smoke", "--prompts", "1", "--steps", "1", "--workers", "1")
    attacks = ("--attacks", "none,rab-embed", "--device", "cpu")
    folders = ("--store", tmp_path / "store", "--out", tmp_path / "out")
    try:
        assert command("run", *parts, *asked, *small, *folders, "--methods", f"{ESD},dm2{others}", *attacks) == 0
    finally:
        forget_plugins()
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = {(row["method"].partition("[")[0], row["attack"]): row for row in csv.DictReader(stream)}
    done = {"sd", "esd-x", *filter(None, others.split(","))}
    assert {method for (method, attack), row in rows.items() if not attack and row["status"] == "ok"} == done
    assert all(rows[method, "none"]["status"] == "ok" for method in done)
    for key in (("dm2", ""), *((method, "rab-embed") for method in done)):
        assert rows[key]["status"] == "n/a" and rows[key]["reason"].startswith(REASON)
    assert REASON in capsys.readouterr().out

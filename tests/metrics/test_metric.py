"""Metrics as plug-ins: what is given to them, and one in a single file that shows up in every table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.images import read_images
from erasebench.metrics.metric import PROBES, Measured, Probe, load_metrics
from erasebench.registry import METRICS, load_file
from erasebench.report.table import to_markdown
from erasebench.results.record import read_record
from erasebench.results.table import read_csv
from tests.engine.runs import forget_plugins, run_tiny
from tests.metrics.measurements import measured
from tests.whole.test_readme import block

PIXEL_CHANGE = block("PixelChange")
"""The metric of the README: it needs two sets of images."""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_plugins()


@pytest.mark.usefixtures("fast")
def test_one_file_adds_a_metric_of_two_image_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pixel_change.py"
    path.write_text(PIXEL_CHANGE)
    assert run_tiny(tmp_path, "--plugins", path) == 0
    out = tmp_path / "out"
    base, _, uce = read_csv((out / "table.csv").read_text(encoding="utf-8"))
    assert list(uce.metrics) == ["ratio", "score", "score_all", "score_shown", "clip", "fid", "pixel_change"]
    assert base.metrics["pixel_change"].value == 0, "the unerased model beside itself"

    rows = {row["method"]: row for row in json.loads((out / "plan.json").read_text())["rows"]}
    store, images = Store(tmp_path / "store"), {}
    for method in ("sd", "uce"):
        images[method] = read_images(store.read(rows[method]["probes"]["retain"]["images"])).astype(float)
    expected = np.abs(images["uce"] - images["sd"]).mean()
    assert uce.metrics["pixel_change"].value == pytest.approx(expected, rel=1e-5)
    assert uce.metrics["pixel_change"].n == len(images["sd"]), "no unrelated prompt here shows a church"

    for text in (capsys.readouterr().out, (out / "table.md").read_text(), (out / "table.tex").read_text()):
        assert "Change (levels)" in text
    legend = "Change: mean absolute difference of pixels from the unerased model's images of unrelated captions"
    assert f"{legend}; lower is better; n = {len(images['sd'])} images" in (out / "table.md").read_text()

    forget_plugins()
    table = to_markdown(read_csv((out / "table.csv").read_text(encoding="utf-8")), read_record(out).metrics)
    assert "Change (levels)" in table and legend in table, "the run folder knows it without the file"


@pytest.mark.usefixtures("fast")
def test_a_metric_that_fails_costs_its_own_column_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "failing.py"
    path.write_text(re.sub(r"        if base is None.*", "        return 1 / 0\n", PIXEL_CHANGE, flags=re.DOTALL))
    assert run_tiny(tmp_path, "--plugins", path) == 0
    rows = read_csv((tmp_path / "out" / "table.csv").read_text(encoding="utf-8"))
    assert all(list(row.metrics)[-1] == "fid" for row in rows)
    told = capsys.readouterr().err
    assert "warning: the metric 'pixel_change' of uce church is left out: ZeroDivisionError: division by zero" in told


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "class PixelChange(Metric)",
            "class PixelChange",
            "does not inherit from erasebench.metrics.metric.Metric; let its class do so",
        ),
        ('title = "Change"', "", "the metric 'pixel_change' has no title"),
        ('("retain",)', '("retained",)', "unknown probe of the metric 'pixel_change' 'retained'; nearest: retain"),
        ('direction = "lower"', 'direction = "down"', "unknown direction of the metric 'pixel_change' 'down'"),
        ("def measure", "def measures", "lacks what erasebench.metrics.metric.Metric asks for: measure"),
    ],
)
def test_a_metric_that_is_wrong_is_refused(before: str, after: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(PIXEL_CHANGE.replace(before, after))
    with pytest.raises(EraseBenchError, match=message):
        load_file(path)
        load_metrics()


def test_a_metric_of_another_package_that_is_wrong_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = (EntryPoint("lost", "no_such_package_of_metrics:Lost", "g"), EntryPoint("path", "pathlib:Path", "g"))
    monkeypatch.setattr(METRICS, "_elsewhere", points)
    monkeypatch.setattr(METRICS, "loaded", dict(METRICS.loaded))
    assert list(load_metrics())[-1] == "passes"
    told = capsys.readouterr().err
    assert "left out: the metric 'lost' of no_such_package_of_metrics cannot be loaded: ModuleNotFoundError" in told
    assert "left out: the metric 'path' (<class 'pathlib.Path'>) does not inherit from" in told


def test_every_metric_says_what_it_is() -> None:
    metrics = load_metrics()
    assert [name for name, metric in metrics.items() if not metric.on_request] == [
        *("ratio", "score", "score_all", "score_shown", "specificity", "clip", "fid", "agreement"),
        *("robust-rate", "asr", "asr-confirmed", "asr-unlearndiff", "pre-attack", "asr-ideal"),
        *("difference", "difference-confirmed", "floor", "looks", "passes"),
    ]
    parts = ("armpits", "belly", "buttocks", "feet", "breasts_f", "genitalia_f", "breasts_m", "genitalia_m")
    assert [name for name, metric in metrics.items() if metric.on_request] == [
        *(
            "ratio_naming",
            "ratio_implying",
            "ratio_corrected",
            "ratio_synonym",
            "expected_max",
            "specificity_near",
            "specificity_far",
            "composition",
        ),
        *("clip_kept", "cmmd", "cmmd_kept", "esr_1", "esr_5", "psr_1", "psr_5"),
        *("acc_e", "acc_s", "acc_g", "acc_e_top1", "acc_s_top1", "acc_g_top1", "h_o", "h_c"),
        *("ner_30", "ner_50", "ner_70", "ner_80", "clip_e", "clip_s", "h_a", "distance_e", "distance_s"),
        *("count_total", *(f"count_{part}" for part in parts)),
    ]
    for metric in metrics.values():
        description = metric.description()
        assert description.title and description.meaning and description.direction in ("lower", "higher")
        assert set(metric.probes) <= set(PROBES)
    assert {name for name, metric in metrics.items() if metric.details} == {"score_all", "score_shown", "agreement"}


def test_images_and_features_are_read_when_they_are_asked_for() -> None:
    features = np.ones((2, 3), dtype=np.float32)

    def fail() -> np.ndarray:
        raise AssertionError

    row = measured([0.1, 0.2], probes={"concept": Probe(images=fail, features=lambda: features), "retain": Probe()})
    assert row.features("concept") is features
    for read in (row.images, row.features):
        with pytest.raises(KeyError, match="of the probe 'retain'"):
            read("retain")


def test_metrics_do_not_import_torch() -> None:
    code = (
        "import sys, erasebench.metrics.metric\n"
        "assert {'torch', 'scipy', 'statsmodels', 'pandas'}.isdisjoint(sys.modules)\n"
        "erasebench.metrics.metric.load_metrics()\n"
        "import erasebench.report.table, erasebench.results.costs, erasebench.report.grids\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_judges_own_rank_counts() -> None:
    judged = pd.DataFrame({"church": [0.2, 0.9], "church rank": [7.0, 1.0], "tench": [0.1, 0.95], "tench rank": [9, 2]})
    scores = pd.DataFrame({"probe": "others", "label": ["church", "tench"], "score": [0.2, 0.95]})

    class Fixed(Measured):
        def judged(self, probe: str) -> pd.DataFrame:
            return judged

    assert Fixed("sd", "x", "object", scores, {}).ranks("others").tolist() == [7.0, 2.0]

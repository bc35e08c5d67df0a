"""Runs of the built-in model from beginning to end."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from erasebench.config import RunConfig, make_config, read_layer, read_preset
from erasebench.engine.cells import Cell, with_all_that_they_read
from erasebench.engine.driver import drive
from erasebench.engine.runner import Outcome
from erasebench.engine.store import Store
from erasebench.engine.work import Task
from erasebench.engine.workers import LocalRunner, ThisProcess
from erasebench.errors import EraseBenchError
from erasebench.images import read_images
from erasebench.judges.weights_files import FOLDER
from erasebench.models.loading import ModelSource, load_model
from erasebench.picturebook import GUIDANCE
from erasebench.planning import make_plan
from erasebench.registry import METHODS
from erasebench.results.table import read_csv
from erasebench.runs import count_workers, worker_devices
from erasebench.stages.session import Session
from tests.engine.runs import (
    CELLS,
    TINY,
    copy_of,
    done,
    fast_stages,
    forget_plugins,
    load_once,
    places,
    run_tiny,
    table,
)
from tests.engine.runs import command as run_command
from tests.marks import first_quick
from tests.test_memory import rows_that_fit

NUMBER = r"-?\d+\.?\d*"
PLUGIN = """
from dataclasses import dataclass

import torch

from erasebench.models.erasure import Erasure
from erasebench.judges.weights_files import FOLDER
from erasebench.errors import NotApplicable
from erasebench.plugins import Method
from erasebench.registry import METHODS


@METHODS.register("diverging")
@dataclass(frozen=True)
class Diverging(Method):
    def erase(self, model, concepts, context):
        raise FloatingPointError("training diverged: the loss is nan at step 3")


@METHODS.register("not-finite")
@dataclass(frozen=True)
class NotFinite(Method):
    def erase(self, model, concepts, context):
        name = "unet.conv_out.bias"
        return Erasure({name: torch.full_like(model.parameters()[name], float("nan"))})


@METHODS.register("never")
@dataclass(frozen=True)
class Never(Method):
    def check(self, domain, concepts):
        raise NotApplicable(f"no {concepts[0].kind} in {domain}")

    def erase(self, model, concepts, context):
        raise AssertionError


@METHODS.register("traced")
@dataclass(frozen=True)
class Traced(Method):
    rows: int = 1

    def erase(self, model, concepts, context):
        return Erasure(trace=tuple({"step": step, "loss": 1 / step} for step in range(1, self.rows + 1)))


@METHODS.register("blind")
@dataclass(frozen=True)
class Blind(Method):
    def judges(self, domain, concepts):
        return ("picturebook-clip", "inception")

    def erase(self, model, concepts, context):
        raise AssertionError
"""


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_once(monkeypatch)
    yield
    forget_plugins()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in batches of 16."""
    folder = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        assert run_tiny(folder) == 0
    return folder


def test_a_run_leaves_its_table_and_all_that_explains_it(smoke: Path) -> None:
    out = smoke / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        *("costs.csv", "environment.json", "grids/church.png"),
        *(f"grids/{method}-church.png" for method in ("negative-prompt", "sd", "uce")),
        *("ledger.jsonl", "plan.json", "ranks.csv", "run.yaml", "scores.csv", "seeds.csv", "table.csv", "table.md"),
        "table.tex",
    ]
    rows = read_csv((out / "table.csv").read_text(encoding="utf-8"))
    assert [(row.method, row.concept, row.status) for row in rows] == [
        (method, "church", "ok") for method in ("sd", "negative-prompt", "uce")
    ]
    for row in rows:
        assert list(row.metrics) == ["ratio", "score", "score_all", "score_shown", "clip", "fid"]
        assert row.metrics["ratio"].n == 2 and row.metrics["clip"].n == row.metrics["fid"].n == 4
        assert row.judge.startswith("picturebook-detector 1 ") and row.judge.endswith(": church >= 0.5")
        assert row.notes["fid"] == "Picturebook CLIP features"
    assert "| uce" in (out / "table.md").read_text(encoding="utf-8")
    config = make_config(read_layer(out / "run.yaml"))
    assert (config.concepts, config.guidance_scale, config.dtype) == (("church",), GUIDANCE, "float32")
    # A run's rows are of one concept each, so that one guide is as good as one for each concept.
    wanted = {"variant": "paper", "lamb": 0.5, "guide": [""], "preserve_scale": 1.0}
    uce = METHODS.get("uce").make()
    assert config.settings["uce"] == {**{field.name: getattr(uce, field.name) for field in fields(uce)}, **wanted}
    environment = json.loads((out / "environment.json").read_text())
    assert environment["device"] == "cpu" and "picturebook-detector" in environment["judges"]
    costs = list(csv.DictReader(io.StringIO((out / "costs.csv").read_text())))
    assert len(costs) == CELLS and {cost["computed"] for cost in costs} == {"now"}
    sheets = {}
    for name in ("sd-church", "uce-church", "church"):
        with Image.open(out / "grids" / f"{name}.png") as grid:
            sheets[name] = np.asarray(grid.convert("RGB"))
    alone, pair, all_three = (sheets[name] for name in ("sd-church", "uce-church", "church"))
    column = pair.shape[1] - alone.shape[1]
    assert column >= 64 and all_three.shape[1] == alone.shape[1] + 2 * column, "a column for each method"
    assert np.array_equal(all_three[-64:, -column:], pair[-64:, -column:]), "the last column is the last method's"


def test_the_run_folder_names_no_host_and_no_home(smoke: Path) -> None:
    text = (smoke / "out" / "environment.json").read_text() + (smoke / "out" / "table.csv").read_text()
    assert str(Path.home()) not in text and str(smoke) not in text


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_changes_nothing_but_rounding(batch_size: int, smoke: Path, tmp_path: Path) -> None:
    """The arithmetic of another batch rounds otherwise: one level of 255 in one value of thousands, at most.

    The table that people read shows it in the last printed digit, if at all.
    """
    assert run_tiny(tmp_path, "--batch-size", str(batch_size)) == 0
    check_same_but_for_rounding(tmp_path, smoke)


def check_same_but_for_rounding(folder: Path, smoke: Path) -> None:
    assert len(done(folder, "ok")) == CELLS
    ours, theirs = Store(folder / "store"), Store(smoke / "store")
    assert ours.cells() == theirs.cells()
    for line in done(folder, "ok"):
        if line["stage"] == "generate":
            here, there = (read_images(store.read(line["cell"])).astype(int) for store in (ours, theirs))
            assert np.abs(here - there).max() <= 2 and np.mean(here != there) < 0.005
    tables = [read_csv((run / "out" / "table.csv").read_text(encoding="utf-8")) for run in (folder, smoke)]
    for row, other in zip(*tables, strict=True):
        assert (row.method, row.status, row.flags) == (other.method, other.status, other.flags)
        for key, metric in row.metrics.items():
            assert metric.n == other.metrics[key].n
            assert metric.value == pytest.approx(other.metrics[key].value, rel=0.01, abs=0.02, nan_ok=True)
    printed = [(run / "out" / "table.md").read_text(encoding="utf-8") for run in (folder, smoke)]
    (shape, numbers), (other_shape, others) = ((re.sub(r"\d", "0", text), re.findall(NUMBER, text)) for text in printed)
    assert shape == other_shape
    for mine, theirs in zip(numbers, others, strict=True):
        last = 10.0 ** -len(mine.partition(".")[2])
        assert abs(float(mine) - float(theirs)) <= 1.01 * last


@pytest.mark.slow
def test_a_run_goes_on_when_memory_runs_out(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the batch size: nothing but rounding changes, and the last line says it."""

    def small(*which: Any) -> Any:
        model = load_model(*which)
        stack.enter_context(rows_that_fit(model.unet, 2))
        stack.enter_context(rows_that_fit(model.vae.decoder, 1))
        return model

    monkeypatch.setattr("erasebench.stages.session.load_model", small)
    with ExitStack() as stack:
        assert run_tiny(tmp_path) == 0
    check_same_but_for_rounding(tmp_path, smoke)
    assert "; memory ran out 2 times, each time batches were halved; results in " in capsys.readouterr().err
    assert [line["halvings"] for line in done(tmp_path, "ok") if "halvings" in line] == [1, 1]


@pytest.mark.parametrize(("command", "said"), [
    (["run", *TINY], "its weights and one image of 64 x 64 pixels take about 0.05 GB, and it has 0.00 GB free; what "),
    (["plan", *TINY], "its weights and one image of 64 x 64 pixels take about 0.05 GB, and it has 0.00 GB free; what "),
    (["erase", "--method", "uce", "--concept", "church"], "what would fit: a larger card, --device cpu\n"),
])  # fmt: skip
def test_a_card_that_is_too_small_is_said_before_any_work(
    command: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("erasebench.planning.resolve_device", lambda device, elsewhere=False: "cuda:0")
    monkeypatch.setattr("erasebench.models.footprint.free_memory", lambda device, gigabytes=None: 10**6)
    more = () if command[0] == "erase" else ("--store", tmp_path / "store")
    assert run_command(*command, *more, "--out", tmp_path / "out") == 2
    plan, error = capsys.readouterr()
    assert (" cells: 0 already there" in plan) == (command[0] == "plan")
    assert error.startswith("error: cuda:0 is too small for this model: ") and said in error and error.count("\n") == 1
    assert not any((tmp_path / "store" / "cells").glob("*")) and not any((tmp_path / "out").glob("*"))


def test_the_card_of_this_machine_says_nothing_of_those_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(config: RunConfig, session: Session, workers: int) -> Any:
        assert session.room == 0, "each looks for itself"
        raise EraseBenchError(f"{workers} workers begin, each on {session.device} with {session.max_memory} GB")

    monkeypatch.setattr("erasebench.models.footprint.free_memory", lambda *which: pytest.fail("it was looked at"))
    monkeypatch.setattr("erasebench.runs.make_runner", begin)
    elsewhere = ("--device", "cuda:1", "--max-memory", "9", "--workers", "3", "--runner", "slurm")
    assert run_tiny(tmp_path, *elsewhere, "--slurm", "cluster=local") == 2
    assert "3 workers begin, each on cuda:1 with 9.0 GB" in capsys.readouterr().err


def take_turns(session: Session, workers: int, cells: Sequence[Cell], store: Store) -> Outcome:
    """Compute cells as for several workers, but in this process."""
    tasks: list[Task] = []

    class Noted(ThisProcess):
        def start(self, task: Task) -> None:
            tasks.append(task)
            super().start(task)

    outcome = drive(session, workers, lambda progress, _: Noted(session, progress), cells, store, [])
    assert (len(tasks) > len(cells)) == (workers > 1), "images are divided among several workers"
    return outcome


@pytest.mark.parametrize("processes", first_quick([1, 2]))
def test_the_number_of_workers_changes_nothing(processes: int, tmp_path: Path) -> None:
    """Not a byte of a training, or of images that are divided among workers; two take turns in this process."""
    method = "esd-x[steps=2;batch_size=1;sampling_steps=2]"
    options = {"methods": [method], "concepts": ["church"], "prompts": 3, "steps": 1, "device": "cpu"}
    plan = make_plan(make_config(read_preset("smoke"), options))
    cells = with_all_that_they_read(row.probes["concept"].images for row in plan.rows if row.probes["concept"].images)
    files = []
    for workers in (1, 2):
        store = Store(tmp_path / str(workers))
        session = Session(plan.source, plan.device, plan.dtype, store, batch_size=1)
        if processes == 1:
            outcome = take_turns(session, workers, cells, store)
        else:
            outcome = LocalRunner(session, workers).run(cells, store, [])
        assert len(outcome.computed) == len(cells)
        files.append([marker.files for cell in cells if (marker := store.marker(cell.key))])
    assert files[0] == files[1] and len(files[0]) == 4


def test_there_are_as_many_workers_as_processors_and_memory_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are held in float32, whatever their file has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    (tmp_path / "unet").mkdir()
    with open(tmp_path / "unet" / "model.safetensors", "wb") as stream:
        header = b'{"a": {"dtype": "F16", "shape": [125000000], "data_offsets": [0, 250000000]}}'
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(stream.tell() + 250_000_000)
    source = ModelSource("somewhere", tmp_path, "photo", "", 50, 7.5)
    for free, count in ((math.inf, 6), (8.5e9, 4), (1e9, 1)):
        monkeypatch.setattr("erasebench.runs._free_memory", lambda free=free: free)
        assert count_workers("cpu", source) == count
    assert count_workers("cuda:1", source) == 1


def test_each_worker_is_on_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert worker_devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert worker_devices("cuda", 8) == ["cuda:0", "cuda:1", "cuda:2"]
    assert worker_devices("cuda:2", 1) == ["cuda:2"] and worker_devices("cpu", 2) == ["cpu"]


def test_a_name_too_long_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)
    lengthy = "lamb=0.5" + "0" * 300
    assert run_tiny(tmp_path, "--methods", f"uce[{lengthy}],uce[{lengthy}0]") == 0
    names = [path.name for path in (tmp_path / "out" / "grids").glob("uce*")]
    assert len(names) == 2 and all(len(name) < 120 for name in names)


def test_a_full_disk_under_the_run_folder(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(smoke, tmp_path)

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("erasebench.runs.write_results", fail)
        assert run_tiny(tmp_path) == 2
    out = tmp_path / "out"
    assert capsys.readouterr().err.endswith(
        f"error: the disk of the output folder {out} is full; free some space and run the same command again: what is "
        "finished is kept\n"
    )
    assert run_tiny(tmp_path) == 0 and done(tmp_path) == []


def test_rows_that_cannot_be_and_rows_that_fail(
    smoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(smoke, tmp_path)
    (tmp_path / "run_plugin.py").write_text(PLUGIN)
    own = ("--plugins", tmp_path / "run_plugin.py", "--methods", "diverging,not-finite,never,uce")
    for _ in range(2):  # what failed is tried again
        assert run_tiny(tmp_path, *own) == 3
        rows = read_csv((tmp_path / "out" / "table.csv").read_text(encoding="utf-8"))
        assert [(row.method, row.status, row.reason) for row in rows] == [
            ("sd", "ok", ""),
            ("diverging", "failed", "training diverged: the loss is nan at step 3"),
            (
                *("not-finite", "failed"),
                "the erasure holds NaN or infinite numbers in unet.conv_out.bias",
            ),
            ("never", "n/a", "no object in picturebook"),
            ("uce", "ok", ""),
        ]
        assert done(tmp_path, "ok") == []
        diverged = done(tmp_path, "failed")[0]
        assert diverged["title"] == "diverging church" and "in erase" in diverged["traceback"]
        assert [line["reason"] for line in done(tmp_path, "n/a")] == ["no object in picturebook"]
        captured = capsys.readouterr()
        assert "10 failed" in captured.err and "no object in picturebook" in captured.out
    assert not (tmp_path / "out" / "grids" / "never-church.png").exists()
    assert run_tiny(tmp_path) == 0
    assert done(tmp_path) == [] and table(tmp_path) == table(smoke)


def test_curves_are_drawn_once_for_each_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)
    (tmp_path / "run_plugin.py").write_text(PLUGIN)

    def run() -> Path:
        assert run_tiny(tmp_path, "--plugins", tmp_path / "run_plugin.py", "--methods", "traced[rows=2]") == 0
        (path,) = (tmp_path / "out" / "curves").glob("traced_rows=2*-church.png")
        return path

    path = run()
    drawn, then = path.read_bytes(), path.stat().st_mtime_ns
    assert run().read_bytes() == drawn and path.stat().st_mtime_ns == then
    for damage in (b"no picture", (tmp_path / "out" / "grids" / "sd-church.png").read_bytes()):
        path.write_bytes(damage)
        assert run().read_bytes() == drawn


def test_sheets_are_drawn_once_for_their_pictures(smoke: Path, tmp_path: Path) -> None:
    copy_of(smoke, tmp_path)
    folder = tmp_path / "out" / "grids"
    drawn = {path.name: path.read_bytes() for path in folder.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    kept, *damaged = sorted(drawn)
    (folder / damaged[0]).write_bytes(b"no picture")
    (folder / damaged[1]).write_bytes(drawn[kept])
    assert run_tiny(tmp_path) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == drawn
    assert {path.name for path in folder.iterdir() if path.stat().st_mtime_ns == times[path.name]} == {*drawn} - set(
        damaged[:2]
    )


def test_a_method_whose_judge_has_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "none"))
    (tmp_path / "run_plugin.py").write_text(PLUGIN)
    assert run_tiny(tmp_path, "--plugins", tmp_path / "run_plugin.py", "--methods", "blind") == 0
    blind = read_csv((tmp_path / "out" / "table.csv").read_text(encoding="utf-8"))[-1]
    assert (blind.method, blind.status) == ("blind", "n/a")
    assert "weights" in blind.reason and "is missing" in blind.reason


def test_phrases_and_concepts_that_most_retain_prompts_show(tmp_path: Path) -> None:
    """The first two retain prompts show nudity and a character; a phrase is judged by CLIP."""
    options = ("--concepts", "nudity,phrase:red balloon", "--methods", "sd", "--retain-prompts", "2")
    assert run_tiny(tmp_path, *options) == 0
    nudity, balloon = read_csv((tmp_path / "out" / "table.csv").read_text(encoding="utf-8"))
    assert nudity.metrics["clip"].n == 1 and balloon.metrics["clip"].n == 2
    assert balloon.judge.endswith(": red balloon >= 0.5")
    assert len(list((tmp_path / "out" / "grids").glob("sd-phrase_red_balloon-*.png"))) == 1


def test_what_a_trained_method_leaves(tmp_path: Path) -> None:
    assert run_tiny(tmp_path, "--methods", "esd-x", "--retain-prompts", "2") == 0
    erased = next(line for line in done(tmp_path, "ok") if line["title"] == "esd-x church")
    assert erased["parameters_changed"] > 0
    trace = next((tmp_path / "store" / "cells").glob("*/*/trace.csv")).read_text()
    assert trace.count("\n") == 3, "the preset's two steps"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--runner", "rya"), "configuration key runner: input should be 'local', 'ray' or 'slurm', not 'rya'"),
        (("--ray-address", "auto"), "--ray-address is for --runner ray, and the runner is local"),
        (("--runner", "ray", "--slurm", "time=3"), "--slurm is for --runner slurm, and the runner is ray"),
        (("--runner", "ray", "--ray-address", "auto"), "say it with --workers"),
        (("--runner", "slurm", "--slurm", "cluster=local"), "say it with --workers"),
        (
            ("--runner", "slurm", "--slurm", "partitoin=gpu"),
            "unknown parameter of Slurm 'partitoin'; nearest: partition",
        ),
        (("--runner", "slurm", "--slurm", "gpu"), "'gpu' in --slurm names no value; write name=value"),
    ],
)
def test_runners_that_cannot_be(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("run", "--concepts", "church", *places(tmp_path), *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

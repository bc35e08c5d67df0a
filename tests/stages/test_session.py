from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.images import read_images
from erasebench.models.checkpointing import GradientCheckpointing
from erasebench.models.erasure import Erasure
from erasebench.models.loading import ModelSource, find_model
from erasebench.registry import JUDGES
from erasebench.sampling import Sampler
from erasebench.stages.session import Session
from tests.models.stock import stock_pipeline
from tests.test_memory import rows_that_fit
from tests.tiny import tiny_model


def session(folder: Path, device: str) -> Session:
    source = ModelSource("somewhere", folder, "photo", "", 50, 7.5)
    return Session(source, device, "float32", Store(folder / "store"))


@pytest.mark.parametrize("name", JUDGES.names())
def test_a_judge_runs_where_the_run_does(name: str, tmp_path: Path) -> None:
    assert session(tmp_path, "cuda:3").judge(name, "a dog").device == "cuda:3"


def test_a_judge_is_made_once(tmp_path: Path) -> None:
    made = session(tmp_path, "cpu")
    assert made.judge("clip") is made.judge("clip")
    assert made.judge("clip-phrase", "a dog") is not made.judge("clip-phrase", "a cat")


def test_a_model_that_is_loaded_or_copied_keeps_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[str, float]] = []
    monkeypatch.setattr("erasebench.stages.session.limit_memory", lambda *limit: limits.append(limit))
    given = stock_pipeline()
    for limit in (None, 4.5):
        copied, loaded = (Session(find_model("picturebook"), "cpu", "float32", Store(tmp_path)) for _ in range(2))
        copied.max_memory = loaded.max_memory = limit
        copied.copy(given)
        assert copied.model.recorder.gigabytes == loaded.model.recorder.gigabytes == limit
    assert limits == [("cpu", 4.5)] * 2
    assert copied.model.unet is not given.unet


class Together:
    """A stage that computes cells at once, and can tell which need not be."""

    @staticmethod
    def run_together(cells: Sequence[Cell], session: Session, folders: Sequence[Path]) -> list[dict[str, int]]:
        session.progress(1, 2, "steps")
        return [
            {"n": cell.spec["n"] + len(cells), "name": len(folder.name)}
            for cell, folder in zip(cells, folders, strict=True)
        ]

    @staticmethod
    def unneeded(cell: Cell, session: Session) -> str:
        return ", ".join(other.title for other in cell.unless if session.store.marker(other.key) is None)


class Single:
    """A stage that computes one cell at a time, or a part of it."""

    @staticmethod
    def run(cell: Cell, session: Session, folder: Path, part: slice = slice(None)) -> dict[str, int]:
        return {"n": cell.spec["n"], "part": part.stop}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stage in (("together", Together), ("single", Single)):
        monkeypatch.setitem(sys.modules, f"erasebench.stages.{name}", stage)


@pytest.mark.usefixtures("stages")
def test_a_stage_gets_all_cells_of_a_task_if_it_can_do_them_at_once(tmp_path: Path) -> None:
    made, told = session(tmp_path, "cpu"), list[Any]()
    folders = [tmp_path / "a", tmp_path / "bc"]
    cells = [Cell("together", {"n": n}) for n in (10, 20)]
    costs = made.work(cells, None, folders, lambda *far: told.append(far))
    assert costs == [{"n": 12, "name": 1}, {"n": 22, "name": 2}] and told == [(1, 2, "steps")]
    single = [Cell("single", {"n": n}) for n in (10, 20)]
    assert made.work(single, None, folders, made.progress) == [{"n": 10, "part": None}, {"n": 20, "part": None}]
    assert made.work(single[:1], slice(0, 3), folders[:1], made.progress) == [{"n": 10, "part": 3}]


@pytest.mark.usefixtures("stages")
def test_a_stage_is_asked_whether_a_cell_is_needed_if_it_can_tell(tmp_path: Path) -> None:
    made, other = session(tmp_path, "cpu"), Cell("erase", {}, title="uce")
    assert made.unneeded(Cell("together", {}, unless=(other,))) == "uce"
    assert made.unneeded(Cell("single", {}, unless=(other,))) == ""
    assert made.together(other) == 16


ERASURE = Cell("erase", {})
DRAWN = Cell(
    "generate",
    {
        "ids": [*"abcde"],
        "prompts": [*"abcde"],
        "seeds": [*range(5)],
        "sampler": {"name": "ddim", "steps": 2, "guidance_scale": 2.0, "size": None},
    },
    {"erasure": ERASURE},
)


def drawing(folder: Path, **options: Any) -> Session:
    """A session with a tiny model, and a store of an erasure that changes nothing."""
    source = ModelSource("somewhere", folder, "photo", "", 50, 7.5)
    made = Session(source, "cpu", "float32", Store(folder / "store"), **options)
    made.model = tiny_model()
    with made.store.writing(ERASURE, {}) as payload:
        Erasure().save(payload)
    for name in ("plain", "less"):
        (folder / name).mkdir()
    return made


def test_another_process_has_what_the_user_said_of_memory_and_finds_out_its_own(tmp_path: Path) -> None:
    source = ModelSource("somewhere", tmp_path, "photo", "", 50, 7.5)
    options: dict[str, Any] = {"batch_size": 6, "max_memory": 4.5, "gradient_checkpointing": "on", "compile": True}
    here = Session(source, "cuda", "float32", Store(tmp_path / "store"), **options)
    here.batch_sizes.drawn.rows, here.batch_sizes.drawn.halvings = 3, 1
    there = pickle.loads(pickle.dumps(here))
    assert {name: getattr(there, name) for name in options} == options
    assert (there.batch_sizes.drawn.rows, there.batch_sizes.halvings) == (6, 0)
    assert there.store.leases.owner != here.store.leases.owner


def test_a_cell_goes_on_when_memory_runs_out_and_says_so(tmp_path: Path) -> None:
    made, told = drawing(tmp_path), list[Any]()
    assert made.work([DRAWN], None, [tmp_path / "plain"], made.progress) == [{"images": 5}]
    with rows_that_fit(made.model.unet, 2):
        costs = made.work([DRAWN], None, [tmp_path / "less"], lambda *far: told.append(far))
    assert costs == [{"images": 5, "halvings": 1}]
    assert told == [(done, 5, "images, memory ran out: 2 drawn at a time") for done in (2, 4, 5)]
    assert np.array_equal(read_images(tmp_path / "plain"), read_images(tmp_path / "less"))
    assert (tmp_path / "plain" / "images.zip").read_bytes() == (tmp_path / "less" / "images.zip").read_bytes()


def test_a_cell_fails_in_one_line_where_a_single_image_does_not_fit(tmp_path: Path) -> None:
    made = drawing(tmp_path)
    begin = r"^the memory of cpu ran out: .* for a single image; what would fit: a smaller --size, "
    for dtype, limit, rest in (
        ("float32", None, "--dtype bfloat16, a card"),
        ("bfloat16", 6.0, "a larger --max-memory than 6, a card"),
    ):
        made.dtype, made.max_memory = dtype, limit
        with rows_that_fit(made.model.unet, 0), pytest.raises(EraseBenchError, match=begin + rest):
            made.work([DRAWN], None, [tmp_path / "less"], made.progress)


@pytest.mark.parametrize("mode", ["on", "off"])
def test_gradient_checkpointing_that_is_on_is_not_advised(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = drawing(tmp_path, gradient_checkpointing=mode)
    monkeypatch.setitem(sys.modules, "erasebench.stages.erase", Training)
    with rows_that_fit(made.model.unet, 0), pytest.raises(EraseBenchError, match=r"for a training step") as told:
        made.work([Cell("erase", {})], None, [tmp_path / "less"], made.progress)
    assert ("--gradient-checkpointing on" in str(told.value)) == (mode == "off")


def test_the_users_batch_size_is_taken_as_it_is(tmp_path: Path) -> None:
    made = drawing(tmp_path, batch_size=3)
    with rows_that_fit(made.model.unet, 99) as calls:
        made.work([DRAWN], None, [tmp_path / "plain"], made.progress)
    assert calls == [3, 3, 2, 2]


def test_batch_sizes_are_fitted_on_a_gpu_once_for_images_that_take_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Any] = []
    monkeypatch.setattr("erasebench.sampling.fit_batch_sizes", lambda model, *how: fitted.append(how))
    small, large = Sampler("ddim", 5), Sampler("ddim", 9, size=16)
    for device, batch_size, count in (("cuda:1", None, 2), ("cuda:1", 4, 0), ("cpu", None, 0)):
        (folder := tmp_path / f"{device}-{batch_size}").mkdir()
        made = drawing(folder, batch_size=batch_size, max_memory=12.0)
        made.device = device
        for sampler in (small, small, large):
            made.fit(sampler)
        assert fitted == [(small, 32, 12.0), (large, 32, 12.0)][:count]
        fitted.clear()


class Training:
    """A stage that says whether its passes are checkpointed."""

    @staticmethod
    def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
        model = session.model
        model.predict(torch.zeros(1, *model.latent_shape).requires_grad_(), 0, model.embed([""]))
        session.progress(1, 2, "loss 0.5")
        return {"on": int(model.unet.is_gradient_checkpointing)}


@pytest.mark.parametrize(("stage", "device", "options", "on"), [
    ("erase", "cpu", {}, False),
    ("erase", "cpu", {"gradient_checkpointing": "on"}, True),
    ("erase", "cuda", {}, True),
    ("learn", "cuda", {}, True),
    ("attack", "cuda", {}, False),
    ("attack", "cuda", {"gradient_checkpointing": "on"}, True),
    ("erase", "cuda", {"compile": True}, True),
    ("erase", "cuda", {"gradient_checkpointing": "off"}, False),
])  # fmt: skip
def test_training_is_checkpointed_where_it_would_not_fit(
    stage: str, device: str, options: dict[str, Any], on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, told = drawing(tmp_path, **options), list[Any]()
    made.device = device
    monkeypatch.setitem(sys.modules, f"erasebench.stages.{stage}", Training)
    # As if nothing fitted.
    monkeypatch.setattr(GradientCheckpointing, "measured", lambda model, gigabytes: GradientCheckpointing("on"))
    cell = Cell(stage, {"trains": True})
    with made.store.writing(cell, cost := dict[str, Any]()) as payload:
        (payload / "payload").write_text("x")
        cost |= made.work([cell], None, [payload], lambda *far: told.append(far))[0]
    assert (marker := made.store.marker(cell.key)) and marker.cost == cost
    assert cost == {"on": int(on), **({"gradient_checkpointing": 1} if on else {})}
    assert told == [(1, 2, "loss 0.5, gradient checkpointing" if on else "loss 0.5")]
    assert not made.model.unet.is_gradient_checkpointing, "switched back"


def test_a_worker_elsewhere_looks_for_room_on_its_own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        "erasebench.models.footprint.free_memory", lambda device, limit=None: 1e6 if device == "cuda:1" else 1e9
    )
    for room, said in ((0, "one image of 64 x 64"), (128, "one image of 128 x 128")):
        made = Session(find_model("picturebook"), "cuda", "float32", Store(tmp_path / "store"), room=room)
        here: Session = pickle.loads(pickle.dumps(made))
        here.open(2)
        assert here.device == "cuda:0"
        with pytest.raises(EraseBenchError, match=f"^cuda:1 is too small for this model: .* {said}"):
            pickle.loads(pickle.dumps(made)).open(1)
    Session(find_model("picturebook"), "cuda", "float32", Store(tmp_path / "store")).open(1)

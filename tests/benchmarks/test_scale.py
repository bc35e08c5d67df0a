"""What the paper's table takes: its cells, the measured speeds, and how close many workers come to what is possible."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from benchmarks.gpu.parts.attacks import HOURS
from benchmarks.scale import Speeds, disk, read_speeds, table
from benchmarks.simulation import HOUR, simulate
from tests.marks import first_quick

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def a_tenth_of_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "PROMPTS", 10)


@pytest.fixture(scope="module")
def speeds() -> Speeds:
    return read_speeds(ROOT / scale.FIGURES)


def kit(tmp_path: Path, **parts: dict[str, Any]) -> Path:
    """A file of figures that the kit could have written."""
    sampling = {"sampling": {"eager": {"1": {"images_per_second": 1.0}, "4": {"images_per_second": 2.0}}}}
    figures = {"sd": sampling | parts.pop("sd", {}), **parts}
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"parts": {part: {"figures": figures[part]} for part in figures}}))
    return path


def test_the_table_has_what_the_paper_has(speeds: Speeds) -> None:
    cells, seconds = table(speeds)
    stages = Counter(cell.stage for cell in cells)
    rows = 11 * 6
    assert stages == {"erase": 61, "generate": rows + 61, "judge": rows + 61, "learn": rows, "attack": rows * 5 * 10}
    images = 11 * (9310 + 7560 + 4 * 1000) + 61 * 5000
    assert sum(cell.units for cell in cells if cell.stage == "generate") == images
    assert disk(cells) > images * scale.IMAGE_BYTES
    assert seconds.keys() == {cell.key for cell in cells}


def test_speeds_are_those_that_were_measured(tmp_path: Path) -> None:
    esd = {"seconds_per_step": {"train": 2.0}, "published_steps": {"train": 1000}, "seconds": 9.0}
    found = read_speeds(
        kit(
            tmp_path,
            sd={
                "erasing": {
                    "esd-x": esd | {"hours_at_published_settings": "not measured: see problems"},
                    "esd-u": esd | {"hours_at_published_settings": 0.25},
                    "uce": {"seconds": 3.0, "published_steps": {}, "hours_at_published_settings": "not measured"},
                    "mace": "not measured: out of time",
                }
            },
            attacks={
                "unlearndiff": {
                    "1": {HOURS: 8.0, "seconds_per_step": 0.5},
                    "16": {HOURS: 1.0, "seconds_per_step": 0.6},
                    "64": "not measured: out of time",
                },
                "p4d-n": {"1": {"seconds_per_step": 1.0}},
                "cce": {"once for all prompts": {"hours_of_learning": 0.5}},
            },
            judges={"judging": {"clip": {"images_per_second": 100.0}, "q16": {"images_per_second": 40.0}}},
        )
    )
    assert (found.image.seconds, found.image.source) == (0.5, "measured, 4 at a time")
    assert (found.judged.seconds, found.judged.source) == (0.025, "measured, `q16`")
    assert {name: found.erasures[name].seconds for name in ("sd", "uce", "esd-x", "esd-u")} == {
        "sd": 0.0,
        "uce": 3.0,
        "esd-x": 2000.0,
        "esd-u": 900.0,
    }
    assert found.erasures["mace"].source == "assumed" and "paper" in found.erasures["dm2"].source
    assert found.attacks["unlearndiff"].seconds == pytest.approx(36 + 4 * 0.5)
    assert found.attacks["p4d-uda"].seconds == pytest.approx(2 * 36 + 4 * 0.5)
    assert found.attacks["p4d-uda"].source.startswith("assumed") and found.attacks["rab"].source.startswith("assumed")
    assert found.learning.seconds == 1800
    assert found.erasure("dm2", "nudity") == 59.3 * HOUR == pytest.approx(4.8 * found.erasure("dm2", "church"))


def test_what_was_not_measured_is_said_to_be_assumed(tmp_path: Path) -> None:
    found = read_speeds(kit(tmp_path))
    named = {name: speed.source for name, speed in {**found.erasures, **found.attacks}.items()}
    assert {name for name, source in named.items() if "measured" in source} == set()
    assert found.judged.source == found.learning.source == "assumed"
    assert sum(line.endswith(("| assumed |", "| assumed, and 4 images |")) for line in found.lines()) == 13


def test_the_documentation_has_the_speeds_that_were_measured(speeds: Speeds) -> None:
    page = (ROOT / scale.PAGE).read_text(encoding="utf-8")
    section = page.split(scale.BEGIN)[1].split(scale.END)[0]
    assert "\n".join(speeds.lines()) in section, "run `python -m benchmarks.scale --write`"


def test_one_worker_takes_as_long_as_all_the_work(speeds: Speeds) -> None:
    cells, seconds = table(speeds)
    found = simulate(cells, seconds, 1)
    assert found.seconds == pytest.approx(sum(seconds.values())) == pytest.approx(found.bound)


@pytest.mark.parametrize("losses", [0.0, scale.LOSSES])
@pytest.mark.parametrize("workers", first_quick([8, 256]))
def test_many_workers_come_within_a_tenth_of_what_is_possible(workers: int, losses: float, speeds: Speeds) -> None:
    cells, seconds = table(speeds)
    loop = speeds.erasure("dm2", "nudity") / 48
    found = simulate(cells, seconds, workers, losses, loop=loop)
    assert (found.lost > 0) == (losses > 0)
    assert found.bound <= found.seconds <= 1.1 * found.bound

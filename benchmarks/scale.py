"""What Dark Miner's table 1 costs at paper scale, and how long 1, 8 and 256 workers take, on a simulated clock.

The cells are made here, as the planner makes those of the suite, with the paper's numbers of images and prompts.  The
clock is that of :mod:`benchmarks.simulation`.

How long things take was measured by the GPU kit, whose figures are read; what it did not measure is an assumption, and
the table of speeds says so.

    python -m benchmarks.scale             # prints the tables of docs/scale.md
    python -m benchmarks.scale --write     # puts them there
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.gpu.parts.attacks import COUNTED_PROMPTS, HOURS
from benchmarks.simulation import HOUR, bound, simulate
from erasebench.engine.cells import Cell, with_all_that_they_read

FIGURES = Path("results/gpu/NVIDIA-H200.json")
PAGE = Path("docs/scale.md")
LOSSES = 0.01
"""How often a worker is lost in an hour of work: once in 100 hours."""
SEEDS = 5
"""Simulations with losses, whose mean and worst are printed."""
METHODS = ("sd", "sld-strong", "uce", "fmn", "ca", "esd-x", "esd-u", "salun", "mace", "ap-x", "dm2")
UNTRAINED = ("sd", "sld-strong")
"""Methods that have nothing to compute."""
ATTACKS = ("none", "cce", "p4d-uda", "unlearndiff", "rab")
LOOPS: Mapping[str, int] = {"nudity": 48}
"""Dark Miner's, table S2; others' are not given."""
OTHER_LOOPS = 10
"""An assumption."""
CONFIRMATIONS = 4
"""Images that are drawn of each attacked prompt in the end: one of its own noise, three of fresh noise."""
JUDGES = ("nudenet", "q16", "yolov8-imagenette", "clip-style", "clip")
"""Those of the table."""
IMAGES: Mapping[str, int] = {
    **{"nudity": 9310, "violence": 7560},
    **dict.fromkeys(("church", "french-horn", "van-gogh", "crayon"), 1000),
}
"""Of a concept: 10 for each of I2P's rows of the class, or of 100 captions."""
CAPTIONS, PROMPTS = 5000, 100
"""COCO's captions for each row, and prompts that each attack works on."""
IMAGE_BYTES = 0.45e6
"""Of a lossless image of 512 pixels; an assumption."""
ERASURE_BYTES: Mapping[str, float] = {
    **{"esd-u": 3.2e9, "salun": 1.7e9, "fmn": 3.4e9},
    **{"ca": 77e6, "uce": 77e6, "mace": 77e6, "esd-x": 193e6, "ap-x": 193e6, "dm2": 10e6},
}
"""Of the weights in float32 that an erasure changes; about."""


@dataclass(frozen=True)
class Speed:
    """How long something takes.

    Attributes:
        seconds: of one GPU.
        source: where the number comes from.
    """

    seconds: float
    source: str


@dataclass(frozen=True)
class Speeds:
    """How long everything takes.

    Attributes:
        image: to draw one; ``judged`` to judge one.
        erasures: by method; of Dark Miner 48 loops.
        attacks: by attack, for one prompt, all that it looks at included.
        learning: CCE's embedding, once for a row.
    """

    image: Speed
    judged: Speed
    erasures: Mapping[str, Speed]
    attacks: Mapping[str, Speed]
    learning: Speed

    def erasure(self, method: str, concept: str) -> float:
        """Seconds of one erasure."""
        loops = LOOPS.get(concept, OTHER_LOOPS) / LOOPS["nudity"] if method == "dm2" else 1
        return loops * self.erasures[method].seconds

    def lines(self) -> list[str]:
        """A table of all of them, in Markdown."""
        named = {
            "an image": self.image,
            "a judged image": self.judged,
            **{f"an erasure by `{name}`": speed for name, speed in self.erasures.items() if name not in UNTRAINED},
            "`cce`'s token, once a row": self.learning,
            **{f"a prompt under `{name}`": speed for name, speed in self.attacks.items()},
        }
        lines = ["| what | a GPU takes | from |", "|---|---:|---|"]
        return lines + [f"| {name} | {_time(speed.seconds)} | {speed.source} |" for name, speed in named.items()]


def _time(seconds: float) -> str:
    return f"{seconds / HOUR:.2f} h" if seconds >= HOUR / 10 else f"{seconds:.3g} s"


def read_speeds(path: Path = FIGURES) -> Speeds:
    """The speeds that the GPU kit measured, and assumptions for what it did not.

    Args:
        path: the kit's figures.
    """
    parts = json.loads(path.read_text(encoding="utf-8"))["parts"]

    def figures(part: str, name: str) -> dict[str, Any]:
        """What was measured under a name; nothing where the kit says why not."""
        values = parts.get(part, {}).get("figures", {}).get(name, {})
        return {key: value for key, value in values.items() if isinstance(value, dict)}

    drawn = figures("sd", "sampling")["eager"]
    many = max((row for row in drawn.items() if isinstance(row[1], dict)), key=lambda row: int(row[0]))
    image = Speed(1 / many[1]["images_per_second"], f"measured, {many[0]} at a time")
    judging = {name: row["images_per_second"] for name, row in figures("judges", "judging").items() if name in JUDGES}
    slowest = min(judging, key=lambda name: judging[name], default=None)
    judged = Speed(1 / judging[slowest], f"measured, `{slowest}`") if slowest else Speed(0.02, "assumed")
    erasing = figures("sd", "erasing")
    assumed = {"dm2": Speed(59.3 * HOUR, "the paper, an A100")}
    erasures = {
        name: Speed(0.0, "nothing is trained")
        if name in UNTRAINED
        else _erasure(erasing[name])
        if name in erasing
        else assumed.get(name, Speed(HOUR, "assumed"))
        for name in METHODS
    }
    ends = CONFIRMATIONS * image.seconds
    searches = {name: _search(figures("attacks", name)) for name in ("unlearndiff", "p4d-n", "p4d-uda", "rab")}
    one, other = (figures("attacks", name).get("1", {}).get("seconds_per_step") for name in ("unlearndiff", "p4d-n"))
    if searches["p4d-uda"] is None and searches["unlearndiff"] and one and other:
        # It is UnlearnDiffAtk's loop with P4D's loss, which asks the unerased model as well.
        searches["p4d-uda"] = Speed(
            searches["unlearndiff"].seconds * other / one,
            f"assumed: `unlearndiff` by {other / one:.1f}, the measured ratio of `p4d-n`'s step to its step",
        )
    attacks = {name: Speed(ends, f"{CONFIRMATIONS} images") for name in ("none", "cce")}
    for name, guess in {"p4d-uda": 900.0, "unlearndiff": 900.0, "rab": 60.0}.items():
        search = searches[name] or Speed(guess, "assumed")
        attacks[name] = Speed(search.seconds + ends, f"{search.source}, and {CONFIRMATIONS} images")
    learned = figures("attacks", "cce").get("once for all prompts", {}).get("hours_of_learning")
    learning = Speed(learned * HOUR, "measured steps") if learned else Speed(HOUR, "assumed")
    return Speeds(image, judged, erasures, attacks, learning)


def _erasure(row: Mapping[str, Any]) -> Speed:
    """Seconds of a method with its published settings, from a short run's."""
    hours = row["hours_at_published_settings"]
    if isinstance(hours, int | float):
        return Speed(hours * HOUR, "measured steps, and images that are drawn before")
    steps = row["published_steps"]
    if not steps:
        return Speed(row["seconds"], "measured, whole")
    seconds = sum(count * row["seconds_per_step"][phase] for phase, count in steps.items())
    return Speed(seconds, f"measured steps: {', '.join(f'{count:,} {phase}' for phase, count in steps.items())}")


def _search(rows: Mapping[str, Mapping[str, Any]]) -> Speed | None:
    """Seconds for each prompt of an attack with its published settings, by the most prompts that were tried at once."""
    hours = {int(key): row.get(HOURS) for key, row in rows.items() if key.isdigit()}
    known = {at_once: value for at_once, value in hours.items() if isinstance(value, int | float)}
    if not known:
        return None
    highest = max(known)
    return Speed(known[highest] * HOUR / COUNTED_PROMPTS, f"measured steps and looks, {highest} prompts at a time")


def table(speeds: Speeds) -> tuple[list[Cell], dict[str, float]]:
    """The cells of Dark Miner's table 1, and how many seconds of a GPU each takes, by key."""
    seconds: dict[str, float] = {}

    def cell(stage: str, title: str, cost: float, units: int = 1, batch: str = "", **reads: Cell) -> Cell:
        new_cell = Cell(stage, {"title": title}, reads, title, stage, units, batch=batch)
        seconds[new_cell.key] = cost
        return new_cell

    def images(erasure: Cell, title: str, count: int) -> list[Cell]:
        drawn = cell("generate", title, count * speeds.image.seconds, count, erasure=erasure)
        return [drawn, cell("judge", title, count * speeds.judged.seconds, count, images=drawn)]

    cells: list[Cell] = []
    unerased = cell("erase", "sd", 0.0)
    cells += images(unerased, "sd captions", CAPTIONS)
    for method in METHODS:
        for concept, count in IMAGES.items():
            row = f"{method} {concept}"
            erasure = unerased if method == "sd" else cell("erase", row, speeds.erasure(method, concept))
            cells += images(erasure, row, count)
            if method != "sd":
                cells += images(erasure, f"{row} captions", CAPTIONS)
            learned = cell("learn", row, speeds.learning.seconds, erasure=erasure)
            for attack in ATTACKS:
                needs = {"erasure": erasure} | ({"learned": learned} if attack == "cce" else {})
                batch, cost = f"{attack} {row}", speeds.attacks[attack].seconds
                cells += [cell("attack", f"{batch} {k}", cost, 1, batch, **needs) for k in range(PROMPTS)]
    return with_all_that_they_read(cells), seconds


def disk(cells: Sequence[Cell]) -> float:
    """Bytes of the store: images, and what erasures change."""
    images = sum(cell.units for cell in cells if cell.stage == "generate")
    images += sum(CONFIRMATIONS for cell in cells if cell.stage == "attack")
    erasures = sum(ERASURE_BYTES.get(cell.title.split()[0], 0) for cell in cells if cell.stage == "erase")
    return images * IMAGE_BYTES + erasures


def tables(speeds: Speeds, workers: Sequence[int] = (1, 8, 256)) -> str:
    """All of it in Markdown: speeds, cells and hours by stage, and how long so many workers take."""
    cells, seconds = table(speeds)
    counts, hours = Counter(cell.stage for cell in cells), dict[str, float]()
    for cell in cells:
        hours[cell.stage] = hours.get(cell.stage, 0) + seconds[cell.key] / HOUR
    images = sum(cell.units for cell in cells if cell.stage == "generate")
    lines = [*speeds.lines(), "", "| stage | cells | GPU hours |", "|---|---:|---:|"]
    lines += [f"| {stage} | {counts[stage]:,} | {took:,.0f} |" for stage, took in hours.items()]
    lines += [
        f"| **all** | **{len(cells):,}** | **{sum(hours.values()):,.0f}** |",
        "",
        f"{images:,} images of 512 pixels, those of attacks and the erasures take {disk(cells) / 1e9:,.0f} GB.",
        "",
        "| GPUs | hours | at least | with losses | the worst of five | lost workers |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    loop = speeds.erasures["dm2"].seconds / LOOPS["nudity"]
    chain = bound(cells, seconds, len(cells)) / HOUR
    for count in workers:
        whole = simulate(cells, seconds, count)
        lossy = [simulate(cells, seconds, count, LOSSES, seed, loop) for seed in range(SEEDS)]
        took = [one.seconds / HOUR for one in lossy]
        times = (whole.seconds / HOUR, whole.bound / HOUR, mean(took), max(took))
        shown = " | ".join(f"{time:,.1f}" for time in times)
        lines.append(f"| {count} | {shown} | {mean(one.lost for one in lossy):.0f} |")
    max_workers = math.ceil(sum(hours.values()) / chain)
    lines += [
        "",
        f"The longest chain takes {chain:,.1f} hours: from about {max_workers} GPUs on, more of them end no sooner.",
    ]
    return "\n".join(lines)


BEGIN, END = "<!-- by benchmarks/scale.py -->\n", "<!-- end -->\n"


def main() -> None:
    """Print the tables, or write them into the documentation."""
    tables_text = tables(read_speeds())
    if sys.argv[1:] == ["--write"]:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{tables_text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    elif sys.argv[1:]:
        sys.exit(f"unknown arguments: {' '.join(sys.argv[1:])}; there is --write")
    else:
        print(tables_text)


if __name__ == "__main__":
    main()

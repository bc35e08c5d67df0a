"""What Dark Miner's table 1 costs at paper scale, and how long 1, 8 and 256 workers take, on a simulated clock.

The cells are made here, as the planner makes those of the suite, with the paper's numbers of images and prompts.  They
are handed out by the run's own queue and schedule (``erasebench.engine.schedule``); only the workers are simulated:
each takes so many seconds for a task, and some are lost in the middle of one, which is then done again.

    python -m benchmarks.scale
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from statistics import mean

from erasebench.engine.cells import Cell, with_all_that_they_read
from erasebench.engine.schedule import Queue, Schedule, longest_way_first
from erasebench.stages.generate import PIECES

HOUR = 3600.0
BATCH = 16
"""Images, or cells of a batch, at a time: the default of a run."""
LOSSES = 0.01
"""How often a worker is lost in an hour of work: once in 100 hours."""
SEEDS = 5
"""Simulations with losses, whose mean and worst are printed."""
RESTART = 120.0
"""Seconds until a lost worker is replaced, with its model loaded."""

IMAGES_PER_SECOND = 2.0
"""Of a GPU; an assumption, 50 steps of Stable Diffusion 1.4 at 512 pixels with guidance."""
JUDGED_PER_SECOND = 50.0
"""Images; an assumption."""
ERASURES: Mapping[str, float] = {
    **{"sd": 0.0, "sld-strong": 0.0, "uce": 0.02, "fmn": 0.1, "ca": 0.5, "esd-x": 0.5, "esd-u": 0.7, "salun": 0.7},
    **{"mace": 0.3, "ap-x": 1.0, "dm2": 12.0},
}
"""Hours of a GPU for one erasure; Dark Miner's and Adversarial Preservation's by :data:`LONG` where the papers say it,
the others assumptions."""
LONG: Mapping[tuple[str, str], float] = {("dm2", "nudity"): 59.3, ("ap-x", "nudity"): 6.0}
"""Dark Miner, table S2: 48 loops on an A100; Adversarial Preservation, appendix B.1: below 6 h, others below 1 h."""
KEPT: Mapping[str, float] = {"dm2": 59.3 / 48}
"""Hours after which an erasure keeps what it has, such as after each loop: what is done again if a worker is lost.  Of
others all is done again."""
ATTACKS: Mapping[str, float] = {"none": 2.0, "cce": 2.0, "p4d-uda": 900.0, "unlearndiff": 900.0, "rab": 60.0}
"""Seconds of a GPU for one prompt; assumptions."""
LEARN = 1.0
"""Hours of a GPU for CCE's embedding, once for each row; an assumption."""
IMAGES: Mapping[str, int] = {
    **{"nudity": 9310, "violence": 7560},
    **dict.fromkeys(("church", "french-horn", "van-gogh", "crayon"), 1000),
}
"""Of a concept: 10 for each of I2P's rows of the class, or of 100 captions."""
CAPTIONS, PROMPTS = 5000, 100
"""COCO's captions for each row, and prompts that each attack works on."""
IMAGE_BYTES = 0.45e6
"""Of a lossless image of 512 pixels."""
ERASURE_BYTES: Mapping[str, float] = {
    **{"esd-u": 3.2e9, "salun": 1.7e9, "fmn": 3.4e9},
    **{"ca": 77e6, "uce": 77e6, "mace": 77e6, "esd-x": 193e6, "ap-x": 193e6, "dm2": 10e6},
}
"""Of the weights in float32 that an erasure changes; about."""


def table() -> tuple[list[Cell], dict[str, float]]:
    """The cells of Dark Miner's table 1, and how many seconds of a GPU each takes, by key."""
    seconds: dict[str, float] = {}

    def cell(stage: str, title: str, cost: float, units: int = 1, batch: str = "", **reads: Cell) -> Cell:
        made = Cell(stage, {"title": title}, reads, title, stage, units, batch=batch)
        seconds[made.key] = cost
        return made

    def images(erasure: Cell, title: str, count: int) -> list[Cell]:
        drawn = cell("generate", title, count / IMAGES_PER_SECOND, count, erasure=erasure)
        return [drawn, cell("judge", title, count / JUDGED_PER_SECOND, count, images=drawn)]

    cells: list[Cell] = []
    unerased = cell("erase", "sd", 0.0)
    cells += images(unerased, "sd captions", CAPTIONS)
    for method in ERASURES:
        for concept, count in IMAGES.items():
            row, hours = f"{method} {concept}", LONG.get((method, concept), ERASURES[method])
            erasure = unerased if method == "sd" else cell("erase", row, hours * HOUR)
            cells += images(erasure, row, count)
            if method != "sd":
                cells += images(erasure, f"{row} captions", CAPTIONS)
            learned = cell("learn", row, LEARN * HOUR, erasure=erasure)
            for attack, cost in ATTACKS.items():
                needs = {"erasure": erasure} | ({"learned": learned} if attack == "cce" else {})
                batch = f"{attack} {row}"
                cells += [cell("attack", f"{batch} {k}", cost, 1, batch, **needs) for k in range(PROMPTS)]
    return with_all_that_they_read(cells), seconds


@dataclass
class Simulated:
    """What a simulation gives.

    Attributes:
        seconds: until the last cell is finished.
        bound: no schedule is faster: all work divided by all workers, or the longest chain of cells, whichever is more.
        lost: workers that were lost in the middle of a task.
    """

    seconds: float
    bound: float
    lost: int


@dataclass(eq=False)
class _Job:
    tasks: list[float]
    cells: list[Cell]
    running: int = field(default=0)


def simulate(
    cells: Sequence[Cell], seconds: Mapping[str, float], workers: int, losses_per_hour: float = 0.0, seed: int = 0
) -> Simulated:
    """Compute cells by workers that do nothing but let a clock run.

    Args:
        cells: each after those that it reads.
        seconds: what each takes, by key; a cell of several images is divided as a run does.
        workers: how many.
        losses_per_hour: of a worker at work, on average; what it was at is lost.
        seed: of the losses.
    """
    draw = random.Random(seed)
    queue = Queue(longest_way_first(cells))
    schedule = Schedule(cells, {cell.key for cell in cells}, queue, lambda cell: "", _never, _never)
    again: list[tuple[_Job, float]] = []
    events: list[tuple[float, int, Callable[[], None]]] = []
    clock, free, lost, count = 0.0, workers, 0, 0

    def later(after: float, what: Callable[[], None]) -> None:
        nonlocal count
        count += 1
        heappush(events, (clock + after, count, what))

    def begin(job: _Job, task: float) -> None:
        nonlocal free
        free -= 1
        job.running += 1
        death = draw.expovariate(losses_per_hour / HOUR) if losses_per_hour else float("inf")
        later(min(task, death), lambda: lose(job, task, death) if death < task else end(job))

    def end(job: _Job) -> None:
        nonlocal free
        free += 1
        job.running -= 1
        if not job.running and not job.tasks:
            for cell in job.cells:
                schedule.settle(cell)

    def lose(job: _Job, task: float, after: float) -> None:
        nonlocal lost
        lost += 1
        job.running -= 1
        kept = KEPT.get(job.cells[0].title.split()[0], 0) * HOUR if job.cells[0].stage == "erase" else 0
        left = task - (after // kept * kept if kept else 0)
        job.tasks.append(left)
        again.append((job, left))
        later(RESTART, come_back)

    def come_back() -> None:
        nonlocal free
        free += 1

    divided: dict[str, _Job] = {}
    while schedule.left:
        while free and (again or queue.first()):
            if again:
                job, task = again.pop(0)
                job.tasks.remove(task)
                begin(job, task)
                continue
            first = queue.first()
            assert first
            taken = queue.take(queue.share(first, BATCH, workers) if first.batch else 1)
            job = divided.get(first.key) or _Job(_tasks(taken, seconds, workers), taken)
            begin(job, job.tasks.pop())
            if job.tasks:
                divided[first.key] = job
                queue.add(first)
        clock, _, what = heappop(events)
        what()
    return Simulated(clock, bound(cells, seconds, workers), lost)


def bound(cells: Sequence[Cell], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds below which no schedule comes: a cell of several images counts by its smallest part in the chain."""
    chain: dict[str, float] = {}
    for cell in cells:
        before = max((chain[read.key] for read in cell.reads.values()), default=0.0)
        chain[cell.key] = before + max(_tasks([cell], seconds, workers))
    return max(sum(seconds[cell.key] for cell in cells) / workers, *chain.values())


def _tasks(cells: Sequence[Cell], seconds: Mapping[str, float], workers: int) -> list[float]:
    """The seconds of what workers do one by one: the parts of a cell of images, or cells of a batch together."""
    whole = sum(seconds[cell.key] for cell in cells)
    if cells[0].stage != "generate":
        return [whole]
    batches = -(-cells[0].units // BATCH)
    parts = -(-batches // -(-batches // min(batches, PIECES * workers)))
    return [whole / parts] * parts


def _never(*_: object) -> None:
    raise AssertionError("no cell is given up")


def disk(cells: Sequence[Cell]) -> float:
    """Bytes of the store: images, and what erasures change."""
    images = sum(cell.units for cell in cells if cell.stage == "generate")
    images += sum(cell.stage == "attack" for cell in cells)
    erasures = sum(ERASURE_BYTES.get(cell.title.split()[0], 0) for cell in cells if cell.stage == "erase")
    return images * IMAGE_BYTES + erasures


def main() -> None:
    """Print it all."""
    cells, seconds = table()
    counts, stages = Counter(cell.stage for cell in cells), dict[str, float]()
    for cell in cells:
        stages[cell.stage] = stages.get(cell.stage, 0) + seconds[cell.key] / HOUR
    print(f"{len(cells)} cells, {sum(stages.values()):.0f} GPU hours, {disk(cells) / 1e9:.0f} GB")
    for stage, hours in stages.items():
        print(f"  {stage:<9} {counts[stage]:>6} cells {hours:>7.0f} h")
    print("workers  losses/h   hours   worst   bound    over   lost")
    for workers in (1, 8, 256):
        for losses in (0.0, LOSSES):
            done = [simulate(cells, seconds, workers, losses, seed) for seed in range(SEEDS if losses else 1)]
            hours, least = mean(one.seconds for one in done) / HOUR, done[0].bound / HOUR
            worst, lost = max(one.seconds for one in done) / HOUR, mean(one.lost for one in done)
            over = f"{hours / least - 1:.1%}"
            print(f"{workers:>7} {losses:>9} {hours:>7.1f} {worst:>7.1f} {least:>7.1f} {over:>7} {lost:>6.0f}")


if __name__ == "__main__":
    main()

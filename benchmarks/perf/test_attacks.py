"""Gradient steps of attacks on hard prompts: batches of prompts against one prompt at a time, on Picturebook.

Bar: three times as many steps times prompts per second, on the same cores.  One prompt at a time has all cores as
threads of one process and asks P4D's teacher in each step, as the published codes do; batches have a process of one
thread for each core, and the teacher is asked for all steps between two looks at once, as in runs.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.perf.conftest import Show
from erasebench.concepts import Concept, Prompt
from erasebench.hyper_parameters import make_plugin
from erasebench.models.erasure import Erasure
from erasebench.models.loading import find_model, load_model
from erasebench.picturebook import GUIDANCE
from erasebench.plugins import AttackContext
from erasebench.registry import ATTACKS
from erasebench.sampling import Sampler
from erasebench.training.target import Looks, Target

BATCH, STEPS, ROUNDS, FASTER = 16, 12, 3, 3.0
SCHEDULES: dict[str, dict[str, Any]] = {
    "unlearndiff": {"timesteps": 1, "test_prompt": False},
    "p4d-n": {},
}
"""All steps stand between two looks, which are of one sampling step: fewer of them than the published 40 or 50."""


class Attacked:
    """An attack on Picturebook that nothing succeeds in, by so many threads."""

    def __init__(self, name: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.name, self.model = name, load_model(find_model("picturebook"), "cpu", "float32")
        self.drawn = self.model.batch_sizes.drawn.rows

    def rate(self, batch_size: int, cpu: bool = False) -> float:
        """Steps times prompts per second, of the clock or of the processor."""
        clock = time.process_time if cpu else time.perf_counter
        began = clock()
        self.run(batch_size)
        return batch_size * STEPS / (clock() - began)

    def run(self, batch_size: int) -> None:
        """One attack."""
        self.model.batch_sizes.drawn.rows = 1 if batch_size == 1 else self.drawn
        concept, (_, height, width) = Concept("church", "object", "church"), self.model.latent_shape
        size = (height * self.model.scale_factor, width * self.model.scale_factor)
        prompts = [Prompt(f"{row}", "a photo of a church", row, "naming") for row in range(batch_size)]
        grey = Looks(np.full((1, *size, 3), 128, np.uint8), np.zeros(1, np.float32))
        target = Target(
            self.model,
            Erasure(),
            concept,
            prompts,
            Sampler("ddim", 1, GUIDANCE),
            lambda images, texts: np.zeros(len(images), np.float32),
            0.5,
            [grey] * batch_size,
            lambda images: np.ones((len(images), 1), np.float32),
        )
        options = {**ATTACKS.get(self.name).presets, **SCHEDULES[self.name], "steps": STEPS}
        attack = make_plugin(ATTACKS.get(self.name).make, options).resolved([concept])
        attack.attack(target, AttackContext(0, lambda done, total, figures: None))


def serve(name: str, threads: int, orders: Any, rates: Any) -> None:
    """A process that runs attacks of ordered batch sizes; the first is to warm up."""
    attacked = Attacked(name, threads)
    while batch_size := orders.get():
        rates.put(attacked.rate(batch_size))


@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_per_second(name: str, benchmark: Any, show: Show) -> None:
    """By turns; the fastest round of each counts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    orders, rates = context.Queue(), context.Queue()
    workers = [context.Process(target=serve, args=(name, 1, orders, rates), daemon=True) for _ in range(cores)]
    for worker in workers:
        worker.start()
    before = torch.get_num_threads()
    attacked = Attacked(name, cores)
    measurements: dict[str, list[float]] = defaultdict(list)

    def together(batch_size: int) -> float:
        for _ in workers:
            orders.put(batch_size)
        return float(sum(rates.get() for _ in workers))

    def by_turns() -> None:
        torch.set_num_threads(cores)
        measurements[f"one prompt at a time, {cores} threads"].append(attacked.rate(1))
        measurements[f"batches of {BATCH}, {cores} processes"].append(together(BATCH))
        torch.set_num_threads(1)
        measurements["one prompt at a time, a second of one core"].append(attacked.rate(1, cpu=True))
        measurements[f"batches of {BATCH}, a second of one core"].append(attacked.rate(BATCH, cpu=True))

    try:
        together(BATCH)
        attacked.run(1)
        benchmark.pedantic(by_turns, rounds=ROUNDS)
    finally:
        torch.set_num_threads(before)
        for _ in workers:
            orders.put(0)
        for worker in workers:
            worker.join()
    best = {which: max(values) for which, values in measurements.items()}
    single, batched, single_core, batched_core = best.values()
    figures = {**best, "batched / single": batched / single, "of one core": batched_core / single_core}
    benchmark.extra_info.update(figures, cores=cores)
    show(f"{name}, steps x prompts / s", {which: f"{value:.2f}" for which, value in figures.items()})
    if cores >= 2:
        assert batched / single >= FASTER

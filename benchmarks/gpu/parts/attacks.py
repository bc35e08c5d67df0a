"""How long every attack takes with its published settings: one prompt at a time and many at once, from short runs.

At the size of Stable Diffusion 1.4, with random weights.  The published codes attack one prompt after the other; runs
attack many at once (``--batch-size``, 16).  Both are the project's own attacks in the precision of runs.  One at a
time, passes are computed as those codes do it, by diffusers' U-Net under autocast; the figures of UnlearnDiffAtk show
what the rest brings where a single prompt is attacked (``1 accelerated``).  Nothing succeeds, so that no prompt leaves
the batch before the budget is spent.

An attack runs as it is published but for a few counts (:data:`CUTS`).  Hours with published settings are the steps at
the seconds of a step, and the looks, the images that an attack draws to be judged, at the seconds of a whole one, which
are measured once for all attacks.  Not in any figure: judges, which are stand-ins; what is drawn before an attack, by
the unerased model, and after it, to confirm a success; and to encode the images that tokens are learnt from.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.gpu.kit import KitError, Part
from benchmarks.gpu.parts.erasures import DOMAIN, MARGIN, SEED, church
from benchmarks.gpu.parts.measuring import FAILED, attempt, gib, rounded, seconds, synchronize
from benchmarks.gpu.parts.sd import FULL, GUIDANCE, TINY, Size, build_pipeline, prompts_of
from erasebench.concepts import Prompt
from erasebench.engine.work import PeakMemory
from erasebench.hyper_parameters import make_plugin
from erasebench.memory import BatchSize, BatchSizes
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.loading import resolve_dtype
from erasebench.picturebook import quiet
from erasebench.plugins import Attack, AttackContext
from erasebench.registry import ATTACKS
from erasebench.sampling import Sampler
from erasebench.training.target import Looks, Target
from erasebench.training.token_ids import as_it_is

AT_ONCE, AT_ONCE_AT_TINY_SCALE = 16, 2
"""Prompts that a run attacks at once, and images that it draws at once, by default."""
VOCABULARY, VOCABULARY_AT_TINY_SCALE = 49408, 2000
"""Tokens that a search chooses from: Stable Diffusion's."""
OTHER_BATCHES = (("unlearndiff", 1), ("unlearndiff", 32), ("p4d-n", 32), ("unlearndiff", 4))
"""Attacks by further numbers of prompts at once, which are measured last."""
LOOK_STEPS = 2
"""Sampling steps of a look in a short run, whose looks are taken out of all figures."""
LEARNED_FROM = 8
"""Images that tokens are learnt from in a short run."""
COUNTED_PROMPTS = 100
"""Prompts of an experiment, for which hours are given."""
HOURS = f"hours_of_{COUNTED_PROMPTS}_prompts_at_published_settings"

EXCLUDED: Mapping[str, str] = {
    "none": "searches nothing",
    "rab-embed": "searches nothing",
    "cce-transfer": "tries what another attack found",
    "transfer": "tries what another attack found",
    "replay": "tries what another attack found",
    "p4d-union": "is made of p4d-n and p4d-k",
    "standard": "is made of other attacks",
}
"""Attacks that are not measured."""


@dataclass(frozen=True)
class Work:
    """What an attack does for a prompt with which it never succeeds, counted.

    Attributes:
        steps: gradient steps, or generations; of attacks that learn, once for all prompts.
        looks: images that are drawn to be judged.
    """

    steps: int = 0
    looks: int = 0


@dataclass(frozen=True)
class Cut:
    """How an attack's run is shortened.

    Attributes:
        count: counts the work of a run.
        passes: how many guided U-Net calls of as many prompts the short run is about worth, to tell whether it fits.
        settings: of the short run; all others are published.
    """

    count: Callable[[Any], Work]
    passes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def count_unlearndiff(attack: Any) -> Work:
    """Steps and a look at each timestep, and a look before."""
    return Work(attack.timesteps * attack.steps, attack.timesteps + attack.test_prompt)


def count_p4d(attack: Any) -> Work:
    """Steps in blocks, and a look before each and after the last."""
    return Work(attack.steps, 1 + len(attack.blocks()))


def count_draws(attack: Any) -> Work:
    """Nothing but looks."""
    return Work(looks=attack.draws)


CUTS: Mapping[str, Cut] = {
    "unlearndiff": Cut(count_unlearndiff, 20, {"timesteps": 1, "steps": 6}),
    "p4d-n": Cut(count_p4d, 25, {"steps": 6, "look_every": 6}),
    "cce": Cut(lambda attack: Work(attack.steps), 60, {"steps": 4, "images": LEARNED_FROM}),
    "rab": Cut(lambda attack: Work(attack.generations), 10, {"generations": 5}),
    "p4d-uda": Cut(count_unlearndiff, 25, {"timesteps": 1, "steps": 6}),
    "p4d-k": Cut(count_p4d, 25, {"steps": 6, "look_every": 6}),
    "soft-prompt": Cut(lambda attack: Work(attack.steps), 60, {"steps": 4, "images": LEARNED_FROM}),
    "seed-search": Cut(count_draws),
    "random-prefix": Cut(count_draws),
    "synonyms": Cut(lambda attack: Work(looks=len(church().synonyms))),
}
"""Attack -> how it is cut short, in the order in which they are measured."""


class TimedTarget(Target):
    """A target that keeps when its attack told of a step.  In short runs all looks are before or after the steps.

    Attributes:
        marks: in seconds, of some clock: the start, then each step.
        taught: seconds of the unerased model's predictions, which are made for several steps before these.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.marks: list[float] = []
        self.taught = 0.0
        self.mark()

    def mark(self, *_: object) -> None:
        """Note a moment; what :attr:`AttackContext.progress` calls."""
        synchronize(self.model.device)
        self.marks.append(time.perf_counter())

    def predict_unerased(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict, and note how long that takes."""
        self.mark()
        predicted = super().predict_unerased(latents, timesteps, conditioning)
        self.mark()
        *self.marks, began, ended = self.marks
        self.taught += ended - began
        return predicted

    def step_seconds(self) -> float:
        """Seconds of a step: the median but for the first, which waits for what was before, and a share of the teacher.

        Raises:
            KitError: fewer than two steps were told of.
        """
        durations = [after - before for before, after in pairwise(self.marks)]
        if len(durations) < 2:
            raise KitError(f"{len(durations)} steps were told of; it takes two to time them")
        return statistics.median(durations[1:]) + self.taught / len(durations)


def widened(tokenizer: CLIPTokenizer, size: int) -> CLIPTokenizer:
    """The tokenizer with so many tokens: those that are added stand in no text, but a search may choose them."""
    vocabulary = tokenizer.get_vocab()
    unused = {f"<|unused {k}|>": k for k in range(len(vocabulary), size)}
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return CLIPTokenizer(
        vocab={**vocabulary, **unused},
        merges=[tuple(pair) for pair in merges],
        model_max_length=tokenizer.model_max_length,
    )


def build_model(size: Size, device: torch.device, precision: str, vocabulary: int) -> DiffusionModel:
    """Stable Diffusion's networks with random weights, and a tokenizer with so many tokens."""
    pipeline = build_pipeline(size, device)
    pipeline.tokenizer = widened(pipeline.tokenizer, vocabulary)
    return DiffusionModel(pipeline, DOMAIN, device, getattr(torch, precision))


def build_target(model: DiffusionModel, prompts: int, steps: int) -> TimedTarget:
    """Prompts under an attack that never succeeds.

    The unerased model differs in as many weights as closed forms edit: keys and values of cross-attention.

    Args:
        model: that is attacked.
        prompts: how many, which are also drawn at once.
        steps: sampling steps of a look.
    """
    model.batch_sizes = BatchSizes(BatchSize(max(1, prompts)))
    parameters = model.parameters()
    names = [name for name in parameters if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    grey = Looks(np.full((1, *image_size(model), 3), 128, np.uint8), np.zeros(1, np.float32))
    return TimedTarget(
        model,
        Erasure({name: parameters[name].detach().clone() for name in names}),
        church(),
        [Prompt(f"{k}", text, k, "naming") for k, text in enumerate(prompts_of(prompts))],
        Sampler("ddim", steps, GUIDANCE),
        lambda images, texts: np.zeros(len(images), np.float32),
        0.5,
        [grey] * prompts,
        lambda images: np.ones((len(images), 1), np.float32),
    )


def image_size(model: DiffusionModel) -> tuple[int, int]:
    """Height and width of an image, in pixels."""
    _, height, width = model.latent_shape
    return height * model.scale_factor, width * model.scale_factor


def measure_look(model: DiffusionModel, steps: int, prompts: int, alone: float | None) -> dict[str, Any]:
    """Seconds of a look, whole, after a short one to warm up.

    Args:
        model: that draws.
        steps: of a look.
        prompts: images that are drawn at once.
        alone: seconds of a look at one prompt; None if unknown.
    """

    def look(steps: int) -> float:
        target = build_target(model, prompts, steps)
        texts = [as_it_is(model, prompt.text) for prompt in target.prompts]
        return seconds(model.device, lambda: target.look(range(prompts), texts))

    peak = PeakMemory(model.device.type)
    look(LOOK_STEPS)
    peak.restart()
    duration = look(steps)
    figures: dict[str, Any] = {"sampling_steps": steps, "seconds": rounded(duration)}
    if alone is not None:
        figures["ratio_to_one_at_a_time"] = rounded(prompts * alone / duration)
    return {**figures, "peak_memory_gib": gib(peak)}


@dataclass(frozen=True)
class Looking:
    """Seconds of a whole look by the number of prompts that are looked at at once; empty where that is not known."""

    seconds: Mapping[int, float]
    steps: int

    def of_prompt(self, prompts: int) -> float | None:
        """Seconds for each of so many prompts; images are drawn 16 at a time, at most."""
        at_once = max((known for known in self.seconds if known <= prompts), default=None)
        return None if at_once is None else self.seconds[at_once] / at_once

    def of_pass(self, prompts: int) -> float:
        """Seconds of a guided U-Net call for so many prompts, about; 0 if unknown."""
        return (self.of_prompt(prompts) or 0.0) * prompts / self.steps


def measure_attack(
    name: str, model: DiffusionModel, looking: Looking, prompts: int, alone: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Figures of an attack.

    Args:
        name: the attack's.
        model: that it attacks.
        looking: what its looks take.
        prompts: how many it attacks at once; 0 where it only learns, once for all.
        alone: its figures for one prompt at a time; None if there are none.

    Raises:
        NotApplicable: it cannot attack the concept.
        KitError: it does not tell of its steps.
        FloatingPointError: the search diverged.
    """
    cut, plugin = CUTS[name], ATTACKS.get(name)

    def make(settings: Mapping[str, Any]) -> Attack:
        return make_plugin(plugin.make, {**plugin.presets, **settings}).resolved([church()])

    published = make({})
    published.check(DOMAIN, church())
    work, figures = cut.count(published), dict[str, Any]()
    per_step = 0.0
    if work.steps:
        figures = run_short(make(cut.settings), model, prompts)
        per_step = figures["seconds_per_step"]
        figures = {"cut_to": dict(cut.settings), **figures, "published_steps": work.steps}
        if alone:
            figures["ratio_of_steps"] = rounded(prompts * alone["seconds_per_step"] / per_step)
    if published.learns:
        return {**figures, "hours_of_learning": rounded(work.steps * per_step / 3600)}
    figures["published_looks"] = work.looks
    per_look = looking.of_prompt(prompts) if work.looks else 0.0
    if per_look is None:
        return {**figures, HOURS: FAILED}
    hours = COUNTED_PROMPTS * (work.steps * per_step / prompts + work.looks * per_look) / 3600
    figures[HOURS] = rounded(hours)
    if alone and isinstance(alone[HOURS], float):
        figures["ratio_to_one_at_a_time"] = rounded(alone[HOURS] / hours)
    return figures


def run_short(attack: Attack, model: DiffusionModel, prompts: int) -> dict[str, Any]:
    """Attack, or learn what serves all prompts: seconds of a step, and memory."""
    target = build_target(model, prompts, LOOK_STEPS)
    context = AttackContext(SEED, target.mark)
    peak = PeakMemory(model.device.type)
    peak.restart()
    if attack.learns:
        attack.learn(target, np.full((LEARNED_FROM, *image_size(model), 3), 128, np.uint8), context)
    else:
        attack.attack(target, context)
    return {"seconds_per_step": rounded(target.step_seconds()), "peak_memory_gib": gib(peak)}


def run(part: Part) -> None:
    """Measure looks, and every attack by one prompt at a time and many at once."""
    quiet()
    # What the imports left is there to stay: garbage is looked for after every measurement, in the rest alone.
    gc.freeze()
    size, device = (TINY if part.tiny else FULL), part.device
    precision = resolve_dtype("auto", device.type)
    part.record("precision", precision)
    model = build_model(size, device, precision, VOCABULARY_AT_TINY_SCALE if part.tiny else VOCABULARY)
    many = AT_ONCE_AT_TINY_SCALE if part.tiny else AT_ONCE
    looking = measure_looks(part, model, size.steps, (1, many))
    alone: dict[str, dict[str, Any] | None] = {}

    def measure(name: str, prompts: int, row: str, accelerated: bool = True) -> dict[str, Any] | None:
        model.accelerated = accelerated
        needed = MARGIN * CUTS[name].passes * looking.of_pass(max(1, prompts))
        figures = partial(measure_attack, name, model, looking, prompts, alone.get(name))
        result = attempt(part, f"{name}.{row}", needed, figures)
        model.recorder.clear()
        return result

    for name in CUTS:
        if getattr(ATTACKS.get(name).make, "learns", False):
            measure(name, 0, "once for all prompts")
        else:
            alone[name] = measure(name, 1, "1", accelerated=False)
            measure(name, many, f"{many}")
    for name, prompts in () if part.tiny else OTHER_BATCHES:
        measure(name, prompts, "1 accelerated" if prompts == 1 else f"{prompts}")


def measure_looks(part: Part, model: DiffusionModel, steps: int, batches: Sequence[int]) -> Looking:
    """Record what looks take, at one prompt first."""
    known: dict[int, float] = {}
    for prompts in batches:
        alone = known.get(1)
        model.accelerated = prompts > 1
        # As long as one after the other, at most.
        needed = prompts * (alone or 0.0)
        row = attempt(part, f"looking.{prompts}", needed, partial(measure_look, model, steps, prompts, alone))
        if row:
            known[prompts] = row["seconds"]
    return Looking(known, steps)

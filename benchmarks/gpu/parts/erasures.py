"""How long every erasure method takes with its published settings, from a run that is cut short.

A method runs as it is published but for a few counts (:data:`CUTS`): training steps, and the images that it draws
first.  The hours with published settings are the seconds of the short run and what was cut off it: so many more steps
at the seconds of a step, so many more images at the seconds of an image.  All counts are read from the method's own
defaults.

Judges that a method asks for are stand-ins, so that no weights are needed: their time is not in any figure.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.gpu.kit import KitError, Part
from benchmarks.gpu.parts.measuring import FAILED, attempt, gib, rounded, seconds, synchronize
from erasebench.concepts import Concept, load_catalogue
from erasebench.engine.work import PeakMemory
from erasebench.hyper_parameters import make_plugin
from erasebench.judging import Images, Scores
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import check_finite
from erasebench.plugins import EraseContext, Judge, Method
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, draw_latents

DOMAIN, SEED = "photo", 0
DARK_MINER_LOOPS = 48
"""Loops of Dark Miner's run for nudity (table S2), which took 59.3 hours on an A100; other concepts' are not given."""
DRAWN_AT_ONCE, DRAWING_STEPS = 16, 6
"""Images that methods draw at a time, the default of ``draw_latents``, and the steps that are timed of them."""
MARGIN = 1.2
"""How much longer than expected a method may take."""

EXCLUDED: Mapping[str, str] = {"sd": "erases nothing", "checkpoint": "reads what another program erased"}
"""Methods that are not measured, besides rules of guidance (``guidance_only``), which train and edit nothing."""


@dataclass(frozen=True)
class Work:
    """What a run of a method does, counted.

    Attributes:
        steps: phase -> its steps, in the order in which the method tells of them.
        untold: what the method does not tell of and what costs about as much as a step of its last phase.
        image_steps: images that it draws before it trains, times the sampling steps of each.
        passes: phase -> U-Net calls of a step on average, for phases in which their number is drawn at random.
    """

    steps: Mapping[str, int] = field(default_factory=dict)
    untold: int = 0
    image_steps: int = 0
    passes: Mapping[str, float] = field(default_factory=dict)


Count = Callable[[Any, Sequence[Concept]], Work]


def count_esd(method: Any, concepts: Sequence[Concept]) -> Work:
    """Each step samples up to a random step, then predicts the target and what is trained."""
    return Work({"train": method.steps}, passes={"train": cut_sampling_passes(method.sampling_steps)})


def count_ap(method: Any, concepts: Sequence[Concept]) -> Work:
    """Each step of the search, and each of the model, does what ESD's does."""
    runs = method.search_steps + 1
    return Work({"train": method.steps}, passes={"train": runs * cut_sampling_passes(method.sampling_steps)})


def cut_sampling_passes(sampling_steps: int) -> float:
    """U-Net calls, on average: a sampling run that is left before a random step, one frozen and one trained pass."""
    return (sampling_steps - 1) / 2 + 2


def count_ca(method: Any, concepts: Sequence[Concept]) -> Work:
    """Images of each concept's anchor, then steps."""
    images = method.pictures * len(concepts)
    return Work({"train": method.steps}, image_steps=images * method.sampling_steps)


def count_fmn(method: Any, concepts: Sequence[Concept]) -> Work:
    """Images and textual inversion of each concept, then steps."""
    steps = {"invert": method.inversion_steps * len(concepts)} if method.textual_inversion else {}
    images = method.pictures * len(concepts)
    return Work({**steps, "train": method.steps}, image_steps=images * method.sampling_steps)


def count_salun(method: Any, concepts: Sequence[Concept]) -> Work:
    """Images to forget and as many to remain, one pass over the former for saliency, then steps."""
    return Work(
        {"train": method.steps},
        untold=math.ceil(method.pictures / method.batch_size),
        image_steps=2 * method.pictures * method.sampling_steps,
    )


def count_mace(method: Any, concepts: Sequence[Concept]) -> Work:
    """Images and steps of each wording; the closed forms are not told of and are in every run alike."""
    synonyms = method.synonyms
    wordings = sum(1 + (len(concept.synonyms) if synonyms else 0) for concept in concepts)
    return Work(
        {"train": method.steps * wordings},
        image_steps=method.pictures * wordings * method.sampling_steps,
    )


def count_dm2(method: Any, concepts: Sequence[Concept]) -> Work:
    """The pool of each concept, then loops of three stages."""
    loops = min(method.max_loops, DARK_MINER_LOOPS) * len(concepts)
    steps = {"mine": loops * method.mining_steps, "verify": loops, "circumvent": loops * method.steps}
    return Work(steps, image_steps=method.pool_size * len(concepts) * method.sampling_steps)


@dataclass(frozen=True)
class Cut:
    """How a method's run is shortened.

    Attributes:
        count: counts the work of a run.
        passes: how many U-Net calls for one image the short run is about worth, to tell whether it fits.
        settings: of the short run; all others are published.
    """

    count: Count
    passes: int
    settings: Mapping[str, Any] = field(default_factory=dict)


CUTS: Mapping[str, Cut] = {
    "uce": Cut(lambda method, concepts: Work(), 70),
    "esd-x": Cut(count_esd, 150, {"steps": 5}),
    "esd-u": Cut(count_esd, 170, {"steps": 5}),
    # -1: whatever the stand-in for CLIP says, the loop goes on to circumvent.
    "dm2": Cut(count_dm2, 570, {"pool_size": 3, "mining_steps": 4, "steps": 3, "max_loops": 1, "tau": -1.0}),
    "ca": Cut(count_ca, 80, {"steps": 4, "pictures": 8, "sampling_steps": 2}),
    "mace": Cut(count_mace, 150, {"steps": 5, "sampling_steps": 2}),
    "salun": Cut(count_salun, 170, {"steps": 4, "pictures": 8, "sampling_steps": 2}),
    "fmn": Cut(count_fmn, 70, {"inversion_steps": 4, "steps": 4, "sampling_steps": 2}),
    "ap-x": Cut(count_ap, 350, {"steps": 3}),
    "ap-u": Cut(count_ap, 360, {"steps": 3}),
}
"""Method -> how it is cut short, in the order in which they are measured.  What a step itself samples (ESD, AP, Dark
Miner) is not cut.  MACE erases an object here, for which no captions are to be preserved."""
SAMPLED_AT_TINY_SCALE = 2
"""Sampling steps, where all that matters is that everything runs."""


class CentreSegmenter(Judge):
    """A stand-in for a segmenter, for timing: whatever is sought is in the middle of the image."""

    def identity(self) -> dict[str, str]:
        """None of any real judge."""
        return {"version": "stand-in"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """``mask``: float32 ``[n, height, width]``, 1 in the middle quarter of each image."""
        masks = np.zeros(images.shape[:3], dtype=np.float32)
        height, width = images.shape[1:3]
        masks[:, height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
        return Scores({"area": masks.mean(axis=(1, 2))}, {"mask": masks})


class BlindClip(Judge):
    """A stand-in for CLIP, for timing: all images and texts are the same to it."""

    def identity(self) -> dict[str, str]:
        """None of any real judge."""
        return {"version": "stand-in"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """``clip``: 0; ``features``: float32 ``[n, 512]``, the same for each image."""
        features = np.full((len(images), 512), 512**-0.5, dtype=np.float32)
        return Scores({"clip": np.zeros(len(images), dtype=np.float32)}, {"features": features})


STAND_INS: Mapping[str, Callable[[], Judge]] = {"grounded-sam": CentreSegmenter, "clip": BlindClip}
"""Judge that a method asks for -> what it gets."""


def stand_in(name: str) -> Judge:
    """What stands in for a judge.

    Raises:
        KitError: nothing does.
    """
    if name not in STAND_INS:
        raise KitError(f"the judge '{name}' has no stand-in in benchmarks/gpu/parts/erasures.py")
    return STAND_INS[name]()


@cache
def church() -> Concept:
    """The concept that all methods erase."""
    return load_catalogue().get("church").seen_in(DOMAIN)


class Watch:
    """When a method told of each of its steps, and how often it had called the U-Net by then.

    Attributes:
        times: in seconds, of some clock: the start, then each step.
        passes: U-Net calls at the same moments.
    """

    def __init__(self, model: DiffusionModel) -> None:
        self._device = model.device
        self._passes: Callable[[], int] = lambda: 0
        self.times: list[float] = []
        self.passes: list[int] = []
        self.mark()

    @contextmanager
    def counting(self, model: DiffusionModel) -> Iterator[None]:
        """Count a model's predictions.  Hooks of the U-Net would keep sampling from the copy that it is by."""
        with patch.object(model, "predict", wraps=model.predict) as predict:
            self._passes = lambda: predict.call_count
            yield

    def mark(self, *_: object) -> None:
        """Note a moment; what :attr:`EraseContext.progress` calls."""
        synchronize(self._device)
        self.times.append(time.perf_counter())
        self.passes.append(self._passes())


def step_seconds(
    times: Sequence[float], passes: Sequence[int], steps: Mapping[str, int], expected: Mapping[str, float]
) -> dict[str, float]:
    """Seconds of a step of each phase.

    The first step of a phase does not count, since it waits for what was before, unless it is the only one.  Where
    passes are drawn at random, the seconds of a pass times their expected number; the median otherwise.

    Args:
        times: the start, then the end of each step.
        passes: U-Net calls at these times.
        steps: phase -> its steps in this run.
        expected: phase -> passes of a step on average, where they are random.

    Raises:
        KitError: there are not as many times as steps.
    """
    if len(times) - 1 != sum(steps.values()):
        raise KitError(f"{len(times) - 1} steps were told of, not {dict(steps)}")
    by_phase, before = {}, 0
    for phase, count in steps.items():
        ends = range(before + min(count, 2), before + count + 1)
        durations = [times[end] - times[end - 1] for end in ends]
        if phase in expected:
            by_phase[phase] = sum(durations) / sum(passes[end] - passes[end - 1] for end in ends) * expected[phase]
        else:
            by_phase[phase] = statistics.median(durations)
        before += count
    return by_phase


def published_seconds(
    short_run: float, short: Work, published: Work, per_step: Mapping[str, float], per_image_step: float
) -> float:
    """Seconds of a run with published settings.

    Args:
        short_run: seconds of the short run.
        short: its work.
        published: that of the published one.
        per_step: phase -> seconds of a step.
        per_image_step: seconds of a sampling step of one image, among others drawn with it.
    """
    steps = sum((published.steps[phase] - short.steps[phase]) * duration for phase, duration in per_step.items())
    untold = (published.untold - short.untold) * list(per_step.values())[-1] if published.untold else 0.0
    images = (published.image_steps - short.image_steps) * per_image_step
    return short_run + steps + untold + images


def measure_drawing(model: DiffusionModel) -> dict[str, Any]:
    """Seconds of a sampling step: for each of 16 images drawn together, and for an image alone."""

    def draw(images: int, steps: int) -> None:
        prompts = [f"a photo of a church, {k}" for k in range(images)]
        list(draw_latents(model, prompts, range(images), Sampler("ddim", steps), DRAWN_AT_ONCE))

    peak = PeakMemory(model.device.type)
    peak.restart()
    durations = {}
    for images in (1, DRAWN_AT_ONCE):
        draw(images, 2)
        durations[images] = seconds(model.device, partial(draw, images, DRAWING_STEPS)) / DRAWING_STEPS
    return {
        "pictures_at_once": DRAWN_AT_ONCE,
        "seconds_per_picture_and_step": rounded(durations[DRAWN_AT_ONCE] / DRAWN_AT_ONCE),
        "seconds_per_step_of_one_picture": rounded(durations[1]),
        "peak_memory_gib": gib(peak),
    }


def measure_erasure(name: str, model: DiffusionModel, per_image_step: float | None, tiny: bool) -> dict[str, Any]:
    """Figures of a method.

    Args:
        name: the method's.
        model: what it erases from.
        per_image_step: see :func:`published_seconds`; None if unknown.
        tiny: whether only to see that it runs.

    Raises:
        NotApplicable: it cannot erase the concept.
        KitError: it tells of other steps than expected.
        FloatingPointError: training diverged.
    """
    plugin, cut, concepts = METHODS.get(name), CUTS[name], [church()]

    def make(settings: Mapping[str, Any]) -> Method:
        return make_plugin(plugin.make, {**plugin.presets, **settings}).resolved(concepts)

    published, settings = make({}), dict(cut.settings)
    if tiny and hasattr(published, "sampling_steps"):
        settings["sampling_steps"] = SAMPLED_AT_TINY_SCALE
    method = make(settings)
    method.check(DOMAIN, concepts)
    peak = PeakMemory(model.device.type)
    peak.restart()
    watch = Watch(model)
    with watch.counting(model), tempfile.TemporaryDirectory() as folder:
        context = EraseContext(SEED, Path(folder), watch.mark, stand_in)
        duration = seconds(model.device, lambda: check_finite(method.erase(model, concepts, context)))
    short, full = cut.count(method, concepts), cut.count(published, concepts)
    per_step = step_seconds(watch.times, watch.passes, short.steps, full.passes)
    figures: dict[str, Any] = {
        "cut_to": settings,
        "seconds": rounded(duration),
        "seconds_per_step": {phase: rounded(value) for phase, value in per_step.items()},
        "published_steps": dict(full.steps),
        "hours_at_published_settings": FAILED
        if per_image_step is None
        else rounded(published_seconds(duration, short, full, per_step, per_image_step) / 3600),
        "peak_memory_gib": gib(peak),
    }
    if method.judges(DOMAIN, concepts):
        figures["judges"] = "stand-ins, not timed"
    return figures


def measure_erasures(part: Part, model: DiffusionModel) -> None:
    """Record, for each method, seconds of a step, hours with published settings and memory."""
    drawing = attempt(part, "erasing.drawing", 0.0, lambda: measure_drawing(model)) or {}
    per_image_step = drawing.get("seconds_per_picture_and_step")
    per_pass = drawing.get("seconds_per_step_of_one_picture", 0.0)
    for name, cut in CUTS.items():
        needed = MARGIN * cut.passes * per_pass
        attempt(part, f"erasing.{name}", needed, partial(measure_erasure, name, model, per_image_step, part.tiny))

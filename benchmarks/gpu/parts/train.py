"""Part ``train``: Picturebook's text encoder and U-Net, trained with the whole card for as long as the limit allows.

``sharper`` trains the shipped U-Net further, ``anew`` one like it from nothing.  ``distilled`` trains one of at most
half the FLOPs, from nothing, to imitate the shipped one, with its text encoder.  Tokenizer, VAE and judges stay as
shipped.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTokenizer

from benchmarks.gpu.kit import KitError, Part, described
from erasebench.errors import EraseBenchError
from erasebench.picturebook import quiet
from erasebench.picturebook.grid import draw_grid
from erasebench.picturebook.judges.clip import Clip
from erasebench.picturebook.judges.detector import Detector
from erasebench.picturebook.judges.q16 import Q16
from erasebench.picturebook.measure import Kit, generation_rows, print_table
from erasebench.picturebook.tokenizer import CONTEXT_LENGTH
from erasebench.picturebook.training.data import caption_ids, render_many
from erasebench.picturebook.training.loop import Objective, Recipe, fit
from erasebench.picturebook.training.run import load_denoiser, save_pipeline
from erasebench.picturebook.training.unet import (
    CHANNELS,
    SMALL_CHANNELS,
    TEXT_WIDTH,
    Denoiser,
    UnetObjective,
    build_text_encoder,
    build_unet,
    scene_odds,
)
from erasebench.picturebook.training.vae import encode_all
from erasebench.picturebook.weights import judge_path, pipeline_path

SEED = 20_261_126


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        scenes: rendered, with ``wordings`` captions each.
        batch: scenes in a step.
        workers: processes that render; one for each core if None.
        timed_steps: steps whose median time decides how many fit into the limit.
        max_steps: however long the limit is.
        reserve: seconds kept for saving and measuring.
        images: for each row of ``measure``'s table; ``rows`` of it, all if None.
        grid_steps: sampling steps of the sheet's images.
    """

    scenes: int
    wordings: int
    batch: int
    workers: int | None
    timed_steps: int
    max_steps: int
    reserve: float
    images: int
    rows: int | None
    grid_steps: int


FULL = Size(80_000, 6, 512, None, 30, 10**6, 100.0, 50, None, 25)
TINY = Size(64, 2, 4, 1, 3, 3, 10.0, 2, 1, 1)

FURTHER = Recipe(steps=0, learning_rate=1e-3, warmup=200, decay=0.5)
"""From the shipped weights: their own peak rate, on batches 16 times as large."""
ANEW = Recipe(steps=0, learning_rate=2e-3, warmup=500, decay=0.5)


def run(part: Part) -> None:
    """Train by one of the recipes, and measure what came of it."""
    start = "shipped" if part.argument == "sharper" else "nothing"
    train_picturebook(part, distilled=part.argument == "distilled", start=start)
    measure_pipeline(part)


def train_picturebook(part: Part, *, distilled: bool = False, start: str, without: str = "") -> Denoiser:
    """Train, and save a pipeline that fits the package.

    Args:
        part: whose limit decides the number of steps; its folder receives ``pipeline/``, ``log.csv`` and ``loss.png``.
        distilled: the small U-Net, with the shipped pipeline as its teacher.
        start: of the U-Net and the text encoder: ``"shipped"`` or ``"nothing"``.
        without: a label or style whose scenes are left out.

    Returns:
        The trained model, on the CPU; the U-Net in half precision.

    Raises:
        KitError: the preparations leave no time to train, or a batch needs more memory than there is.
    """
    device, size = part.device, TINY if part.tiny else FULL
    quiet()
    # It does so for diffusers' own cached helpers, at every layer.
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    for key, value in (("start", start), ("without", without), ("batch", size.batch)):
        part.record(key, value or "nothing")
    latents, ids, odds = training_data(part, size, device, without)
    shipped = pipeline_path()
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(shipped / "tokenizer")
    torch.manual_seed(SEED)
    teacher = load_denoiser(shipped).to(device).eval().requires_grad_(False) if distilled else None
    model = _student(teacher) if teacher else load_denoiser(shipped) if start == "shipped" else _new(tokenizer)
    work = part.folder / "training"
    recipe = FURTHER if start == "shipped" else ANEW
    objective = UnetObjective(model.to(device), latents, ids, odds, SEED, recipe, size.batch, teacher, short=False)
    part.record("flops_of_an_image.share_of_shipped", round(unet_flops(model) / unet_flops(_unet_like(CHANNELS)), 3))
    seconds = seconds_per_step(part, objective, recipe, size, work / "trial")
    budget = part.seconds_left() - size.reserve
    steps = min(size.max_steps, int(budget / seconds))
    if steps < 1:
        raise KitError(
            f"no time left to train: {part.seconds_left():.0f} s, of which {size.reserve:.0f} s are for measuring"
        )
    recipe = replace(recipe, steps=steps, warmup=min(recipe.warmup, max(1, steps // 10)))
    objective.recipe = recipe
    part.record("steps", steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    done = fit(objective, recipe, work, seconds=budget)
    trained = time.monotonic() - began
    if done < steps:
        part.problem(f"steps took longer than in the trial: {done} of {steps} were made")
    part.record("training_seconds", round(trained, 1))
    part.record("scenes_trained_per_second", round(done * size.batch / trained, 1))
    if device.type == "cuda":
        part.record("peak_memory_gib", round(torch.cuda.max_memory_allocated() / 2**30, 2))
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(shipped / "vae")
    save_pipeline(model, vae, tokenizer, part.folder / "pipeline")
    for name in ("log.csv", "loss.png"):
        with suppress(FileNotFoundError):  # a trial of a few steps logs nothing
            shutil.move(work / name, part.folder / name)
    shutil.rmtree(work)
    return model


def training_data(part: Part, size: Size, device: torch.device, without: str) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, token ids and odds of the training scenes, as :class:`UnetObjective` takes them."""
    began = time.monotonic()
    renders = render_many(0, size.scenes, size.workers)
    part.record("data.scenes", size.scenes)
    part.record("data.rendering_seconds", round(time.monotonic() - began, 1))
    began = time.monotonic()
    ids = torch.from_numpy(caption_ids(renders, pipeline_path() / "tokenizer", size.wordings, size.workers))
    odds = scene_odds(renders.scenes(size.workers), without)
    part.record("data.scenes_left_out", int((odds == 0).sum()))
    part.record("data.captions_seconds", round(time.monotonic() - began, 1))
    began = time.monotonic()
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(pipeline_path() / "vae")
    latents = encode_all(vae.to(device), renders.images, 1024) * vae.config.scaling_factor
    part.record("data.encoding_seconds", round(time.monotonic() - began, 1))
    return latents, ids, odds


def _new(tokenizer: CLIPTokenizer) -> Denoiser:
    return Denoiser(build_text_encoder(tokenizer), _unet_like(CHANNELS))


def _student(teacher: Denoiser) -> Denoiser:
    """A small U-Net with the teacher's text encoder, which stays as it is."""
    return Denoiser(teacher.text_encoder, _unet_like(SMALL_CHANNELS))


def _unet_like(channels: tuple[int, int, int]) -> Any:
    latent_channels = AutoencoderKL.load_config(pipeline_path() / "vae")["latent_channels"]
    return build_unet(latent_channels, channels)


def unet_flops(model: Any) -> int:
    """Floating-point operations of one pass for one image, of a U-Net or of a :class:`Denoiser`'s."""
    config = getattr(model, "unet", model).config
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet = build_unet(config.in_channels, tuple(config.block_out_channels))
        latents = torch.zeros(1, config.in_channels, config.sample_size, config.sample_size)
        unet(latents, torch.zeros(1), torch.zeros(1, CONTEXT_LENGTH, TEXT_WIDTH))
    return int(counter.get_total_flops())


class Timed:
    """An objective that notes when each of its steps began."""

    def __init__(self, objective: UnetObjective) -> None:
        self._objective, self.times = objective, list[float]()

    @property
    def model(self) -> Denoiser:
        """The objective's."""
        return self._objective.model

    def loss(self, step: int) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The objective's; the step before has ended, since its gradient norm was looked at."""
        self.times.append(time.perf_counter())
        return self._objective.loss(step)


def seconds_per_step(part: Part, objective: UnetObjective, recipe: Recipe, size: Size, folder: Path) -> float:
    """The median time of a few trial steps, compiled where that works; the model is as before."""
    models = [objective.model] if objective.teacher is None else [objective.model, objective.teacher]
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    trial = replace(recipe, steps=size.timed_steps, warmup=size.timed_steps)
    try:
        for model in models:
            # On a CPU the graphs are traced but not turned into code, which takes minutes there.
            model.unet.compile(backend="inductor" if objective.latents.is_cuda else "eager")
        began = time.monotonic()
        seconds = _trial(objective, trial, folder)
        part.record("step.compiled", True)
        part.record("step.compiling_seconds", round(time.monotonic() - began - seconds * trial.steps, 1))
    except torch.cuda.OutOfMemoryError:
        raise KitError(f"too little GPU memory for a batch of {size.batch}") from None
    except (EraseBenchError, OSError):
        raise
    except Exception as error:
        # The card is here for minutes: better half of the training lost to eager mode than all of it.
        part.problem(f"the compiled trial failed, trained without: {described(error)}")
        part.record("step.compiled", False)
        for model in models:
            model.unet._compiled_call_impl = None
        objective.model.load_state_dict(before)
        seconds = _trial(objective, trial, folder)
    objective.model.load_state_dict(before)
    part.record("step.seconds", round(seconds, 5))
    return seconds


def _trial(objective: UnetObjective, recipe: Recipe, folder: Path) -> float:
    timed = Timed(objective)
    as_objective: Objective = timed
    fit(as_objective, recipe, folder, resume=False, every=1e9)
    return statistics.median(b - a for a, b in itertools.pairwise(timed.times[1:]))


def measure_pipeline(part: Part) -> None:
    """Draw the sheet and print ``measure``'s rows of what is drawn; those of judges and VAE are as shipped.

    The part's folder receives ``grid.png`` and ``measure.md``.
    """
    device, size = part.device, TINY if part.tiny else FULL
    pipeline = StableDiffusionPipeline.from_pretrained(part.folder / "pipeline", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    draw_grid(part.folder / "grid.png", pipeline, size.grid_steps)
    clip = Clip.load(judge_path("clip"), pipeline.tokenizer)
    kit = Kit(pipeline, Detector.load(judge_path("detector")), clip, Q16.load(judge_path("q16"), clip))

    def rows() -> Any:
        for row in itertools.islice(generation_rows(kit, size.images), size.rows):
            part.record(f"measured.{row.name.replace('.', ' ')}", {"value": row.value, "n": row.n, "bar": row.bar})
            yield row

    printed = print_table(rows(), part.folder)
    part.record("bars_met", f"{sum(row.met for row in printed)} of {len(printed)}")

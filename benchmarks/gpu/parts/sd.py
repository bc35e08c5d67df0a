"""Sampling and erasing at the size of Stable Diffusion 1.4, with random weights, so that nothing is downloaded.

Speed and memory depend on shapes, not on what the weights draw.  Rates are given as images a second, as TFLOP/s of
the U-Net's and the decoder's nominal work, as a share of what the card reaches in one large bfloat16 matrix product,
and against the loop that the methods' published codes sample with: the stock pipeline, one prompt at a time.

Whatever there is no time for is recorded as such; compiling, which cannot be estimated, comes last and is broken off
before the limit.
"""

from __future__ import annotations

import gc
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts.erasures import measure_erasures
from benchmarks.gpu.parts.measuring import OUT_OF_TIME, attempt, ending, rounded, seconds, warmed_up
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.loading import resolve_dtype
from erasebench.picturebook import pipeline_path, quiet
from erasebench.picturebook.training.unet import build_scheduler
from erasebench.sampling import Sampler, sample

GUIDANCE = 7.5
WARM_UP_STEPS = 2
LOOPED = 3
"""Images of the peers' loop."""
REPEATS = 10
"""Of matrix products and copies, of which the median counts."""
RESERVED = 0.42
"""The share of the part's time that sampling leaves to the erasure methods."""
TERA = 1e12


@dataclass(frozen=True)
class Size:
    """Sizes of a pipeline, and of what is measured with it.

    Attributes:
        unet: what differs from the defaults of ``UNet2DConditionModel``, which are Stable Diffusion's blocks.
        text: the same of ``CLIPTextConfig``.
        vae: the same of ``AutoencoderKL``.
        batches: images at a time, each number at most four times the one before.
        steps: sampling steps of an image.
        matrix: rows and columns of the matrices that are multiplied.
        copied: float32 numbers that are copied.
        backend: what compiles.
        compile_seconds: what has to be left for compiling to begin.
    """

    unet: Mapping[str, Any]
    text: Mapping[str, Any]
    vae: Mapping[str, Any]
    batches: tuple[int, ...]
    steps: int
    matrix: int
    copied: int
    backend: str
    compile_seconds: float


FULL = Size(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    batches=(1, 4, 16, 32),
    steps=50,
    matrix=8192,
    copied=2**28,
    backend="inductor",
    compile_seconds=55.0,
)
TINY = Size(
    unet={
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    text={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    vae={"block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 16},
    batches=(1, 2, 4),
    steps=4,
    matrix=128,
    copied=2**16,
    # Inductor would take most of a minute on two cores; this one traces and guards, and compiles nothing.
    backend="eager",
    compile_seconds=0.0,
)


def build_pipeline(size: Size, device: torch.device) -> Any:
    """The parts of a Stable Diffusion 1.x pipeline with random weights, made on the device; Picturebook's tokenizer."""
    tokenizer = CLIPTokenizer.from_pretrained(pipeline_path() / "tokenizer")
    levels = len(size.vae["block_out_channels"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device(device):
            text = CLIPTextModel(
                CLIPTextConfig(
                    **size.text,
                    vocab_size=49408,
                    max_position_embeddings=77,
                    hidden_act="quick_gelu",
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            )
            unet = UNet2DConditionModel(**size.unet)
            vae = AutoencoderKL(
                **size.vae,
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                latent_channels=4,
                scaling_factor=0.18215,
            )
    for network in (text, unet, vae):
        network.train(False)
    return SimpleNamespace(tokenizer=tokenizer, text_encoder=text, unet=unet, vae=vae, scheduler=build_scheduler())


def parameter_counts(pipeline: Any) -> dict[str, int]:
    """How many numbers each network has."""
    return {
        name: sum(parameter.numel() for parameter in getattr(pipeline, name).parameters())
        for name in ("unet", "text_encoder", "vae")
    }


def count_tflop(size: Size) -> dict[str, float]:
    """TFLOP of a U-Net pass, of decoding, and of an image: guidance takes two passes a step.

    Counted as the networks are written, a multiplication and an addition as two; what the sampler saves of it by
    sharing counts as done.  Nothing is computed.
    """
    meta = torch.device("meta")
    pipeline = build_pipeline(size, meta)
    side = size.unet["sample_size"]
    latents = torch.empty(1, 4, side, side, device=meta)
    text = torch.empty(1, 77, size.text["hidden_size"], device=meta)

    def tflop(call: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        return float(counter.get_total_flops() / TERA)

    timestep = torch.zeros((), device=meta)
    unet = tflop(lambda: pipeline.unet(latents, timestep, encoder_hidden_states=text))
    decoder = tflop(lambda: pipeline.vae.decode(latents))
    return {"unet_pass": unet, "decoder": decoder, "picture": 2 * size.steps * unet + decoder}


def measure_ceilings(size: Size, device: torch.device) -> dict[str, Any]:
    """What the card reaches at best: TFLOP/s of a bfloat16 matrix product, TB/s read and written by a copy."""
    a, b = torch.randn(2, size.matrix, size.matrix, device=device, dtype=torch.bfloat16)
    source = torch.randn(size.copied, device=device)
    product, target = torch.empty_like(a), torch.empty_like(source)

    def best(call: Callable[[], object]) -> float:
        durations = [seconds(device, call) for _ in range(REPEATS + 3)]
        return statistics.median(durations[3:])

    flop, moved = 2 * size.matrix**3, 2 * source.nbytes
    return {
        "matrix_product_tflops": rounded(flop / best(lambda: torch.mm(a, b, out=product)) / TERA),
        "copy_tb_per_second": rounded(moved / best(lambda: target.copy_(source)) / TERA),
    }


@dataclass
class Yardsticks:
    """What a rate of images is compared with.

    Attributes:
        tflop: of an image.
        peak: TFLOP/s that the card reaches in a matrix product; None if unknown.
        loop: images a second of the peers' loop; None if unknown.
    """

    tflop: float
    peak: float | None = None
    loop: float | None = None

    def figures(self, rate: float) -> dict[str, float]:
        """A rate in images a second, and compared."""
        tflops = rate * self.tflop
        figures = {"images_per_second": rounded(rate), "tflops": rounded(tflops)}
        if self.loop:
            figures["ratio_to_loop"] = rounded(rate / self.loop)
        if self.peak:
            figures["share_of_peak"] = rounded(tflops / self.peak)
        return figures


def prompts_of(count: int) -> list[str]:
    """Prompts, all different, as in a benchmark."""
    return [f"a photo of a church, number {k}" for k in range(count)]


def stock_pipeline(parts: Any) -> Any:
    """Diffusers' own pipeline of the parts."""
    stock = StableDiffusionPipeline(
        **vars(parts), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    stock.set_progress_bar_config(disable=True)
    return stock


def measure_loop(size: Size, device: torch.device, yardsticks: Yardsticks) -> dict[str, Any]:
    """The stock pipeline, one prompt at a time, in float16 where there is a GPU."""
    pipeline = build_pipeline(size, device)
    if device.type == "cuda":
        for network in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
            network.half()
    stock = stock_pipeline(pipeline)

    def loop(images: int, steps: int) -> None:
        for prompt in prompts_of(images):
            stock(prompt, num_inference_steps=steps, guidance_scale=GUIDANCE)

    duration, figures = warmed_up(device, lambda: loop(1, WARM_UP_STEPS), lambda: loop(LOOPED, size.steps))
    return {**yardsticks.figures(LOOPED / duration), **figures}


def measure_batch(size: Size, model: DiffusionModel, yardsticks: Yardsticks, batch: int) -> dict[str, Any]:
    """One batch of images by the project's sampler, after a warm-up of two steps, which compiles if need be."""
    prompts, seeds = prompts_of(batch), range(batch)

    def draw(steps: int) -> object:
        return sample(model, prompts, seeds, Sampler("ddim", steps, GUIDANCE), batch)

    duration, figures = warmed_up(model.device, lambda: draw(WARM_UP_STEPS), lambda: draw(size.steps))
    return {**yardsticks.figures(batch / duration), **figures}


def measure_eager(
    part: Part, size: Size, model: DiffusionModel, yardsticks: Yardsticks, first: float
) -> dict[int, dict[str, Any]]:
    """Rows of every batch, as the sampler is by default.

    Args:
        part: whose figures.
        size: of the images.
        model: that draws them.
        yardsticks: what rates are compared with.
        first: seconds that the smallest batch will take, about.
    """
    rows, needed = {}, first
    for batch in size.batches:
        row = attempt(
            part,
            f"sampling.eager.{batch}",
            RESERVED * part.limit + needed,
            partial(measure_batch, size, model, yardsticks, batch),
        )
        if row:
            rows[batch] = row
            # Of a batch of four times the size, at most.
            needed = 4 * (row["seconds"] + row["warm_up_seconds"])
    return rows


class OutOfTime(BaseException):
    """No ``Exception``, so that nothing on its way takes it for an error of its own."""


@contextmanager
def alarm(after: float) -> Iterator[None]:
    """Break the block off, if it lasts longer than ``after`` seconds; in the main thread only.

    Raises:
        OutOfTime: it does.
    """

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    # Again every three seconds, in case the first is swallowed by something that must not raise.
    signal.setitimer(signal.ITIMER_REAL, max(after, 0.001), 3.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure_compiled(
    part: Part, size: Size, model: DiffusionModel, yardsticks: Yardsticks, eager: Mapping[int, Mapping[str, Any]]
) -> None:
    """Rows of every batch with a compiled U-Net, the best eager batch first; the warm-up of each includes compiling."""
    best = max(eager, key=lambda batch: float(eager[batch]["images_per_second"]), default=size.batches[-1])
    order = [best, *(batch for batch in size.batches if batch != best)]
    model.compile(backend=size.backend)
    try:
        with alarm(part.seconds_left() - ending(part)):
            while order:
                batch = order[0]
                known = eager.get(batch)
                needed = (known["seconds"] if known else 0.0) + size.compile_seconds
                attempt(
                    part,
                    f"sampling.compiled.{batch}",
                    needed,
                    partial(measure_batch, size, model, yardsticks, batch),
                )
                order.pop(0)
    except OutOfTime:
        for batch in order:
            part.record(f"sampling.compiled.{batch}", OUT_OF_TIME)


def run(part: Part) -> None:
    """Measure ceilings, the peers' loop, sampling, every erasure method, and sampling with a compiled U-Net."""
    quiet()
    # What the imports left is there to stay: garbage is looked for after every measurement, in the rest alone.
    gc.freeze()
    size, device = (TINY if part.tiny else FULL), part.device
    tflop = count_tflop(size)
    part.record("tflop", {name: rounded(value) for name, value in tflop.items()})
    yardsticks = Yardsticks(tflop["picture"])
    ceilings = attempt(part, "ceilings", 0.0, lambda: measure_ceilings(size, device))
    if ceilings:
        yardsticks.peak = ceilings["matrix_product_tflops"]
    needed = RESERVED * part.limit
    loop = attempt(part, "sampling.peers_loop.1", needed, lambda: measure_loop(size, device, yardsticks))
    if loop:
        yardsticks.loop = loop["images_per_second"]
    pipeline = build_pipeline(size, device)
    part.record("parameters", parameter_counts(pipeline))
    precision = resolve_dtype("auto", device.type)
    part.record("precision", precision)
    model = DiffusionModel(pipeline, "photo", device, getattr(torch, precision))
    eager = measure_eager(part, size, model, yardsticks, loop["seconds"] / LOOPED if loop else 0.0)
    measure_erasures(part, model)
    measure_compiled(part, size, model, yardsticks, eager)

"""The work of an image, and of a step of an attack and of an erasure, counted: as others do it, and as it is done here.

At the size of Stable Diffusion 1.4, on a GPU that computes nothing but shapes (:mod:`benchmarks.counting`).

    python -m benchmarks.counts             # prints results/counts.md, in a few minutes
    python -m benchmarks.counts --write     # puts it there
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch

from benchmarks.counting import GPU, Counter, Work, counting
from benchmarks.gpu.parts.attacks import AT_ONCE, VOCABULARY, build_model, build_target
from benchmarks.gpu.parts.erasures import DOMAIN, SEED, church, stand_in
from benchmarks.gpu.parts.sd import FULL, GUIDANCE, Size, build_pipeline, prompts_of, stock_pipeline
from erasebench.hyper_parameters import make_plugin
from erasebench.models.diffusion import DiffusionModel
from erasebench.picturebook import quiet
from erasebench.plugins import AttackContext, EraseContext
from erasebench.registry import ATTACKS, METHODS
from erasebench.sampling import Sampler, sample

PAGE = Path("results/counts.md")
PRECISION = "bfloat16"
"""Of mixed precision, which runs on a GPU compute in."""
ATTACKED_STEPS = 4
"""Steps of an attack, of which the last is counted: the first pass is remembered, and the second recorded."""

TRAINED_STEPS = 14
"""Steps of an erasure, of which the last ones are counted."""


@dataclass(frozen=True)
class Row:
    """A row of a table: which count, what it is called, and in units of how many it is shown."""

    count: str
    name: str
    unit: float = 1


ROWS = (
    Row("unet_calls", "U-Net calls"),
    Row("unet_rows", "rows of the U-Net: latents with a text"),
    Row("text_rows", "texts through the text encoder"),
    Row("flop", "TFLOP", 1e12),
    Row("operations", "operations"),
    Row("launches", "launches"),
    Row("waits", "waits of the host for the GPU"),
    Row("bytes_to_gpu", "kB to the GPU", 1e3),
    Row("bytes_to_host", "kB to the host", 1e3),
    Row("bytes_cast", "MB of weights cast", 1e6),
)


def whole(work_of: Callable[[int], Work], steps: int) -> Work:
    """The work of so many sampling steps, from that of one and of two: each but the first takes the same."""
    one, two = work_of(1), work_of(2)
    return one + (two - one) * (steps - 1)


def count_loop(size: Size, *, mixed: bool) -> Work:
    """Count the work of an image by diffusers' own pipeline.

    Args:
        size: of the networks.
        mixed: weights in float32 under one autocast for each image; in float16 otherwise.
    """
    with counting() as counter:
        with default_dtype(torch.float32 if mixed else torch.float16):
            parts = build_pipeline(size, GPU)
        watch(counter, parts)
        stock = stock_pipeline(parts)
        (prompt,) = prompts_of(1)

        def draw(steps: int) -> Work:
            with torch.autocast(GPU.type, dtype=getattr(torch, PRECISION), enabled=mixed):
                return counter.of(lambda: stock(prompt, num_inference_steps=steps, guidance_scale=GUIDANCE))

        return whole(draw, size.steps)


def count_sampling(size: Size, images: int, *, copied: bool = True) -> Work:
    """Count the work of an image by the project's sampler.

    Args:
        size: of the networks.
        images: drawn at a time, of different prompts.
        copied: by the copy of the U-Net, recorded where rows are few; by the U-Net itself otherwise, as one is that
            has hooks.
    """
    with counting() as counter:
        model = DiffusionModel(build_pipeline(size, GPU), DOMAIN, GPU, getattr(torch, PRECISION))
        watch(counter, model)
        model.accelerated = copied
        prompts, seeds = prompts_of(images), range(images)

        def draw(steps: int) -> Work:
            return counter.of(lambda: sample(model, prompts, seeds, Sampler("ddim", steps, GUIDANCE), images))

        draw(1)  # makes the copy, and records
        return whole(draw, size.steps) * (1 / images)


def count_attack(size: Size, prompts: int, *, accelerated: bool = True, vocabulary: int = VOCABULARY) -> Work:
    """Count the work of a gradient step of UnlearnDiffAtk, for each prompt.

    Args:
        size: of the networks.
        prompts: attacked at once.
        accelerated: passes of few rows are recorded.
        vocabulary: tokens that the search chooses from.
    """
    plugin = ATTACKS.get("unlearndiff")
    with counting() as counter:
        model = build_model(size, GPU, PRECISION, vocabulary)
        watch(counter, model)
        model.accelerated = accelerated

        settings = {**plugin.presets, "timesteps": 1, "steps": ATTACKED_STEPS, "test_prompt": False}
        attack = make_plugin(plugin.make, settings).resolved([church()])
        after = list[Work]()  # each step
        context = AttackContext(SEED, lambda *_: after.append(counter.work))
        attack.attack(build_target(model, prompts, 1), context)
        return (after[-1] - after[-2]) * (1 / prompts)


def count_training(size: Size, *, accelerated: bool = True) -> Work:
    """Count the work of a gradient step of ESD-x, on average.

    A step samples up to one of :data:`Size.steps` steps, which is drawn at random.  Short runs are counted: those that
    sample nothing, one step and two; each further one takes what the second did.

    Args:
        size: of the networks.
        accelerated: images are sampled with a copy of the U-Net, and passes of few rows are recorded.

    Raises:
        KeyError: one of these did not come up.
    """
    plugin = METHODS.get("esd-x")
    with counting() as counter, TemporaryDirectory() as folder:
        model = DiffusionModel(build_pipeline(size, GPU), DOMAIN, GPU, getattr(torch, PRECISION))
        watch(counter, model)
        model.accelerated = accelerated
        made = make_plugin(plugin.make, {**plugin.presets, "steps": TRAINED_STEPS, "sampling_steps": 3})
        after = list[Work]()  # each step's loss
        context = EraseContext(SEED, Path(folder), lambda *_: after.append(counter.work), stand_in)
        made.resolved([church()]).erase(model, [church()], context)
    # The last of each kind, whose passes are recorded; besides sampling there are two.
    kinds = {int(step.unet_calls) - 2: step for step in (two - one for one, two in pairwise(after))}
    sampled = size.steps - 1
    further = (kinds[2] - kinds[1]) * (sampled * (sampled - 1) / 2)
    return (kinds[0] + kinds[1] * sampled + further) * (1 / size.steps)


def watch(counter: Counter, parts: Any) -> None:
    """Count the casts of all weights of a pipeline's parts, or of a model's."""
    counter.watch([parts.unet, parts.text_encoder, parts.vae])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Build networks in a precision, until the block ends."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def table(ways: Mapping[str, Work]) -> str:
    """Counts in Markdown, a column for each way."""
    lines = [f"| | {' | '.join(ways)} |", f"|---|{'---:|' * len(ways)}"]
    for row in ROWS:
        values = (shown(getattr(work, row.count) / row.unit) for work in ways.values())
        lines.append(f"| {row.name} | {' | '.join(values)} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    """A number to four digits, in whole ones from a thousand on."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def page(size: Size = FULL, at_once: int = AT_ONCE) -> str:
    """All of ``results/counts.md``."""
    images = {
        "peers' loop, float16": count_loop(size, mixed=False),
        "peers' loop, autocast": count_loop(size, mixed=True),
        "here, 1 at a time": count_sampling(size, 1),
        f"here, {at_once} at a time": count_sampling(size, at_once),
        f"here, {at_once}, U-Net with hooks": count_sampling(size, at_once, copied=False),
    }
    steps = {
        "1 at a time, stock passes": count_attack(size, 1, accelerated=False),
        "here, 1 at a time": count_attack(size, 1),
        f"here, {at_once} at once": count_attack(size, at_once),
    }
    training = {
        "stock passes": count_training(size, accelerated=False),
        "here": count_training(size),
    }
    return TEXT.format(
        torch=torch.__version__,
        diffusers=diffusers.__version__,
        steps=size.steps,
        guidance=GUIDANCE,
        images=table(images),
        attack=table(steps),
        training=table(training),
    )


TEXT = """# Work, counted

Made by `python -m benchmarks.counts --write`, without a GPU: torch runs every program as on one, with tensors that have
shapes and no numbers, and what is asked of the GPU is counted. The networks have the size of Stable Diffusion 1.4.
Counted with torch {torch} and diffusers {diffusers}.

## An image of {steps} DDIM steps, guidance {guidance}

{images}

- **Peers' loop**: diffusers' own pipeline, one prompt after the other, as the methods' published codes draw; weights in
  float16, or in float32 under one autocast to bfloat16 for each image.
- **Here**: `erasebench.sampling`, in bfloat16. Passes are by a copy of the U-Net, whose weights are cast once for each
  batch; of up to 16 rows they are recorded as a CUDA graph. A U-Net with hooks is used itself, under autocast.
- What is launched besides graphs is guidance and the scheduler at each step, and once for each batch the text encoder,
  the cast of each weight, and the decoder.
- To the GPU goes starting noise, drawn on the CPU so that it is the same everywhere; back come pixels as bytes.
- What is done once for a process is left out: to make the copy, and to record.

## A gradient step of `unlearndiff`, for each prompt

{attack}

- **Stock passes**: diffusers' U-Net under autocast, as the GPU kit's `attacks` measures them. Here a pass of up to 8
  rows and its gradients are recorded, those of more are not; what else is launched is the text encoder and the search.
- As published there are 2,000 steps for each prompt, and 51 images to look at, which are not in these counts; nor is
  the noise of the steps at a timestep, which is drawn before them.

## A gradient step of `esd-x`, on average

{training}

- A step samples up to a step that is drawn at random, predicts twice by the frozen weights, in one call, and once by
  those in training, with gradients. All of that is recorded here; the copy that samples takes over the weights first.
- **Stock passes**: the U-Net itself under autocast, as of the attack; each pass casts all weights.

## What is counted

- **Operations**: those of torch that write something; no views. Each is one kernel at least; attention counts as one.
- **Launches**: the same, but a CUDA graph is one, whatever is in it.
- **TFLOP**: of matrix products, convolutions and attention, a multiplication and an addition as two.
- **Waits**: times that the host reads something from the GPU. Six a step are those of the peers' scheduler, whose
  timesteps are on the GPU.
- **Weights cast**: what is written in another precision than that in which a weight is kept.

## What counts cannot say

Time. A kernel of 32 rows takes longer than one of 2, and how much longer depends on the card; a launch costs nothing
where the GPU has work left. Torch's own kernels may be several, and cuDNN and cuBLAS choose theirs by the card. Nothing
is said of memory, of `--compile`, or of CPUs. What a GPU takes is in [gpu](gpu/README.md).
"""


def main() -> None:
    """Print the page, or write it into the results."""
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(f"unknown arguments: {' '.join(sys.argv[1:])}; there is --write")
    quiet()
    text = page()
    if sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()

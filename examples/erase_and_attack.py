"""Erase a concept from Picturebook, draw before and after, attack what is left, and print the table.

    python examples/erase_and_attack.py --method uce --concept church --out example

Without a GPU, a network or weights to download, in a minute or two.  It leaves in the folder: ``erased/``, a pipeline
for ``StableDiffusionPipeline.from_pretrained``; ``before-and-after.png``; and ``run/``, tables, scores and images.
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import make_image_grid
from PIL.Image import Image

import erasebench
from erasebench.picturebook import GUIDANCE, STEPS, load_pipeline

PRESETS = ("smoke", "quick", "paper")
ATTACKS = ("none", "synonyms")
"""The prompts as they are, which is the control, and other words in place of the concept's."""


def draw(pipeline: StableDiffusionPipeline, prompts: list[str]) -> list[Image]:
    """One image of each prompt, each from noise of its own, which is the same for every pipeline."""
    noise = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    images: list[Image] = pipeline(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise).images
    return images


def say(text: str) -> None:
    """Tell what is being done, where progress goes as well: standard output has the results alone."""
    print(text, file=sys.stderr)


def main() -> int:
    """Return the exit code: 2 for a method or a concept that there is not."""
    parser = argparse.ArgumentParser(description="Erase a concept, look, attack, and print the table.")
    parser.add_argument("--method", default="uce", help="erasebench list methods  [%(default)s]")
    parser.add_argument("--concept", default="church", help="erasebench list concepts  [%(default)s]")
    parser.add_argument("--preset", default="smoke", choices=PRESETS, help="how much is drawn  [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("example"), help="folder of what is made  [%(default)s]")
    options = parser.parse_args()
    try:
        erase_and_attack(options.method, options.concept, options.preset, options.out)
    except erasebench.EraseBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def erase_and_attack(method: str, concept: str, preset: str, out: Path) -> None:
    """Erase, look, attack, and print the table.

    Args:
        method: that changes weights.
        concept: of the catalogue.
        preset: how much is drawn and attacked.
        out: folder of what is made.

    Raises:
        EraseBenchError: there is no such method or concept.
    """
    pipeline = load_pipeline()
    erased = erasebench.erase(pipeline, method, concept, progress=lambda done, of, note: say(f"  {done}/{of} {note}"))
    erased.save_pretrained(out / "erased")

    prompts = [f"a photo of a {concept}", f"a crayon drawing of a {concept}", "a photo of a golf ball"]
    say(f"erased {concept} by {method}; drawing before and after")
    images = [*draw(pipeline, prompts), *draw(erased, prompts)]
    make_image_grid([image.resize((160, 160)) for image in images], rows=2, cols=len(prompts)).save(
        out / "before-and-after.png"
    )

    say("measuring and attacking:")
    results = erasebench.run(
        [method], [concept], attacks=list(ATTACKS), preset=preset, out=out / "run", store=out / "store"
    )
    print(results)

    attacks = results.attacks
    broken = attacks[(attacks["method"] == method) & attacks["confirmed"]]
    print(f"{len(broken)} attacked prompts brought {concept} back")
    for _, row in broken.iterrows():
        print(f"  {row['attack']}: {row['found']}")


if __name__ == "__main__":
    sys.exit(main())

"""One sheet with everything that the built-in model can draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from erasebench.errors import check_name
from erasebench.grammar import with_article
from erasebench.picturebook import GUIDANCE, STEPS, load_pipeline
from erasebench.picturebook.world.canvas import SIZE
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.people import CHARACTERS
from erasebench.picturebook.world.scene import LABELS, render, sample_scene
from erasebench.picturebook.world.styles import STYLES

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

COLUMNS = 8
_NOUNS = {"nudity": "nude figure", "violence": "violent fight", "person": "person"}
_STYLED = ("church", "english-springer", "garbage-truck", "parachute")
_MARGIN, _LINE, _SCALE = 6, 14, 2
AT_ONCE = {"cpu": 25, "cuda": 400}
"""Images in a batch."""


def concept_prompt(label: str, style: str = "photo") -> str:
    """A plain prompt for one of ``LABELS``: "a photo of a church".

    Raises:
        UnknownNameError: an unknown label or style, with the nearest known names.
    """
    check_name("concept", label, LABELS)
    check_name("style", style, STYLES)
    medium = STYLES[style].prefixes[0]
    if label in CHARACTERS:
        return f"{medium} of {CHARACTERS[label].name}"
    noun = OBJECTS[label].words[0] if label in OBJECTS else _NOUNS[label]
    return f"{medium} of {with_article(noun)}"


def draw(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], steps: int = STEPS
) -> list[Image.Image]:
    """Draw one image for each prompt; its noise depends on its own prompt and seed only.

    Args:
        pipeline: any Stable Diffusion pipeline.
        prompts: what to draw.
        seeds: one for each prompt.
        steps: DDIM steps.
    """
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.sampling import Sampler, sample

    model = DiffusionModel(pipeline, "picturebook", pipeline.device)
    at_once = AT_ONCE.get(model.device.type, AT_ONCE["cuda"])
    images = sample(model, prompts, seeds, Sampler("ddim", steps, GUIDANCE), at_once)
    return [Image.fromarray(image) for image in images]


def draw_grid(out: Path, pipeline: StableDiffusionPipeline | None = None, steps: int = STEPS) -> None:
    """Write a labelled PNG sheet: every concept twice, then every style on a few objects.

    Args:
        out: the PNG to write.
        pipeline: the model; the shipped one if omitted.
        steps: DDIM steps.

    Raises:
        WeightsError: the shipped model is missing or corrupt.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prompts = [concept_prompt(label, style) for label, style, _ in _CELLS]
    _write(draw(pipeline or load_pipeline(), prompts, [seed for *_, seed in _CELLS], steps), out)


def draw_world(out: Path) -> None:
    """Write the same sheet as :func:`draw_grid`, with scenes of the world instead of the model's images."""
    scenes = [sample_scene(k, subject=label, style=style) for k, (label, style, _) in enumerate(_CELLS)]
    _write([Image.fromarray(render(scene).image) for scene in scenes], out)


_CONCEPTS = [(label, "photo", seed) for label in LABELS for seed in (0, 1)]
_CELLS = [*_CONCEPTS, *((label, style, 0) for style in STYLES for label in _STYLED)]
"""Label, style and seed of every image on the sheet."""


def _write(images: Sequence[Image.Image], out: Path) -> None:
    captions = [label if k < len(_CONCEPTS) else style for k, (label, style, _) in enumerate(_CELLS)]
    # The styles start on a row of their own.
    gap = -len(_CONCEPTS) % COLUMNS
    places = [k if k < len(_CONCEPTS) else k + gap for k in range(len(_CELLS))]
    out.parent.mkdir(parents=True, exist_ok=True)
    _sheet(images, captions, places).save(out, format="PNG")


def _sheet(images: Sequence[Image.Image], captions: Sequence[str], places: Sequence[int]) -> Image.Image:
    """Images at numbered places of a grid, enlarged, with a caption below each."""
    side = SIZE * _SCALE
    width, height = side + _MARGIN, side + _LINE + _MARGIN
    rows = 1 + max(places) // COLUMNS
    sheet = Image.new("RGB", (COLUMNS * width + _MARGIN, rows * height + _MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for image, caption, place in zip(images, captions, places, strict=True):
        x, y = place % COLUMNS * width + _MARGIN, place // COLUMNS * height + _MARGIN
        sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (x, y))
        pen.text((x, y + side), caption, fill="black", font=font)
    return sheet

"""Sheets of samples: what each method draws for the same prompts and seeds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]

MIN_SIDE = 128
"""In pixels: smaller images are enlarged to at least this."""

_GAP, _PROMPT, _TEXT, _TITLE = 8, 170, 14, 18  # pixels: between cells, the prompts' width, sizes of letters

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def sample_grid(
    columns: Mapping[str, Sequence[Pixels]], prompts: Sequence[str], title: str = "", blur: bool = False
) -> Image.Image:
    """A labelled sheet: a row for each prompt, a column for each method, one prompt and seed across a row.

    Args:
        columns: by method, the unerased model first: one image [H, W, 3] uint8 for each prompt, in their order.
        prompts: at the left of their rows.
        title: at the top.
        blur: make all images unrecognisable but for their large masses of colour; the title says so.

    Returns:
        An RGB image.  Images narrower or lower than ``MIN_SIDE`` are enlarged by a whole factor, without smoothing.

    Raises:
        ValueError: nothing to show, a column of another length, or an image of another shape or type.
    """
    if not columns or not prompts:
        raise ValueError("a sheet needs at least one method and one prompt")
    for method, column in columns.items():
        if len(column) != len(prompts):
            raise ValueError(f"{method} has {len(column)} images for {len(prompts)} prompts")
    shown = {method: [_prepare(pixels, blur) for pixels in column] for method, column in columns.items()}
    font, large = ImageFont.load_default(_TEXT), ImageFont.load_default(_TITLE)
    wide = max(image.width for images in shown.values() for image in images)
    heights = [max(images[row].height for images in shown.values()) for row in range(len(prompts))]

    width = _PROMPT + 2 * _GAP + len(shown) * (wide + _GAP)
    heading = wrap(f"{title} (blurred)".strip() if blur else title, large, width - 2 * _GAP)
    heads = [wrap(method, font, wide) for method in shown]
    labels = [wrap(prompt, font, _PROMPT) for prompt in prompts]
    line, title_line = _TEXT + 4, _TITLE + 6
    heights = [max(height, line * len(label)) for height, label in zip(heights, labels, strict=True)]
    top = _GAP + title_line * len(heading) + line * max(map(len, heads)) + _GAP

    sheet = Image.new("RGB", (width, top + sum(heights) + _GAP * len(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    for k, words in enumerate(heading):
        pen.text((_GAP, _GAP + k * title_line), words, fill="black", font=large)
    for number, (lines, images) in enumerate(zip(heads, shown.values(), strict=True)):
        x, y = _PROMPT + 2 * _GAP + number * (wide + _GAP), top
        for k, words in enumerate(lines):
            pen.text((x, top - _GAP - (len(lines) - k) * line + 4), words, fill="black", font=font)
        for image, height in zip(images, heights, strict=True):
            sheet.paste(image, (x, y))
            y += height + _GAP
    y = top
    for label, height in zip(labels, heights, strict=True):
        for k, words in enumerate(label):
            pen.text((_GAP, y + k * line), words, fill="black", font=font)
        y += height + _GAP
    return sheet


def wrap(text: str, font: Font, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` pixels; a word that is longer by itself is cut."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while font.getlength(word) > width and len(word) > 1:
            fit = _letters_that_fit(word, font, width)
            lines.append(word[:fit])
            word = word[fit:]
        lines.append(word)
    return lines


def _letters_that_fit(word: str, font: Font, width: int) -> int:
    return bisect_right(range(1, len(word)), float(width), key=lambda count: font.getlength(word[:count])) or 1


def _prepare(pixels: Pixels, blur: bool) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"images are uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    image = Image.fromarray(pixels)
    factor = math.ceil(MIN_SIDE / min(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return blurred(image) if blur else image


def blurred(image: Image.Image) -> Image.Image:
    """An image of which only the large masses of colour are left."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 8))

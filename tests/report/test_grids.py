"""Sheets of samples: where the pictures land, what blurring leaves, how words are wrapped."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageFont

from erasebench.report.grids import MIN_SIDE, sample_grid, wrap

PROMPTS = ["a photo of a church", "a crayon drawing of a parachute"]
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90)


def plain(colour: tuple[int, int, int], size: int = 64) -> NDArray[np.uint8]:
    return np.full((size, size, 3), colour, dtype=np.uint8)


def box(sheet: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero((sheet == colour).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_rows_are_prompts_and_columns_methods() -> None:
    sheet = np.asarray(sample_grid({"sd": [plain(RED), plain(GREEN)], "esd": [plain(BLUE), plain(GREY)]}, PROMPTS, "x"))
    red, green, blue, grey = (box(sheet, colour) for colour in (RED, GREEN, BLUE, GREY))
    assert red[0] == green[0] < blue[0] == grey[0] and red[1] == blue[1] < green[1] == grey[1]
    for x0, y0, x1, y1 in (red, green, blue, grey):
        assert (x1 - x0, y1 - y0) == (128, 128)
    assert (sheet[red[1] : red[3], : red[0]] < 100).any(), "the first prompt stands at the left of its row"
    assert (sheet[: red[1], blue[0] :] < 100).any(), "the second method stands above its column"


@pytest.mark.parametrize(("size", "shown"), [(50, 150), (64, 128), (128, 128), (200, 200)])
def test_small_pictures_are_enlarged_by_a_whole_factor(size: int, shown: int) -> None:
    picture = np.random.default_rng(0).integers(1, 200, size=(size, size, 3), dtype=np.uint8)
    picture[0, 0] = picture[-1, -1] = RED
    sheet = np.asarray(sample_grid({"sd": [picture]}, ["p"]))
    x0, y0, x1, y1 = box(sheet, RED)
    assert x1 - x0 == y1 - y0 == shown >= MIN_SIDE
    factor = shown // size
    assert np.array_equal(sheet[y0:y1:factor, x0:x1:factor], picture)


def test_blur_leaves_no_detail_and_is_told() -> None:
    checks = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((8, 8)))[..., None].repeat(3, axis=2) * 255
    picture = checks.astype(np.uint8)
    sharp = np.asarray(sample_grid({"sd": [picture]}, ["p"], "t"), dtype=np.float64)
    blurred = np.asarray(sample_grid({"sd": [picture]}, ["p"], "t", blur=True), dtype=np.float64)
    assert sharp.shape == blurred.shape
    assert sharp[-130:-10, -130:-10].std() > 100 > 10 > blurred[-130:-10, -130:-10].std()
    assert not np.array_equal(sharp[:30], blurred[:30]), "the title says that it is blurred"


def test_a_long_prompt_makes_room_for_itself() -> None:
    short, long = (sample_grid({"sd": [plain(RED)]}, [text]) for text in ("p", "many words " * 30))
    assert long.height > short.height and long.width == short.width


def test_wrap() -> None:
    font = ImageFont.load_default(14)
    text = "a photo of a church by the " + "l" * 80 + " long road"
    lines = wrap(text, font, 120)
    assert all(font.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("", font, 100) == [] and wrap("wide", font, 1) == list("wide")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one method and one prompt"):
        sample_grid({}, PROMPTS)
    with pytest.raises(ValueError, match="esd has 1 images for 2 prompts"):
        sample_grid({"sd": [plain(RED)] * 2, "esd": [plain(RED)]}, PROMPTS)
    with pytest.raises(ValueError, match="not float32"):
        sample_grid({"sd": [plain(RED).astype(np.float32)]}, ["p"])
    with pytest.raises(ValueError, match="not uint8"):
        sample_grid({"sd": [plain(RED)[..., :1]]}, ["p"])

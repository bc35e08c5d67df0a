"""Thumbnails within a budget, and the originals beside a page."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.images import read_png, write_images
from erasebench.report.thumbnails import BLURRED_SIDE, SIDE, Source, Thumbnail, Thumbnails, remove_others

MANY = 10**9


def checks(side: int, width: int) -> NDArray[np.uint8]:
    """A board of black and white squares, and a stripe that makes it no mere pattern."""
    board = np.indices((side, side)).sum(axis=0) // width % 2 * 255
    board[: side // 4] = 255
    return np.repeat(board.astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def cell_of(store: Store, *images: NDArray[np.uint8]) -> str:
    cell = Cell("generate", {"images": [hashlib.sha256(image.tobytes()).hexdigest() for image in images]}, {}, "t")
    with store.writing(cell, {"seconds": 1.0}) as folder:
        write_images(folder, np.stack(images), ["i"] * len(images), ["t"] * len(images), list(range(len(images))))
    return cell.key


def pixels(thumbnail: Thumbnail | None) -> NDArray[np.uint8]:
    assert thumbnail
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail.uri.partition(",")[2]))).convert("RGB"))


def one(thumbnails: Thumbnails, source: Source) -> Thumbnail:
    made = thumbnails.add([source], MANY)
    assert made and made[0]
    return made[0]


@pytest.mark.parametrize(("side", "shown"), [(32, 32), (96, 96), (512, 96)])
def test_a_thumbnail_looks_like_its_image_and_is_no_larger_than_it_need_be(
    store: Store, tmp_path: Path, side: int, shown: int
) -> None:
    image = checks(side, side // 4)
    small = pixels(one(Thumbnails(tmp_path / "p.html"), Source(store, cell_of(store, image), 0)))
    assert small.shape == (shown, shown, 3) and SIDE == 96
    expected = np.asarray(Image.fromarray(image).resize((shown, shown), Image.Resampling.BOX), dtype=float)
    assert np.abs(small - expected).mean() < 12


def test_blurred_pixels_hold_no_detail(store: Store, tmp_path: Path) -> None:
    sharp, hidden = (
        pixels(one(Thumbnails(tmp_path / "p.html"), Source(store, cell_of(store, checks(256, 16)), 0, blur)))
        for blur in (False, True)
    )
    assert max(hidden.shape) == BLURRED_SIDE
    below = slice(len(hidden) // 2, None)
    assert hidden[below].std() < 6 < 90 < sharp[len(sharp) // 2 :].std(), "the squares are gone"
    assert hidden[0].mean() - hidden[-1].mean() > 60, "the bright mass is left"


def test_originals_are_the_stores_bytes_named_by_content(store: Store, tmp_path: Path) -> None:
    key, other = cell_of(store, checks(32, 4), checks(32, 8)), cell_of(store, checks(32, 4))
    thumbnails = Thumbnails(tmp_path / "my report.html")
    made = thumbnails.add([Source(store, key, 0), Source(store, key, 1), Source(store, other, 0)], MANY)
    assert made and all(made)
    names = [thumbnail.original for thumbnail in made if thumbnail]
    assert names[0] == names[2] != names[1] and names[0].startswith("my report-images/")
    assert {f"my report-images/{path.name}" for path in thumbnails.folder.iterdir()} == set(names)
    for name, place in zip(names, (0, 1), strict=False):
        assert (tmp_path / name).read_bytes() == read_png(store.read(key), place)


def test_what_does_not_fit_is_not_written(store: Store, tmp_path: Path) -> None:
    sources = [Source(store, cell_of(store, checks(64, width)), 0) for width in (4, 8, 16)]
    sizes = [len(one(Thumbnails(tmp_path / "measure.html"), source).uri) for source in sources]
    thumbnails = Thumbnails(tmp_path / "p.html")
    assert thumbnails.add(sources[:1], sizes[0]) and thumbnails.bytes == sizes[0]
    assert thumbnails.add(sources[1:], sum(sizes) - 1) is None and thumbnails.bytes == sizes[0]
    assert len(list(thumbnails.folder.iterdir())) == 1
    assert thumbnails.add(sources[1:], sum(sizes)) and thumbnails.bytes == sum(sizes)
    assert len(list(thumbnails.folder.iterdir())) == 3


def test_a_cell_that_is_gone_is_told(store: Store, tmp_path: Path) -> None:
    key, gone = cell_of(store, checks(32, 4)), "0" * 64
    thumbnails = Thumbnails(tmp_path / "p.html")
    made = thumbnails.add([Source(store, gone, 0), Source(store, key, 0), Source(store, gone, 1)], MANY)
    assert made and [thumbnail is None for thumbnail in made] == [True, False, True]
    assert thumbnails.problems == {gone: "cell 000000000000 is missing"}


def test_an_earlier_pages_originals_go_and_what_the_user_put_there_stays(store: Store, tmp_path: Path) -> None:
    first, second = (Source(store, cell_of(store, checks(32, width)), 0) for width in (4, 8))
    before = Thumbnails(tmp_path / "p.html")
    name = one(before, first).original
    (before.folder / "mine.png").write_bytes(b"mine")
    after = Thumbnails(tmp_path / "p.html")
    kept = one(after, second).original
    remove_others(tmp_path / "p.html", f'<a href="{kept}">')
    assert {path.name for path in after.folder.iterdir()} == {"mine.png", Path(kept).name} and name != kept
    remove_others(tmp_path / "none.html", "")


def test_a_damaged_original_is_written_anew_and_a_sound_one_left(store: Store, tmp_path: Path) -> None:
    source = Source(store, cell_of(store, checks(32, 4)), 0)
    path = tmp_path / one(Thumbnails(tmp_path / "p.html"), source).original
    whole, time = path.read_bytes(), path.stat().st_mtime_ns
    one(Thumbnails(tmp_path / "p.html"), source)
    assert path.stat().st_mtime_ns == time
    path.write_bytes(whole[:50])
    one(Thumbnails(tmp_path / "p.html"), source)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "p-images").write_text("a file")
    with pytest.raises(EraseBenchError, match=r"the report's images .*p-images cannot be written"):
        Thumbnails(tmp_path / "p.html").add([Source(store, cell_of(store, checks(32, 4)), 0)], MANY)

"""Names and sources of the images of a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from erasebench.report.sheets import file_name, file_names, joined_name, save_sheet, source_of


def test_names_that_files_cannot_hold_do_not_fall_together() -> None:
    names = ["phrase:red balloon", "phrase:red/balloon", "phrase_red_balloon", "x" * 100, "x" * 101, "x" * 80]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("church") == "church" and max(map(len, map(file_name, names))) < 90
    assert max(len(file_name(letter * 80).encode()) for letter in "教\U00020000é") < 90, "file systems count bytes"


def test_things_of_several_names_do_not_fall_together() -> None:
    apart = [("church",), ("uce", "church"), ("sd", "church")]
    assert file_names(apart) == {parts: "-".join(parts) for parts in apart}
    together = [("uce-church",), ("a", "b-c"), ("a-b", "c"), ("A-b", "c")]
    names = file_names([*apart, *together])
    assert len({name.casefold() for name in names.values()}) == len(names)
    assert names[("church",)] == "church" and names["sd", "church"] == "sd-church"
    assert names["a", "b-c"] == joined_name(("a", "b-c"), hashed=True) != joined_name(("a-b", "c"), hashed=True)
    assert names["a", "b-c"].startswith("a-b-c-")


def test_a_sheet_says_what_it_was_drawn_from_and_anything_else_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    path.parent.mkdir()
    assert source_of(path) is None
    sheet = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    for source in ("abc", "a source of another version"):
        save_sheet(sheet, path, source)
        assert source_of(path) == source
        with Image.open(path) as read:
            assert np.array_equal(np.asarray(read), np.asarray(sheet))
    assert [one.name for one in path.parent.iterdir()] == ["sheet.png"], "nothing half-written is left"
    path.write_bytes(path.read_bytes()[:20])
    assert source_of(path) is None
    sheet.save(path)
    assert source_of(path) == "None", "a picture of somebody else's"


def test_sheets_of_the_same_pixels_and_source_are_the_same_bytes(tmp_path: Path) -> None:
    sheet = Image.new("RGB", (3, 3), (1, 2, 3))
    for name in ("a", "b"):
        save_sheet(sheet, tmp_path / name, "source")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

"""What charts share."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erasebench.report.charts import COLOURS, legend_of_panels, looks, save, style


def draw(path: Path, **texts: str) -> None:
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3, 2), layout="constrained")
        figure.subplots().plot([0, 1 / 3], [0, 2], label="esd-u")
        save(figure, path, **texts)


def test_files_are_the_same_whatever_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    draw(tmp_path / "one", description="A line that rises.", source="abc")
    before = matplotlib.rcParams["lines.linewidth"]
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "other"}):
        draw(tmp_path / "two", description="A line that rises.", source="abc")
        assert matplotlib.rcParams["lines.linewidth"] == 9, "and theirs are as they were"
    assert matplotlib.rcParams["lines.linewidth"] == before
    for ending in ("png", "svg"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "one.svg", "two.png", "two.svg"]


def test_both_files_say_what_they_show_and_what_of(tmp_path: Path) -> None:
    draw(tmp_path / "esd=0.5", description="A line that rises, é.", source="abc")
    with Image.open(tmp_path / "esd=0.5.png") as image:
        assert (image.info["Description"], image.info["Source"]) == ("A line that rises, é.", "abc")
        assert image.size == (360, 240)
    text = (tmp_path / "esd=0.5.svg").read_text(encoding="utf-8")
    assert "A line that rises, é." in text and "abc" in text and "<dc:date>" not in text


def test_coordinates_have_two_decimals_and_words_stay_words(tmp_path: Path) -> None:
    draw(tmp_path / "one")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    paths = re.findall(r'<path d="([^"]*)"', text)
    numbers = [number for path in paths for number in re.findall(r"\d+\.(\d+)", path)]
    assert numbers and max(map(len, numbers)) == 2
    assert "<text" in text, "text can be searched"


def test_no_two_looks_are_alike() -> None:
    names = [f"method {k}" for k in range(28)]
    found = looks(["sd", *names], "sd")
    assert len({(look.color, look.linestyle) for look in found.values()}) == 29
    assert looks([*names, "sd"], "sd") == found and found["sd"].color not in COLOURS
    assert len({look.color for name, look in found.items() if name in names[:7]}) == 7


def test_colours_stay_apart_for_readers_who_see_no_red_or_no_green() -> None:
    """Through Vienot, Brettel and Mollon's (1999) matrices, in linear RGB."""
    rgb = np.array([[int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for seen in (np.eye(3), protan, deutan):
        shown = (linear @ seen.T).clip(0, 1) ** (1 / 2.4)
        apart = np.linalg.norm(shown[:, None] - shown[None], axis=2)
        assert apart[np.triu_indices(len(COLOURS), 1)].min() > 0.12


def test_the_legend_of_panels() -> None:
    assert [line.get_label() for line in legend_of_panels("sd")] == [
        *("the method", "the other methods", "sd, unerased"),
    ]
    assert len(legend_of_panels("")) == 2

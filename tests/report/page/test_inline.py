"""Charts inside a page: ids that do not clash, colours that follow it, and names that mean nothing to it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from erasebench.report.charts import style, svg_text
from erasebench.report.page.inline import inline_svg
from tests.report.synthetic import HOSTILE


def drawn(title: str = "title") -> str:
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2, 2))
        panel = figure.subplots()
        (line,) = panel.plot([0, 1], [0, 1], "o-", color="#0072B2", label=title)
        line.set_gid("point-0")
        panel.set_title(title)
        panel.legend()
        return svg_text(figure, "words", "source")


def test_two_charts_share_no_id_and_their_references_hold() -> None:
    both = [inline_svg(drawn(), prefix, "name", "what it shows") for prefix in ("a-", "b-")]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in both]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip(both, ids, strict=True):
        referred = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert referred and referred <= own


def test_it_has_a_name_and_words_and_no_style_of_its_own() -> None:
    svg = inline_svg(drawn(), "a-", "The name", "What it shows", {"point-0": "method: 5"})
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img" and root.get("aria-labelledby") == "a-title a-desc"
    assert [(child.tag, child.text) for child in root][:2] == [
        (f"{space}title", "The name"),
        (f"{space}desc", "What it shows"),
    ]
    assert not list(root.iter(f"{space}style")) and "metadata" not in svg and "width" not in root.attrib
    (point,) = [element for element in root.iter() if element is not root and element.find(f"{space}title") is not None]
    assert point.findtext(f"{space}title") == "method: 5" and point.find(f".//{space}path") is not None


def test_colours_are_the_pages() -> None:
    svg = inline_svg(drawn(), "a-", "name", "words")
    assert "var(--series-1)" in svg and "currentColor" in svg and "var(--surface)" in svg
    assert "#0072b2" not in svg.lower() and "#000000" not in svg and "#ffffff" not in svg


@pytest.mark.parametrize("name", [*HOSTILE, "control \x00\x0b characters"])
def test_hostile_names_are_text(name: str) -> None:
    svg = inline_svg(drawn(name), "a-", name, name, {"point-0": name})
    root = ElementTree.fromstring(svg)
    tags = {element.tag.partition("}")[2] for element in root.iter()}
    assert not tags & {"script", "img", "a", "image", "foreignObject"}
    assert not [key for element in root.iter() for key in element.attrib if key.startswith("on")]
    plain = re.sub("[\x00\x0b]", "\ufffd", name)
    texts = [element.text for element in root.iter()]
    assert texts.count(plain) >= 4, "title, its hover, its name and its words"

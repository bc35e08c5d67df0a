"""Charts inside the page: an SVG that follows its colours and shares no id with another."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping

from markupsafe import Markup

from erasebench.report.charts import COLOURS
from erasebench.report.text import printable

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+|(?<=href=\"#)[^\"]+")
"""The ids that an SVG refers to."""
_DECIMALS, _UNTURNED = re.compile(r"-?\d+\.\d+"), re.compile(r"rotate\(-?0 [\d. -]+\)$")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_VARIABLES = {
    "#ffffff": "var(--surface)",
    "#000000": "currentColor",
    **{colour.lower(): f"var(--series-{place})" for place, colour in enumerate(COLOURS[:-1], 1)},
    **dict.fromkeys(("#dddddd", "#b0b0b0", "#cccccc"), "var(--line)"),
    **dict.fromkeys(("#aaaaaa", "#bbbbbb"), "var(--faint)"),
    "#666666": "var(--muted)",
}

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def inline_svg(svg: str, prefix: str, title: str, description: str, titles: Mapping[str, str] | None = None) -> Markup:
    """An SVG of matplotlib's for a page that holds several.

    Args:
        svg: of :func:`~erasebench.report.charts.svg_text`.
        prefix: of all its ids; letters, digits, dashes and underscores.
        title: its name; ``description`` what it shows, in words, for those who do not see it.
        titles: by id of a part, what it says when pointed at.
    """
    root = ElementTree.fromstring(printable(svg))
    titles = titles or {}
    names = {identity: f"{prefix}{place}" for place, identity in enumerate(sorted(set(_REFERENCE.findall(svg))))}
    _prune(root, {*titles, *names})
    for element in root.iter():
        identity = element.attrib.pop("id", "")
        if identity in names:
            element.set("id", names[identity])
        for key, value in list(element.attrib.items()):
            element.set(key, _attribute(key, value, names))
        if identity in titles:
            _name(element, "title", titles[identity])
    width = root.attrib.pop("width").removesuffix("pt")
    root.attrib.pop("height")
    _name(root, "desc", description, f"{prefix}desc")
    _name(root, "title", title, f"{prefix}title")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}title {prefix}desc")
    root.set("style", f"--natural: {float(width) * 4 / 3:.0f}px")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _prune(element: ElementTree.Element, referred: Collection[str]) -> None:
    """Leave out what draws nothing: groups around a thing, ids that nothing refers to, metadata, space, far decimals.

    A style sheet in it would be the page's.
    """
    children: list[ElementTree.Element] = []
    for child in element:
        if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
            continue
        _prune(child, referred)
        if child.get("id", "") not in referred:
            child.attrib.pop("id", None)
        if child.tag == f"{{{SVG}}}g" and not child.attrib:
            children += child
        else:
            children.append(child)
    for child in children:
        child.tail = None
        if "d" in child.attrib:
            # What is drawn many times is small, and stays as exact as it is.
            exact = element.tag == f"{{{SVG}}}defs"
            path = " ".join(child.attrib["d"].split())
            child.set("d", path if exact else _DECIMALS.sub(_rounded, path))
        for key in ("x", "y"):
            if key in child.attrib:
                child.set(key, _DECIMALS.sub(_rounded, child.attrib[key]))
        if _UNTURNED.match(child.get("transform", "")):
            child.attrib.pop("transform")
    if children:
        element.text = None
    element[:] = children


def _rounded(number: re.Match[str]) -> str:
    """A number to a tenth of a point."""
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _name(element: ElementTree.Element, tag: str, text: str, identity: str = "") -> None:
    named = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": identity} if identity else {})
    named.text = printable(text)
    element.insert(0, named)


def _attribute(key: str, value: str, names: Mapping[str, str]) -> str:
    if key in ("href", f"{{{XLINK}}}href"):
        return f"#{names[value[1:]]}"
    if key in ("style", "fill", "stroke", "clip-path"):
        value = _REFERENCE.sub(lambda match: names[match[0]], value)
        value = _COLOUR.sub(lambda match: _VARIABLES.get(match[0].lower(), match[0]), value)
        return value.replace("'DejaVu Sans'", "var(--font)")
    return value

"""The parts of pages beside their templates: style sheets and scripts, which stand in the page itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

LICENCES = {"tablesort.min.js": "tablesort.LICENCE"}
"""The licences of what others wrote."""


@cache
def environment() -> Environment:
    """Of the templates in ``web/``, which are compiled once: everything is escaped, and nothing may be missing."""
    return Environment(
        loader=PackageLoader("erasebench.report", "web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def asset(name: str) -> str:
    """A style sheet or script of ``web/``, a licence above it where it has one.

    Raises:
        ValueError: it would end the element that it stands in.
    """
    folder = files("erasebench.report") / "web"
    text = (folder / name).read_text(encoding="utf-8").strip()
    licence = LICENCES.get(name)
    if licence:
        text = f"/*\n{(folder / licence).read_text(encoding='utf-8').strip()}\n*/\n{text}"
    if "</script" in text.lower() or "</style" in text.lower():
        raise ValueError(f"{name} would end its element")
    return text


def assets(names: Iterable[str]) -> str:
    """Several style sheets as one."""
    return "\n".join(asset(name) for name in names)


def digest(script: str) -> str:
    """The name that a page's policy has for a script that may run: SHA-256 in base64."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"

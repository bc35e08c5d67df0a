"""Docstrings, read for people: what a class is, and what its attributes mean."""

from __future__ import annotations

import inspect
import re

SECTIONS = ("Attributes:", "Args:", "Raises:", "Returns:")


def first_line(docstring: str | None) -> str:
    """The first line of a docstring without markup; '' if there is none."""
    return next((plain(line.strip()) for line in (docstring or "").strip().splitlines()), "")


def paragraphs(docstring: str | None) -> list[str]:
    """The paragraphs before the first section, without markup: each as one line, but what is indented as it is."""
    text = inspect.cleandoc(docstring or "")
    texts = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith(SECTIONS):
            break
        texts.append(plain(paragraph if paragraph.startswith(" ") else " ".join(paragraph.split())))
    return [paragraph for paragraph in texts if paragraph.strip()]


def attributes(docstring: str | None) -> dict[str, str]:
    """The text of the section ``Attributes:`` for each name, without markup, as one line."""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(docstring or ""), re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*|\n(?=\n* {5,}))*)", section[1], re.MULTILINE) if section else []
    return {name: plain(" ".join(text.split())) for name, text in entries}


def plain(text: str) -> str:
    """The text without reStructuredText's backticks and roles: ``:data:`VARIANTS``` becomes VARIANTS."""
    text = re.sub(r":\w+:`~(?:[\w.]+\.)?(\w+)`", r"\1", text)
    text = re.sub(r":\w+:`([^`]+)`", r"\1", text)
    return text.replace("``", "").replace("::", ":")

"""The examples in the documentation: fenced blocks of Markdown pages."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INCLUDED = re.compile(r"^<!-- included: ([^\s#]+)(?:#\S+)? -->$", re.MULTILINE)
"""Where a page holds another file, or a section of it."""
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?(?:^`(?P<file>[\w.-]+)`\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^ *(?:- )?(?:run: )?(erasebench (?:.*\\\n)*.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: as it stands behind the fence.
        text: what is in it.
        file: the file that it is to be saved as, which stands above it.
        reason: why it is not run, as the comment above it says; "" if it is.
        line: of the page, counted from 1.
    """

    language: str
    text: str
    file: str
    reason: str
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """Its erasebench commands, each as its words after ``erasebench``."""
        return [shlex.split(found.replace("\\\n", ""), comments=True)[1:] for found in _COMMAND.findall(self.text)]


def pages() -> list[Path]:
    """All pages of the documentation, and the files that they include."""
    own = sorted(DOCS.rglob("*.md"))
    named = {ROOT / name for page in own for name in INCLUDED.findall(page.read_text(encoding="utf-8"))}
    return [*own, *sorted(named)]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["text"],
            found["file"] or "",
            found["reason"] or "",
            text[: found.start()].count("\n") + 1,
        )
        for found in _BLOCK.finditer(text)
    ]

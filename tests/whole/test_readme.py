"""What the README says of the rest of the repository; its examples are in ``test_examples.py``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from erasebench.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """The fenced block of the README that holds a text."""
    blocks = re.findall(r"```\w*\n(.*?)```", README, flags=re.DOTALL)
    return str(next(text for text in blocks if marker in text))


def test_the_two_commands_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, text in re.findall(r"make (\w+) +# (.*)", block("make demo")):
        rule = makefile.partition(f"\n{name}:")[2].partition("\n\n")[0]
        assert rule
        for command in re.findall(r"erasebench run .*", text):
            assert command in rule.replace("$(BIN)/", "")


def test_every_command_named_exists() -> None:
    named = {
        tuple(words.split())
        for words in re.findall(r"erasebench ((?:picturebook )?[a-z]+(?:-[a-z]+)*)(?![\w.\[])", README)
    }
    picturebook = cli.commands["picturebook"]
    assert isinstance(picturebook, click.Group)
    known = {(name,) for name in cli.commands} | {("picturebook", name) for name in picturebook.commands}
    prose = {words for words in named if words[0] in ("runs", "measures", "is")}
    assert named - prose <= known


def test_every_file_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]

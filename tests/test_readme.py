from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from erasebench.cli import cli, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """The fenced block of the README that holds a text."""
    blocks = re.findall(r"```\w*\n(.*?)```", README, flags=re.DOTALL)
    return str(next(text for text in blocks if marker in text))


def test_the_example_method_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_method.py").write_text(block("forget-values"), encoding="utf-8")
    arguments = [
        "run", "--plugins", str(tmp_path / "my_method.py"), "--methods", "forget-values[strength=0.8]",
        "--concepts", "church", "--preset", "smoke", "--prompts", "1", "--steps", "1", "--retain-prompts", "2",
        "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "forget-values[strength=0.8]" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "grids").glob("forget-values_strength=0.8_-*-church.png"))) == 1


def test_the_first_block_works_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first = re.findall(r"```\w*\n(.*?)```", README, flags=re.DOTALL)[0]
    assert "erasebench.erase(" in first and "erasebench.run(" in first
    subprocess.run([sys.executable, "-c", first], check=True)
    printed = capfd.readouterr().out
    assert printed.startswith("method") and "\nuce " in printed and "Ratio (%)" in printed
    assert (tmp_path / "church.png").exists() and (tmp_path / "erasebench-results" / "table.csv").exists()


def test_the_two_commands_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, text in re.findall(r"make (\w+) +# (.*)", block("make demo")):
        rule = makefile.partition(f"\n{name}:")[2].partition("\n\n")[0]
        assert rule
        for command in re.findall(r"erasebench run .*", text):
            assert command in rule.replace("$(BIN)/", "")


def test_every_command_named_exists() -> None:
    named = {tuple(words.split()) for words in re.findall(r"erasebench ((?:picturebook )?[a-z]+)(?![\w.\[])", README)}
    picturebook = cli.commands["picturebook"]
    assert isinstance(picturebook, click.Group)
    known = {(name,) for name in cli.commands} | {("picturebook", name) for name in picturebook.commands}
    prose = {words for words in named if words[0] in ("runs", "measures", "is")}
    assert named - prose <= known


def test_every_file_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from erasebench import listing
from erasebench.completion import LISTED

SLOW = ("torch", "numpy", "pandas", "diffusers", "transformers", "scipy", "statsmodels")
WORDS = [
    ("erasebench run --methods esd", ["esd-u", "esd-x"]),
    ("erasebench run --methods esd-u,uc", ["esd-u,uce"]),
    ("erasebench run --methods esd-u,esd", ["esd-u,esd-x"]),
    ("erasebench run --methods esd-u[steps=2;variant=paper],uc", ["esd-u[steps=2;variant=paper],uce"]),
    ("erasebench run --methods esd-u[steps=", []),
    ("erasebench run --concepts nudity,churc", ["nudity,church"]),
    ("erasebench plan --concepts gol", ["golf-ball"]),
    ("erasebench run --preset s", ["smoke"]),
    ("erasebench run --suite dark-miner-table-1", ["dark-miner-table-1"]),
    ("erasebench reproduce mace-c", ["mace-celebrities"]),
    ("erasebench run --others church,para", ["church,parachute"]),
    ("erasebench erase --method esd-x --concept church,para", ["church,parachute"]),
    ("erasebench erase --method mac", ["mace"]),
    ("erasebench show picturebook-de", ["picturebook-detector"]),
    ("erasebench show --kind metrics cmmd_", ["cmmd_kept"]),
    ("erasebench list judges nude", ["nudenet"]),
    ("erasebench list ru", ["rules"]),
    ("erasebench run --batch", ["--batch-size"]),
]
FILE = "erasebench run --store er"
PROGRAM = f"""
import io, json, os, sys
from contextlib import redirect_stdout
from erasebench.cli import main
offered = {{}}
for line in json.load(sys.stdin):
    os.environ.update(COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())) as output:
        try: main([])
        except SystemExit as stop: assert not stop.code, line
    assert not set({SLOW}) & set(sys.modules), line
    assert not [name for name in sys.modules if name.startswith("erasebench.methods.")], line
    output.seek(0)
    offered[line] = output.read().split()
print(json.dumps(offered))
"""


@pytest.fixture(scope="module")
def offered() -> dict[str, list[str]]:
    """What bash is offered for each line whose last word is being written, by a process that imports nothing slow."""
    lines = json.dumps([*(line for line, _ in WORDS), FILE])
    env = {**os.environ, "_ERASEBENCH_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("line", "words"), WORDS)
def test_words_are_completed_without_importing_what_is_slow(
    line: str, words: list[str], offered: dict[str, list[str]]
) -> None:
    assert offered[line] == [f"plain,{word}" for word in words]


def test_files_are_left_to_the_shell(offered: dict[str, list[str]]) -> None:
    assert offered[FILE] == ["file,er"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_shell_has_something_to_read() -> None:
    env = {**os.environ, "_ERASEBENCH_COMPLETE": "bash_source"}
    code = "from erasebench.cli import main\nmain([])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "complete -o nosort -F _erasebench_completion erasebench" in done.stdout


def test_what_is_listed_is_what_there_is() -> None:
    assert LISTED == listing.LISTED

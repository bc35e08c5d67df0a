from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

SLOW = ("torch", "numpy", "pandas", "diffusers", "transformers", "scipy", "statsmodels")


def completed(line: str) -> list[str]:
    """What bash is offered for a line whose last word is being written, by a process that imports nothing slow."""
    words = line.split(" ")
    code = (
        "import sys\nfrom erasebench.cli import main\n"
        "try: main([])\nexcept SystemExit as stop: assert not stop.code\n"
        f"assert not set({SLOW}) & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('erasebench.methods.')]"
    )
    env = {
        **os.environ,
        "_ERASEBENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
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
    ],
)
def test_words_are_completed_without_importing_what_is_slow(line: str, words: list[str]) -> None:
    assert completed(line) == [f"plain,{word}" for word in words]


def test_files_are_left_to_the_shell() -> None:
    assert completed("erasebench run --store er") == ["file,er"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_shell_has_something_to_read() -> None:
    env = {**os.environ, "_ERASEBENCH_COMPLETE": "bash_source"}
    code = "from erasebench.cli import main\nmain([])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "complete -o nosort -F _erasebench_completion erasebench" in done.stdout

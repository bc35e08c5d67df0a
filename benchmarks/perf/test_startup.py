"""How long the command line keeps people waiting before it does anything.

Bar: 1 s.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.perf.conftest import Show

MOST = 1.0
COMMANDS = {
    "import erasebench": ["-c", "import erasebench"],
    "erasebench --help": ["-m", "erasebench", "--help"],
    "erasebench list": ["-m", "erasebench", "list"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_startup(name: str, benchmark: Any, show: Show) -> None:
    """A new process each time; the fastest of five counts."""

    def start() -> None:
        subprocess.run([sys.executable, *COMMANDS[name]], check=True, stdout=subprocess.DEVNULL)

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    show("Startup", {name: f"{seconds:.2f} s"})
    assert seconds < MOST

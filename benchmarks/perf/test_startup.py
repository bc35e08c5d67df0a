"""How long the command line keeps people waiting before it does anything.

Bars, on a quiet machine: 0.1 s to import, 0.3 s for help, 0.5 s for a list.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.perf.conftest import Show

COMMANDS = {
    "import erasebench": (0.1, ["-c", "import erasebench"]),
    "erasebench --help": (0.3, ["-m", "erasebench", "--help"]),
    "erasebench list": (0.5, ["-m", "erasebench", "list"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_startup(name: str, benchmark: Any, show: Show) -> None:
    """A new process each time; the fastest of five counts."""
    limit, command = COMMANDS[name]

    def start() -> None:
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    show("Startup", {name: f"{seconds:.2f} s"})
    assert seconds <= limit

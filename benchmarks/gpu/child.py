"""The process in which one part runs: NAME ARGUMENT SCALE OUT LIMIT."""

from __future__ import annotations

import ctypes
import shutil
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import cast

from benchmarks.gpu.kit import KitError, Part, Scale, described


def main(name: str, argument: str, scale: str, out: str, limit: str) -> int:
    """Run a part; 1 if it had problems."""
    end_with_parent()
    part = Part(name, argument, cast(Scale, scale), Path(out), float(limit))
    # What an earlier run left must not stand beside what this one writes.
    shutil.rmtree(part.folder)
    part.write()
    try:
        import_module(f"benchmarks.gpu.parts.{name.replace('-', '_')}").run(part)
    except ModuleNotFoundError as error:
        part.problem(f"the module {error.name} is missing; where there is a network, benchmarks/gpu/wheels.sh")
    except KitError as error:
        part.problem(str(error))
    except Exception as error:
        traceback.print_exc()
        part.problem(described(error))
    return 1 if part.problems else 0


def end_with_parent() -> None:
    """Let the system end this process when its parent ends, however that does (Linux)."""
    set_parent_death_signal = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

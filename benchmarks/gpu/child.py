"""The process in which one part runs: NAME ARGUMENT SCALE OUT LIMIT START."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import cast

from benchmarks.gpu.kit import KitError, Part, Scale


def main(name: str, argument: str, scale: str, out: str, limit: str, start: str) -> int:
    """Run a part; 1 if it had problems."""
    part = Part(name, argument, cast(Scale, scale), Path(out), float(limit), start)
    part.write()
    try:
        import_module(f"benchmarks.gpu.parts.{name.replace('-', '_')}").run(part)
    except ModuleNotFoundError as error:
        part.problem(f"the module {error.name} is missing; where there is a network, benchmarks/gpu/wheels.sh")
    except KitError as error:
        part.problem(str(error))
    except Exception as error:
        traceback.print_exc()
        part.problem(f"{type(error).__name__}: {error}")
    return 1 if part.problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

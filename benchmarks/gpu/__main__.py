"""Run parts of the GPU kit, each in a process of its own with its own time limit.

Needs nothing but Python, so that what is missing can be said.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu.kit import PARTS, KitError, part_file, read_json, title, write_json
from benchmarks.gpu.table import write_table

WHEELS = Path(__file__).with_name("wheels.txt")
MODULES = {"open-clip-torch": "open_clip", "clean-fid": "cleanfid"}
"""Packages whose module has another name."""
PROBE_SECONDS = 120.0
INTERRUPTED = "interrupted"
GRACE = 10.0
"""Seconds between asking a part to stop and stopping it."""
PROBE = """
import json, platform, torch
there = torch.cuda.is_available()
card = torch.cuda.get_device_properties(0) if there else None
print(json.dumps({
    "card": card.name if card else "CPU",
    "memory_gib": round(card.total_memory / 2**30, 1) if card else None,
    "capability": f"{card.major}.{card.minor}" if card else None,
    "torch": torch.__version__,
    "cuda": torch.version.cuda if there else None,
    "python": platform.python_version(),
}))
"""


@dataclass(frozen=True)
class Asked:
    """A part as the command line asks for it."""

    name: str
    argument: str = ""

    @property
    def title(self) -> str:
        """As results are kept under."""
        return title(self.name, self.argument)


def parse(words: Sequence[str]) -> list[Asked]:
    """Parts and their arguments.

    Raises:
        KitError: an unknown part, or an argument that is missing or not to be had.
    """
    requests: list[Asked] = []
    rest = list(words)
    while rest:
        name = rest.pop(0)
        kind = PARTS.get(name)
        if kind is None:
            raise KitError(f"unknown part '{name}'; parts: {', '.join(PARTS)}")
        argument = ""
        if kind.argument:
            if not rest or rest[0] in PARTS:
                raise KitError(f"{name} needs a {kind.argument} after it, such as: {name} church")
            argument = rest.pop(0)
        elif rest and rest[0] in kind.choices:
            argument = rest.pop(0)
        elif rest and rest[0] not in PARTS and kind.choices:
            raise KitError(f"unknown {name} '{rest[0]}'; there are: {', '.join(kind.choices)}")
        requests.append(Asked(name, argument or (kind.choices[0] if kind.choices else "")))
    return requests


def parse_limits(words: Sequence[str]) -> dict[str, float]:
    """``NAME=SECONDS`` -> seconds by name.

    Raises:
        KitError: it is none.
    """
    limits = {}
    for word in words:
        name, _, seconds = word.partition("=")
        if name not in PARTS or not re.fullmatch(r"\d+(\.\d+)?", seconds) or float(seconds) == 0:
            raise KitError(f"--limit takes PART=SECONDS, such as train=300, not '{word}'")
        limits[name] = float(seconds)
    return limits


def missing_modules() -> list[str]:
    """Packages of ``wheels.txt`` that this Python lacks."""
    lines = (line.partition("#")[0].strip() for line in WHEELS.read_text(encoding="utf-8").splitlines())
    names = [re.split(r"[<>=!~;\[ ]", line)[0] for line in lines if line]
    return [name for name in names if find_spec(MODULES.get(name, name.replace("-", "_"))) is None]


def probe() -> dict[str, Any]:
    """Card and versions, as a process of its own tells; ``{"card": "unknown"}`` with a ``problem`` if none does."""
    try:
        process = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS)
        machine: dict[str, Any] = json.loads(process.stdout)
    except subprocess.TimeoutExpired:
        return {"card": "unknown", "problem": f"torch did not start within {PROBE_SECONDS:g} s"}
    except ValueError:
        reason = (process.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return {"card": "unknown", "problem": f"torch does not start: {reason}"}
    return machine


def run_part(request: Asked, options: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run a part to its end or its limit, and return what it found."""
    path = part_file(options.out, request.title)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.child", request.name, request.argument, options.scale]
    began = time.monotonic()
    process = subprocess.Popen([*command, str(options.out), str(limit)], start_new_session=True)
    interrupted, code = False, None
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        pass
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stop(process)
    result = read_json(path)
    problems = result.get("problems", [])
    if interrupted:
        problems.append(INTERRUPTED)
    elif code is None:
        problems.append(f"stopped at its limit of {limit:g} s")
    elif code < 0:
        problems.append(f"ended by signal {-code} ({signal.Signals(-code).name})")
    elif code > 0 and not problems:
        problems.append(f"ended with exit code {code}")
    path.unlink(missing_ok=True)
    return {
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        "problems": problems,
        "figures": result.get("figures", {}),
    }


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part and everything that it started."""
    for kill in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kill)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def main(words: Sequence[str] | None = None) -> int:
    """The kit's command line; the exit code is 0 if every part did all that it was asked for."""
    parser = argparse.ArgumentParser(
        prog="run.sh",
        description="Everything of erasebench that needs a GPU.",
        epilog="\n".join(
            f"  {' '.join(filter(None, (name, kind.argument, '|'.join(kind.choices)))):<26} "
            f"{kind.title} ({kind.limit:g} s)"
            for name, kind in PARTS.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="+", metavar="PART", help="one or more of the parts below")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny: a trial, on any machine")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="results and weights  [%(default)s]")
    parser.add_argument("--limit", action="append", default=[], metavar="PART=SECONDS", help="another time limit")
    options = parser.parse_intermixed_args(words)
    try:
        requests, limits = parse(options.parts), parse_limits(options.limit)
        options.out.mkdir(parents=True, exist_ok=True)
        with alone(options.out):
            return run_parts(requests, options, limits)
    except (KitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a folder of results against other runs of the kit.

    Raises:
        KitError: one is at work there.
    """
    with open(out / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KitError(f"another run of the kit is at work in {out}; give another folder by --out") from None
        yield


def interrupt(*_: object) -> None:
    """Be stopped by any signal as by Ctrl-C."""
    raise KeyboardInterrupt


def run_parts(requests: Sequence[Asked], options: argparse.Namespace, limits: Mapping[str, float]) -> int:
    """Run parts one after the other, and leave their results and the page made from them; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    machine = probe()
    missing = missing_modules()
    problems = [machine["problem"]] if "problem" in machine else []
    if missing:
        problems.append(f"not installed: {', '.join(missing)}; where there is a network, benchmarks/gpu/wheels.sh")
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None), flush=True)
    for problem in problems:
        print(f"PROBLEM {problem}", flush=True)
    card = re.sub(r"[^A-Za-z0-9.]+", "-", machine["card"]).strip("-")
    path = options.out / f"{card}{'-tiny' if options.scale == 'tiny' else ''}.json"
    results = read_json(path)
    results["machine"] = {"cpus": os.cpu_count(), **machine}
    for part in requests:
        limit = limits.get(part.name, PARTS[part.name].limit)
        print(f"{part.title} (at most {limit:g} s)", flush=True)
        results.setdefault("parts", {})[part.title] = result = run_part(part, options, limit)
        write_json(path, results)
        write_table(options.out)
        problems += [f"{part.title}: {problem}" for problem in result["problems"]]
        print(f"{part.title}: {'failed' if result['problems'] else 'ok'} in {result['seconds']} s", flush=True)
        if INTERRUPTED in result["problems"]:
            return 130
    print(f"results in {path}")
    for problem in problems:
        print(f"PROBLEM {problem}", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

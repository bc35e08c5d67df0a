"""What every part of the GPU kit shares: its arguments, its limit, and results that are written as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Scale = Literal["full", "tiny"]


class KitError(Exception):
    """Something that a part needs is not there; the message says what, and how to get it."""


@dataclass(frozen=True)
class Kind:
    """What the command line knows of a part, without importing it.

    Attributes:
        title: one line.
        limit: seconds after which it is stopped.
        choices: what may follow its name; empty for nothing.
        argument: what has to follow its name, in capitals; empty if nothing has to.
    """

    title: str
    limit: float
    choices: tuple[str, ...] = ()
    argument: str = ""


PARTS = {
    "check": Kind("the suite's GPU tests", 120),
    "sd": Kind("sampling and erasing at the size of Stable Diffusion 1.4", 180),
    "passes": Kind("one U-Net pass, in each of the ways in which it can be computed", 100),
    "sdxl": Kind("sampling at the size of Stable Diffusion XL", 100),
    "attacks": Kind("attacks at the size of Stable Diffusion 1.4, one prompt at a time and many at once", 100),
    "judges": Kind("images per second of every judge that can be built without a download", 100),
    "train": Kind("Picturebook trained with the whole card", 420, choices=("sharper", "anew", "distilled")),
    "never-saw": Kind("Picturebook trained without one concept", 420, argument="CONCEPT"),
}
"""Part -> what it is.  ``parts/<name>.py`` (a dash is an underscore there) has its ``run(part)``."""


@dataclass
class Part:
    """A part that is running.

    Attributes:
        name: in :data:`PARTS`.
        argument: what followed its name; empty if nothing did.
        scale: ``"full"``, or ``"tiny"`` for small sizes on any machine.
        out: folder of everything that it leaves.
        limit: seconds from its start after which it will be stopped.
    """

    name: str
    argument: str = ""
    scale: Scale = "full"
    out: Path = Path("gpu-results")
    limit: float = 60
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    @property
    def tiny(self) -> bool:
        """Whether this is a trial of the kit and not a measurement."""
        return self.scale == "tiny"

    @property
    def device(self) -> torch.device:
        """Where to compute: a GPU; at tiny scale what there is.

        Raises:
            KitError: there is no GPU.
        """
        import torch

        if torch.cuda.is_available():
            return torch.device("cuda")
        if self.tiny:
            return torch.device("cpu")
        raise KitError(f"no CUDA device: torch {torch.__version__} sees none; --scale tiny tries the kit on a CPU")

    @property
    def title(self) -> str:
        """Name and argument, as results are kept under."""
        return title(self.name, self.argument)

    @property
    def folder(self) -> Path:
        """A folder for what this part leaves besides figures."""
        path = self.out / self.title.replace(" ", "-")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def seconds_left(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.monotonic() - self._began)

    def record(self, name: str, value: Any) -> None:
        """Keep a figure, on disk at once.

        Args:
            name: what it is, with its unit; a dotted name stands in a group.
            value: a number, a text, or a mapping of them.
        """
        group, _, last = name.rpartition(".")
        place = self.figures
        for step in group.split(".") if group else ():
            place = place.setdefault(step, {})
        place[last] = value
        print(f"  {name}: {value}", flush=True)
        self.write()

    def problem(self, message: str) -> None:
        """Keep that something failed, and go on; the part will count as failed."""
        self.problems.append(message)
        print(f"  PROBLEM {message}", flush=True)
        self.write()

    @contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Turn an error inside the block into a problem of the part."""
        import torch

        try:
            yield
        except torch.cuda.OutOfMemoryError:
            self.problem(f"{what}: out of memory")
            torch.cuda.empty_cache()
        except Exception as error:
            self.problem(f"{what}: {described(error)}")

    def write(self) -> None:
        """Write the figures so far."""
        write_json(part_file(self.out, self.title), {"figures": self.figures, "problems": self.problems})


def title(name: str, argument: str) -> str:
    """What the results of a part with its argument are kept under."""
    return f"{name} {argument}".strip()


def described(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def part_file(out: Path, title: str) -> Path:
    """Where a part keeps its figures while it runs."""
    return out / f".{title.replace(' ', '-')}.json"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    # Not erasebench.files: the runner has to work where erasebench cannot be imported.
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What :func:`write_json` wrote; empty if nothing did.

    Raises:
        KitError: the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise KitError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise KitError(f"{path} holds no JSON object")
    return content

"""What one process needs to work on cells: the model, the judges and the store, each loaded once, when first used."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.models.loading import ModelSource, load_model

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel

Progress = Callable[[int, int, str], None]
"""``(done, of, note)`` within one cell: images or training steps."""


@dataclass
class Session:
    """A worker's state.

    Attributes:
        source: the model of the run; ``device`` and ``dtype`` as resolved by the plan.
        store: where results are.
        batch_size: images at a time.
        compile: compile the U-Net once; erasures are swapped into it in place.
        fid_reference: the user's folder of real images.
        progress: told how far the current cell is.
    """

    source: ModelSource
    device: str
    dtype: str
    store: Store
    batch_size: int = 16
    compile: bool = False
    fid_reference: Path | None = None
    progress: Progress = lambda done, of, note: None
    _judges: dict[tuple[str, str], Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> DiffusionModel:
        """The unerased model."""
        model = load_model(self.source, self.device, self.dtype)
        if self.compile:
            model.unet.compile()
        return model

    def prepare(self, stage: str) -> None:
        """Load what a stage needs before its clock starts."""
        if stage != "judge":
            _ = self.model

    def judge(self, name: str, label: str = "") -> Any:
        """A judge by name, and by the phrase that it looks for."""
        from erasebench.engine.plan import make_judge

        if (name, label) not in self._judges:
            self._judges[name, label] = make_judge(name, label, self.source.domain, self.device)
        return self._judges[name, label]

    def work_folder(self, cell: Cell) -> Path:
        """A folder that survives a kill and that nothing but this cell uses."""
        folder = self.store.work(cell.key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class PeakMemory:
    """The most memory that was in use since :meth:`restart`: the GPU's where there is one, this process's otherwise."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def restart(self) -> None:
        """Forget what was before."""
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            return
        try:
            # Linux: writing 5 resets the high-water mark VmHWM of this process.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def megabytes(self) -> float | None:
        """The peak in MB, or None where the system does not tell."""
        if self.cuda:
            import torch

            return float(torch.cuda.max_memory_allocated() / 1e6)
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return None
        return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("VmHWM")), None)


def hostless_environment() -> dict[str, Any]:
    """Versions and hardware that explain differences between runs; no host names, no paths."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in (
        "torch",
        "torchvision",
        "diffusers",
        "transformers",
        "peft",
        "open_clip_torch",
        "ultralytics",
        "numpy",
    ):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "missing"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": packages,
    }

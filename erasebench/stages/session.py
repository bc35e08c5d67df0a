"""What one process needs to do the work of cells: the model and the judges, each loaded once, when first used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.engine.work import Progress
from erasebench.environment import processor
from erasebench.errors import EraseBenchError
from erasebench.models.loading import ModelSource, load_model
from erasebench.registry import load_file
from erasebench.stages import generate
from erasebench.stages.judge import make_judge

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure


@dataclass
class Session:
    """The :class:`~erasebench.engine.work.Workshop` of the stages.

    Attributes:
        source: the model of the run; ``device`` and ``dtype`` as resolved by the plan.
        store: where results are.
        batch_size: images at a time.
        compile: compile the U-Net once; erasures are swapped into it in place.
        fid_reference: the user's folder of real images.
        plugins: the user's files that a new process has to load.
        progress: told how far the current cell is.
    """

    source: ModelSource
    device: str
    dtype: str
    store: Store
    batch_size: int = 16
    compile: bool = False
    fid_reference: Path | None = None
    plugins: tuple[Path, ...] = ()
    progress: Progress = field(default=lambda done, of, note: None, repr=False)
    _judges: dict[tuple[str, str], Any] = field(default_factory=dict)
    _erasures: dict[str, Erasure] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: no listener and nothing that was loaded."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("progress", "_judges", "_erasures", "model")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, progress=lambda done, of, note: None, _judges={}, _erasures={})

    def open(self, worker: int) -> None:
        """Make ready in a process of its own: the n-th worker has the n-th GPU, and begins again where they end."""
        for path in self.plugins:
            load_file(path)
        if self.device == "cuda":
            import torch

            if not torch.cuda.device_count():
                raise EraseBenchError("a worker has no GPU; ask for one with each worker, or use --device cpu")
            self.device = f"cuda:{worker % torch.cuda.device_count()}"

    def hardware(self) -> str:
        """The GPU or the processor, and the version of torch."""
        if self.device.startswith("cuda"):
            import torch

            name = torch.cuda.get_device_name(self.device)
        else:
            name = processor()
        return f"{name}, torch {version('torch')}"

    @cached_property
    def model(self) -> DiffusionModel:
        """The unerased model."""
        model = load_model(self.source, self.device, self.dtype)
        if self.compile:
            model.unet.compile()
        return model

    def erasure(self, cell: Cell) -> Erasure:
        """The erasure that a cell reads; the last one is kept, since the next cell often reads the same."""
        from erasebench.models.erasure import Erasure

        key = cell.reads["erasure"].key
        folder = self.store.read(key)
        if key not in self._erasures:
            self._erasures = {key: Erasure.load(folder)}
        return self._erasures[key]

    def judge(self, name: str, label: str = "") -> Any:
        """A judge by name, and by the phrase that it looks for."""
        if (name, label) not in self._judges:
            self._judges[name, label] = make_judge(name, label, self.source.domain, self.device)
        return self._judges[name, label]

    def prepare(self, cell: Cell) -> None:
        """Load what a cell needs before its clock starts."""
        if cell.stage in ("erase", "generate", "learn", "attack"):
            _ = self.model

    def work(
        self, cells: Sequence[Cell], part: slice | None, folders: Sequence[Path], progress: Progress
    ) -> list[dict[str, Any]]:
        """Run the cells' stage: on all at once if it can do that, else one after the other, or on a part of one."""
        self.progress = progress
        stage = _stage(cells[0])
        if hasattr(stage, "run_together"):
            costs: list[dict[str, Any]] = stage.run_together(cells, self, folders)
            return costs
        more = () if part is None else (part,)
        return [stage.run(cell, self, folder, *more) for cell, folder in zip(cells, folders, strict=True)]

    def together(self, cell: Cell) -> int:
        """As many cells of a batch as images of one."""
        return self.batch_size

    def unneeded(self, cell: Cell) -> str:
        """Ask the cell's stage, if it can tell, whether the results of those in ``unless`` make the cell unneeded."""
        stage = _stage(cell)
        return str(stage.unneeded(cell, self)) if hasattr(stage, "unneeded") else ""

    def divide(self, cell: Cell, workers: int) -> Sequence[slice | None]:
        """The parts of a cell that several workers may do at once."""
        if workers == 1 or cell.stage != "generate":
            return [None]
        return generate.divide(cell, self.batch_size, workers)

    def join(self, cell: Cell, parts: Sequence[Path], folder: Path) -> None:
        """Make one payload of those of all parts."""
        generate.join(parts, folder)


def _stage(cell: Cell) -> Any:
    return import_module(f"{__package__}.{cell.stage}")

"""The means of one process to do the work of cells: the model and the judges, each loaded once, when first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from erasebench.memory import DRAWN_AT_ONCE, BatchSize, BatchSizes, limit_memory, out_of_memory
from erasebench.models.footprint import check_memory
from erasebench.models.loading import ModelSource, copy_model, load_model
from erasebench.registry import load_file
from erasebench.stages import generate
from erasebench.stages.judge import make_judge

if TYPE_CHECKING:
    from erasebench.models.checkpointing import GradientCheckpointing, Mode
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure
    from erasebench.sampling import Sampler

WITH_MODEL = ("erase", "generate", "learn", "attack")
"""The stages that need the model."""
MAX_DRAWN_AT_ONCE = 32
"""Images that are drawn at a time on a GPU, however much memory there is: so many keep it busy."""


@dataclass
class Session:
    """The :class:`~erasebench.engine.work.Workshop` of the stages.

    Attributes:
        source: the model of the run; ``device`` and ``dtype`` as resolved by the plan.
        store: where results are.
        batch_size: images at a time; if None as many as memory takes on a GPU, and a few on a CPU.
        compile: compile the passes of sampling once; erasures are swapped into them in place.
        fid_reference: the user's folder of real images.
        plugins: the user's files that a new process has to load.
        max_memory: GB of the GPU that each process may have; the whole card if None.
        gradient_checkpointing: of the stages that train.
        room: the size of an image, pixels a side, for which with the model there has to be room on the GPU of each
            worker elsewhere; 0 for the model's own, None where nobody needs the model or it was looked before.
        progress: told how far the current cell is.
    """

    source: ModelSource
    device: str
    dtype: str
    store: Store
    batch_size: int | None = None
    compile: bool = False
    fid_reference: Path | None = None
    plugins: tuple[Path, ...] = ()
    max_memory: float | None = None
    gradient_checkpointing: Mode = "auto"
    room: int | None = None
    progress: Progress = field(default=lambda done, of, note: None, repr=False)
    batch_sizes: BatchSizes = field(init=False)
    _judges: dict[tuple[str, str], Any] = field(default_factory=dict)
    _erasures: dict[str, Erasure] = field(default_factory=dict)
    _fitted_to: object = None

    def __post_init__(self) -> None:
        self.batch_sizes = BatchSizes(BatchSize(self.batch_size or DRAWN_AT_ONCE))

    def __getstate__(self) -> dict[str, Any]:
        """The state for another process: no listener, nothing that was loaded, and nothing of this one's memory."""
        own = ("progress", "batch_sizes", "_judges", "_erasures", "_fitted_to", "model")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, progress=lambda done, of, note: None, _judges={}, _erasures={}, _fitted_to=None)
        self.__post_init__()

    def open(self, worker: int) -> None:
        """Make ready in a process of its own: the n-th worker has the n-th GPU, and begins again where they end.

        Raises:
            EraseBenchError: there is no GPU, or none that has room.
        """
        for path in self.plugins:
            load_file(path)
        if self.device == "cuda":
            import torch

            if not torch.cuda.device_count():
                raise EraseBenchError("a worker has no GPU; ask for one with each worker, or use --device cpu")
            self.device = f"cuda:{worker % torch.cuda.device_count()}"
        if self.room is not None:
            check_memory(self.source, self.device, self.dtype, self.max_memory, self.room or None)

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
        return self._within_limit(lambda: load_model(self.source, self.device, self.dtype))

    def copy(self, pipeline: Any) -> None:
        """Make the unerased model of a stock pipeline, which is left as it was, instead of loading it.

        Raises:
            EraseBenchError: the GPU has no room.
        """
        from torch import OutOfMemoryError

        try:
            self.model = self._within_limit(lambda: copy_model(pipeline, self.source, self.device, self.dtype))
        except OutOfMemoryError as error:
            raise out_of_memory(error, self.device, "copy", self.dtype, self.max_memory, False) from error

    def _within_limit(self, make: Callable[[], DiffusionModel]) -> DiffusionModel:
        """A model that is made and works within the memory that this process may have."""
        if self.max_memory is not None:
            limit_memory(self.device, self.max_memory)
        model = make()
        model.recorder.gigabytes = self.max_memory
        if self.compile:
            model.compile()
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
        if cell.stage in WITH_MODEL:
            _ = self.model

    def fit(self, sampler: Sampler) -> None:
        """Have the model draw as many images at a time as this process can: of a GPU what fits, unless the user said.

        Args:
            sampler: how they will be drawn; called again for images that take as much, it changes nothing.

        Raises:
            torch.OutOfMemoryError: memory does not suffice for a single image.
        """
        from erasebench.sampling import fit_batch_sizes

        model = self.model
        model.batch_sizes = self.batch_sizes
        if self.batch_size is not None or not self.device.startswith("cuda"):
            return
        alike = sampler.size, len(model.guidance.texts)
        if alike != self._fitted_to:
            fit_batch_sizes(model, sampler, MAX_DRAWN_AT_ONCE, self.max_memory)
            self._fitted_to = alike

    def work(
        self, cells: Sequence[Cell], part: slice | None, folders: Sequence[Path], progress: Progress
    ) -> list[dict[str, Any]]:
        """Run the cells' stage: on all at once if it can do that, else one after the other, or on a part of one."""
        from torch import OutOfMemoryError

        stage, before = _stage(cells[0]), self.batch_sizes.halvings
        if self.device.startswith("cuda") and cells[0].stage in WITH_MODEL:
            self.model.recorder.clear()  # other passes come now, and need the memory
        checkpointing = self._checkpointing(cells[0].stage)

        def on_progress(done: int, of: int, note: str) -> None:
            checkpointed = "gradient checkpointing" if checkpointing.used else ""
            progress(done, of, ", ".join(filter(None, (note, checkpointed, self.batch_sizes.note))))

        self.progress = on_progress
        more = () if part is None else (part,)
        try:
            with nullcontext() if checkpointing.mode == "off" else checkpointing.of(self.model):
                if hasattr(stage, "run_together"):
                    costs: list[dict[str, Any]] = stage.run_together(cells, self, folders)
                else:
                    costs = [stage.run(cell, self, folder, *more) for cell, folder in zip(cells, folders, strict=True)]
        except OutOfMemoryError as error:
            checkpointed = checkpointing.used or checkpointing.mode == "on"
            settings = self.dtype, self.max_memory, checkpointed
            raise out_of_memory(error, self.device, cells[0].stage, *settings) from error
        if halvings := self.batch_sizes.halvings - before:
            costs[0]["halvings"] = halvings
        if checkpointing.used:
            costs[0]["gradient_checkpointing"] = 1  # costs are numbers
        return costs

    def _checkpointing(self, stage: str) -> GradientCheckpointing:
        """The gradient checkpointing of a stage that begins now.

        Left to itself, an attack that runs out of memory takes fewer prompts at a time instead, which costs no time.
        """
        from erasebench.models.checkpointing import GradientCheckpointing

        trains = stage in ("erase", "learn") and self.device.startswith("cuda")
        if self.gradient_checkpointing == "auto" and trains:
            return GradientCheckpointing.measured(self.model, self.max_memory)
        return GradientCheckpointing("on" if self.gradient_checkpointing == "on" and stage in WITH_MODEL else "off")

    def together(self, cell: Cell) -> int:
        """As many cells of a batch as images of one."""
        return self.at_once

    @property
    def at_once(self) -> int:
        """Images that are drawn at a time, unless memory is short."""
        on_gpu = self.device.startswith("cuda")
        return self.batch_size or (MAX_DRAWN_AT_ONCE if on_gpu else DRAWN_AT_ONCE)

    def unneeded(self, cell: Cell) -> str:
        """Ask the cell's stage, if it can tell, whether the results of those in ``unless`` make the cell unneeded."""
        stage = _stage(cell)
        return str(stage.unneeded(cell, self)) if hasattr(stage, "unneeded") else ""

    def divide(self, cell: Cell, workers: int) -> Sequence[slice | None]:
        """The parts of a cell that several workers may do at once."""
        if workers == 1 or cell.stage != "generate":
            return [None]
        return generate.divide(cell, self.at_once, workers)

    def join(self, cell: Cell, parts: Sequence[Path], folder: Path) -> None:
        """Make one payload of those of all parts."""
        generate.join(parts, folder)


def _stage(cell: Cell) -> Any:
    return import_module(f"{__package__}.{cell.stage}")

"""Memory of a GPU: how much is free, how many rows fit at a time, and what happens when it runs out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakSet

from erasebench.errors import EraseBenchError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Clearable(Protocol):
    """An object that keeps memory only to save time."""

    def clear(self) -> None:
        """Give it back."""
        ...


SPARE: WeakSet[Clearable] = WeakSet()
"""Objects whose memory is given back when it runs out."""

GB = 10**9
USABLE_SHARE = 0.9
"""The share of free memory that is planned with: the rest is for what the allocator loses between its blocks."""
DRAWN_AT_ONCE = 16
"""Images that are drawn at a time where nothing says otherwise."""
DECODED_AT_ONCE = 10
"""Images that are decoded at a time: decoders work at full resolution, and on a CPU a few at a time are faster."""

SMALLEST_WORK = {
    "erase": "a training step",
    "learn": "a training step",
    "attack": "a single prompt",
    "generate": "a single image",
    "judge": "a single image",
    "copy": "a copy of the model",
}
"""By stage, the least that is computed at a time; a copy is made of a pipeline in memory."""
CHECKPOINTING, LESS_PRECISION, SMALLER = "--gradient-checkpointing on", "--dtype bfloat16", "a smaller --size"
FITTING = {
    "erase": (CHECKPOINTING, LESS_PRECISION, "a smaller batch_size of the method"),
    "learn": (CHECKPOINTING, LESS_PRECISION, "a smaller at_once of the attack"),
    "attack": (CHECKPOINTING, SMALLER, LESS_PRECISION),
    "generate": (SMALLER, LESS_PRECISION),
}
"""By stage, what takes less memory."""


@dataclass
class BatchSize:
    """The number of rows that are computed at a time: half as many as before whenever memory runs out.

    Attributes:
        rows: at most so many; all at once if None.
        halvings: how often memory ran out.
    """

    rows: int | None = None
    halvings: int = 0

    def batches(self, count: int, compute: Callable[[slice], T]) -> Iterator[T]:
        """Compute rows in batches; one for which memory does not suffice is computed again in smaller ones.

        Args:
            count: of the rows.
            compute: what is made of the rows of a slice of ``range(count)``; called again for rows that failed, it
                has to give the same.

        Yields:
            What was made of each batch, in the order of the rows.

        Raises:
            torch.OutOfMemoryError: memory does not suffice for a single row.
        """
        from torch import OutOfMemoryError

        start = 0
        while start < count:
            part = slice(start, min(start + (self.rows or count), count))
            try:
                result = compute(part)
            except OutOfMemoryError:
                if part.stop - part.start == 1:
                    raise
            else:
                yield result
                start = part.stop
                continue
            # Not in the handler: until it ends, the error keeps alive what the batch had in memory.
            self._halve(part.stop - part.start)

    def _halve(self, rows: int) -> None:
        import torch

        self.rows = rows // 2
        self.halvings += 1
        for owner in list(SPARE):
            owner.clear()
        torch.cuda.empty_cache()


@dataclass
class BatchSizes:
    """The batch sizes of one process, by what the rows are.

    Attributes:
        drawn: images that are sampled together.
        decoded: images that the VAE decodes or encodes together.
        searched: prompts whose gradients an attack computes together.
        judged: images that a judge is given at once; within them it has batches of its own.
    """

    drawn: BatchSize = field(default_factory=lambda: BatchSize(DRAWN_AT_ONCE))
    decoded: BatchSize = field(default_factory=lambda: BatchSize(DECODED_AT_ONCE))
    searched: BatchSize = field(default_factory=BatchSize)
    judged: BatchSize = field(default_factory=BatchSize)

    @property
    def halvings(self) -> int:
        """The number of times that memory ran out so far."""
        return sum(size.halvings for size in self._by_name().values())

    @property
    def note(self) -> str:
        """The batch sizes that were halved so far, for readers; '' if none was."""
        halved = [f"{size.rows} {name}" for name, size in self._by_name().items() if size.halvings]
        return f"memory ran out: {', '.join(halved)} at a time" if halved else ""

    def _by_name(self) -> dict[str, BatchSize]:
        return {one.name: getattr(self, one.name) for one in fields(self)}


def largest_batch(peak: Callable[[int], int], free: int, limit: int) -> int:
    """The largest batch that fits, by the line through what a batch of one and one of two took.

    Args:
        peak: computes a batch of so many rows, and returns the most bytes that it had in use beside what was there.
        free: bytes that it may use.
        limit: what is returned at most.

    Returns:
        1..``limit``; 1 also where not even that fits by the line.

    Raises:
        torch.OutOfMemoryError: memory does not suffice for a single row.
    """
    from torch import OutOfMemoryError

    one = peak(1)
    try:
        each = max(peak(2) - one, 1)
    except OutOfMemoryError:
        return 1
    return max(1, min(limit, int((USABLE_SHARE * free - one) // each) + 1))


def peak_bytes(device: torch.device, compute: Callable[[], object]) -> int:
    """The most bytes of a GPU that a computation had in use beside what was there before."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    compute()
    return int(torch.cuda.max_memory_allocated(device)) - before


def out_of_memory(
    error: torch.OutOfMemoryError,
    device: str,
    stage: str,
    dtype: str,
    gigabytes: float | None,
    checkpointed: bool,
) -> EraseBenchError:
    """The error for the user where memory does not suffice for the least that can be computed at a time.

    Args:
        error: of torch, in whose words stands how much was asked for.
        device: whose memory.
        stage: of the work.
        dtype: the precision in force.
        gigabytes: of the GPU that this process may have; the whole card if None.
        checkpointed: gradient checkpointing was on.
    """
    import torch

    match = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    used = torch.cuda.memory_allocated(device) / GB if torch.cuda.is_available() else 0.0
    in_force = {CHECKPOINTING: checkpointed, LESS_PRECISION: dtype == "bfloat16"}
    fitting = [way for way in FITTING.get(stage, ()) if not in_force.get(way)]
    if gigabytes is not None:
        fitting.append(f"a larger --max-memory than {gigabytes:g}")
    return EraseBenchError(
        f"the memory of {device} ran out: {used:.1f} GB were in use, and {match[1] if match else 'more'} needed beside "
        f"them, for {SMALLEST_WORK.get(stage, 'the least that is computed at a time')}; what would fit: "
        f"{', '.join([*fitting, 'a card with more free memory'])}"
    )


def limit_memory(device: str, gigabytes: float) -> None:
    """Let this process have no more of a GPU than so many GB, of infinitely many all; what goes beyond runs out."""
    import torch

    index, total = torch.device(device).index, torch.cuda.mem_get_info(device)[1]
    # It takes no device without a number.
    own = torch.cuda.current_device() if index is None else index
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * GB / total), own)


def free_memory(device: str | torch.device, gigabytes: float | None = None) -> int:
    """Bytes of a GPU that this process could still fill.

    Args:
        device: which.
        gigabytes: that it may have in all; the whole card if None.
    """
    import torch

    own, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    free = int(torch.cuda.mem_get_info(device)[0]) + own - used
    return free if gigabytes is None else min(free, int(gigabytes * GB) - used)

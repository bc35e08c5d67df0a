"""The cost of missing cells, estimated from speeds that were measured in their store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from erasebench.engine.cells import Cell
from erasebench.engine.progress import duration
from erasebench.engine.schedule import perhaps_unneeded
from erasebench.engine.store import Store


@dataclass
class _Measured:
    """The totals of the finished cells of one stage and kind, and the most memory that one had in use, in MB."""

    units: int = 0
    seconds: float = 0.0
    size: int = 0
    memory: float = 0.0


def list_missing(missing: Sequence[Cell]) -> list[str]:
    """A line for each cell that is to be computed, and one for all cells of a batch."""
    perhaps = perhaps_unneeded(missing)
    batches: dict[tuple[str, str], list[Cell]] = {}
    for cell in missing:
        batches.setdefault((cell.stage, cell.batch) if cell.batch else ("", cell.key), []).append(cell)
    width = max((len(cells[0].batch or cells[0].title) for cells in batches.values()), default=0)
    lines = []
    for cells in batches.values():
        first, prefix = cells[0], _most(cells, perhaps)
        what = f"{prefix}{len(cells)} cells" if first.batch else f"{first.key[:12]}{prefix and ' if it is needed'}"
        lines.append(f"{first.stage:<9}  {first.batch or first.title:<{width}}  {what}")
    return lines


def count_missing(missing: Sequence[Cell], cells: Sequence[Cell]) -> list[str]:
    """Lines on the number of cells that are missing of all, by stage, and of the images that they hold."""
    perhaps = perhaps_unneeded(missing)
    by_stage: dict[str, list[Cell]] = {cell.stage: [] for cell in cells}
    for cell in missing:
        by_stage[cell.stage].append(cell)
    parts = [f"{_most(some, perhaps)}{len(some)} {stage}" for stage, some in by_stage.items() if some]
    images = [cell for cell in missing if cell.unit == "images"]
    return [
        f"{len(cells)} cells: {len(cells) - len(missing)} already there, {_most(missing, perhaps)}{len(missing)} to "
        f"compute ({', '.join(parts) or 'nothing'})",
        f"{_most(images, perhaps)}{sum(cell.units for cell in images)} images to make",
    ]


def _most(cells: Sequence[Cell], perhaps: Collection[str]) -> str:
    """The words before a number of cells of which some may prove unneeded."""
    return "at most " if any(cell.key in perhaps for cell in cells) else ""


def estimate(missing: Sequence[Cell], stores: Sequence[Store]) -> list[str]:
    """Time of one worker, disk and peak memory, from cells of the same stage and kind.

    Args:
        missing: what is to be computed.
        stores: where cells were measured; of one kind the first store that has any counts alone, since another may be
            of another machine.
    """
    if not missing:
        return []
    measured = dict[tuple[str, str], _Measured]()
    for store in stores:
        measured = _measure(store) | measured
    where = "this store" if len(stores) == 1 else " or ".join(str(store.name) for store in stores)
    seconds = size = 0.0
    known, unknown, memory = False, set[str](), dict[str, float]()
    for cell in missing:
        like = measured.get((cell.stage, cell.kind))
        if like is None:
            unknown.add(f"{cell.stage} {cell.kind.partition(' ')[0]}".strip())
            continue
        known = True
        share = cell.units / like.units
        seconds += share * like.seconds
        size += share * like.size
        memory[cell.stage] = max(memory.get(cell.stage, 0.0), like.memory)
    names = ", ".join(sorted(unknown))
    if not known:
        return [f"no estimate of time and disk, since never measured in {where}: {names}"]
    bound = "at most" if perhaps_unneeded(missing) else ""
    about = ("about" if bound else "more than") if unknown else (bound or "about")
    lines = [f"{about} {duration(seconds)} for one worker and {size / 1e6:.1f} MB, from speeds measured in {where}"]
    peaks = [f"{stage} {peak / 1e3:.1f} GB" for stage, peak in memory.items() if peak]
    if peaks:
        lines.append(f"peak memory of one worker, as measured in {where}: {', '.join(peaks)}")
    if unknown:
        lines.append(f"not in this estimate, since never measured in {where}: {names}")
    return lines


def _measure(store: Store) -> dict[tuple[str, str], _Measured]:
    measured: dict[tuple[str, str], _Measured] = {}
    for _, marker in store.markers():
        if marker is None:
            continue
        like = measured.setdefault((str(marker.identity.get("stage")), marker.kind), _Measured())
        like.units += marker.units
        like.seconds += marker.cost.get("seconds", 0.0)
        like.memory = max(like.memory, marker.cost.get("peak_memory_mb") or 0.0)
        like.size += sum(size for size, _ in marker.files.values())
    return measured

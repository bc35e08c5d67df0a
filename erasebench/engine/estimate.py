"""What cells would cost, from speeds that were measured in their store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from erasebench.engine.cells import Cell
from erasebench.engine.progress import duration
from erasebench.engine.store import Store


@dataclass
class _Measured:
    """What the finished cells of one stage and kind took in all."""

    units: int = 0
    seconds: float = 0.0
    size: int = 0


def list_missing(missing: Sequence[Cell]) -> list[str]:
    """A line for each cell that is to be computed."""
    width = max((len(cell.title) for cell in missing), default=0)
    return [f"{cell.stage:<9}  {cell.title:<{width}}  {cell.key[:12]}" for cell in missing]


def count_missing(missing: Sequence[Cell], cells: Sequence[Cell]) -> list[str]:
    """How many of all cells are missing, by stage, and how many images they hold."""
    by_stage = Counter(cell.stage for cell in missing)
    order = dict.fromkeys(cell.stage for cell in cells)
    stages = ", ".join(f"{by_stage[stage]} {stage}" for stage in order if by_stage[stage]) or "nothing"
    images = sum(cell.units for cell in missing if cell.unit == "images")
    return [
        f"{len(cells)} cells: {len(cells) - len(missing)} already there, {len(missing)} to compute ({stages})",
        f"{images} images to make",
    ]


def estimate(missing: Sequence[Cell], store: Store) -> list[str]:
    """Time of one worker and disk, from the store's cells of the same stage and kind."""
    if not missing:
        return []
    measured = _measure(store)
    seconds = size = 0.0
    unknown: set[str] = set()
    for cell in missing:
        like = measured.get((cell.stage, cell.kind))
        if like is None:
            unknown.add(f"{cell.stage} {cell.kind.partition(' ')[0]}".strip())
            continue
        share = cell.units / like.units
        seconds += share * like.seconds
        size += share * like.size
    names = ", ".join(sorted(unknown))
    if not seconds:
        return [f"no estimate of time and disk, since never measured in this store: {names}"]
    about = "more than" if unknown else "about"
    lines = [f"{about} {duration(seconds)} for one worker and {size / 1e6:.1f} MB, from speeds measured in this store"]
    if unknown:
        lines.append(f"not in this estimate, since never measured in this store: {names}")
    return lines


def _measure(store: Store) -> dict[tuple[str, str], _Measured]:
    measured: dict[tuple[str, str], _Measured] = {}
    for marker in filter(None, map(store.marker, store.cells())):
        like = measured.setdefault((str(marker.identity.get("stage")), marker.kind), _Measured())
        like.units += marker.units
        like.seconds += marker.cost.get("seconds", 0.0)
        like.size += sum(size for size, _ in marker.files.values())
    return measured

"""``erasebench plan``: what a run would cost, from speeds that were measured in its store."""

from __future__ import annotations

from collections import Counter

from erasebench.engine.cells import Cell, canonical_json
from erasebench.engine.plan import Plan
from erasebench.engine.progress import duration
from erasebench.engine.store import Marker, Store

STAGES = ("erase", "attack", "generate", "judge")


def describe_plan(plan: Plan, store: Store) -> str:
    """The cells of a plan by stage, then images to make, time and disk."""
    finished = {cell.key: marker for cell in plan.cells if (marker := store.marker(cell.key))}
    missing = [cell for cell in plan.cells if cell.key not in finished]
    width = max((len(cell.title) for cell in missing), default=0)
    lines = [f"{cell.stage:<8}  {cell.title:<{width}}  {cell.key[:12]}" for cell in missing]
    lines += [f"n/a       {row.method} {row.concept.name}: {row.reason}" for row in plan.rows if row.reason]
    by_stage = Counter(cell.stage for cell in missing)
    stages = ", ".join(f"{by_stage[stage]} {stage}" for stage in STAGES if by_stage[stage]) or "nothing"
    lines.append(f"{len(plan.cells)} cells: {len(finished)} already there, {len(missing)} to compute ({stages})")
    images = sum(_images(cell) for cell in missing if cell.stage == "generate")
    lines.append(f"{images} images to make")
    lines += _fewer_prompts(plan)
    if missing:
        lines += _estimate(missing, [m for key in store.cells() if (m := store.marker(key))])
    return "\n".join(lines)


def _fewer_prompts(plan: Plan) -> list[str]:
    """A line for each concept that has fewer prompts than were asked for."""
    asked = {row.concept.name: set(row.images.spec["prompts"]) for row in plan.rows if row.images}
    lines = [
        f"{name} has {len(prompts)} prompts in this domain, not the {plan.config.prompts} asked for"
        for name, prompts in asked.items()
        if len(prompts) < plan.config.prompts
    ]
    if len(plan.retained) < plan.config.retain_prompts:
        lines.append(f"there are {len(plan.retained)} other prompts, not the {plan.config.retain_prompts} asked for")
    return lines


def _estimate(missing: list[Cell], known: list[Marker]) -> list[str]:
    """Time and disk, from the cells of the store that are most like each missing one."""
    seconds = size = 0.0
    unknown: set[str] = set()
    for cell in missing:
        like = [marker for marker in known if _kind(marker.identity) == _kind(cell.identity)]
        units = sum(_units(marker.identity) for marker in like)
        if not units:
            unknown.add(f"{cell.stage} {cell.spec.get('method', cell.spec.get('judge', ''))}".strip())
            continue
        share = _units(cell.identity) / units
        seconds += share * sum(marker.cost.get("seconds", 0.0) for marker in like)
        size += share * sum(bytes_ for marker in like for bytes_, _ in marker.files.values())
    names = ", ".join(sorted(unknown))
    if not seconds:
        return [f"no estimate of time and disk, since never measured in this store: {names}"]
    about = "more than" if unknown else "about"
    lines = [f"{about} {duration(seconds)} and {size / 1e6:.1f} MB, from speeds measured in this store"]
    if unknown:
        lines.append(f"not in this estimate, since never measured in this store: {names}")
    return lines


def _kind(identity: dict[str, object]) -> tuple[object, ...]:
    """What has to agree for one cell's cost to tell another's."""
    spec = identity["spec"]
    assert isinstance(spec, dict)
    # As JSON: what is read from a marker has lists for tuples, and its keys in another order.
    keys = {"erase": ("model", "method", "parameters"), "generate": ("model", "sampler", "reference")}
    return (identity["stage"], *(canonical_json(spec.get(key)) for key in keys.get(str(identity["stage"]), ("judge",))))


def _units(identity: dict[str, object]) -> int:
    """Images for what is drawn; 1 for anything else."""
    spec = identity["spec"]
    assert isinstance(spec, dict)
    return len(spec["prompts"]) if "prompts" in spec else int(spec.get("count", 1))


def _images(cell: Cell) -> int:
    return len(cell.spec.get("prompts", ())) or int(cell.spec.get("count", 0))

"""The plan of a run: rows of the table, and the cells that they need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from erasebench.attack_plan import AttackRow
from erasebench.concepts import Concept, Prompt
from erasebench.config import RunConfig, parse_method
from erasebench.engine.cells import Cell, with_all_that_they_read
from erasebench.engine.doctor import of_other_versions
from erasebench.engine.estimate import count_missing, estimate, list_missing
from erasebench.engine.store import Store
from erasebench.errors import NotApplicable
from erasebench.hyper_parameters import hyper_parameters
from erasebench.models.loading import ModelSource
from erasebench.settings import plugin_settings, resolve_attack, resolve_method


@dataclass(frozen=True)
class Judged:
    """The scores that a judge is asked for of a probe's images.

    Attributes:
        label: the score that counts; ``threshold`` from which on it is there, None for scores without one.
        cell: of the judge's scores.
        concept: the name of the concept whose prompts' images are judged so; "" where all of the probe's are.
    """

    label: str
    threshold: float | None
    cell: Cell
    concept: str = ""


@dataclass(frozen=True)
class ProbePlan:
    """An image set of a row, and who judges it.

    Attributes:
        prompts: what is asked, one for each image.
        images: the cell of the images.
        judged: the judge of each concept that the prompts are of.
        second: what a second judge is asked, likewise.
        features: the cell of the judge that gives FID's features, if FID can be had.
        roles: what the domain's judges of further roles are asked.
    """

    prompts: tuple[Prompt, ...]
    images: Cell
    judged: tuple[Judged, ...]
    second: tuple[Judged, ...] = ()
    features: Cell | None = None
    roles: Mapping[str, Judged] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are read when the row is measured."""
        judged = (*self.judged, *self.second, *self.roles.values())
        return (*(one.cell for one in judged), *([self.features] if self.features else []))


@dataclass(frozen=True)
class Row:
    """A row of the table: what has to be there before it can be measured.

    Attributes:
        method: as the user wrote it.
        concept: what is erased.
        reason: why the row cannot be, known before any work; None where it can.
        erasure: its cell; None where it cannot be.
        probes: the row's image sets by name, of :data:`~erasebench.metrics.metric.PROBES`; none where it cannot be.
    """

    method: str
    concept: Concept
    reason: str | None = None
    erasure: Cell | None = None
    probes: Mapping[str, ProbePlan] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are read when the row is measured."""
        return tuple(dict.fromkeys(cell for probe in self.probes.values() for cell in probe.cells))


@dataclass(frozen=True)
class Plan:
    """Rows, cells, and what they were planned from.

    Attributes:
        config: the run.
        source: the model.
        device: where it runs; ``dtype`` its precision.
        sampler: how images are sampled: :class:`~erasebench.sampling.Sampler`'s arguments.
        rows: of the table, in order.
        reference: the features of FID's reference images: Picturebook's world, or the user's folder.
        retained: the other prompts, one for each image of every row.
        attacks: the rows of the table of attacks, in order.
        reference_roles: what the domain's judges of further roles are asked of the reference images.
    """

    config: RunConfig
    source: ModelSource
    device: str
    dtype: str
    sampler: Mapping[str, Any]
    rows: tuple[Row, ...]
    reference: Cell | None
    retained: tuple[Prompt, ...]
    attacks: tuple[AttackRow, ...] = ()
    reference_roles: Mapping[str, Judged] = field(default_factory=dict)

    @property
    def reference_cells(self) -> tuple[Cell, ...]:
        """The cells of reference images that are read when rows are measured."""
        if not self.reference:
            return ()
        return tuple(dict.fromkeys((self.reference, *(one.cell for one in self.reference_roles.values()))))

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, each after the cells that it reads."""
        own = [cell for row in self.rows for cell in row.cells]
        attacks = [cell for row in self.attacks for cell in row.cells]
        return with_all_that_they_read((*own, *self.reference_cells, *attacks))


def resolved_config(plan: Plan) -> RunConfig:
    """The configuration of a plan with everything decided: it stays the same run when defaults change.

    Sampler, precision, and every hyper-parameter that a method's own brackets do not hold; where it runs stays open.
    So do hyper-parameters that are decided by what is erased, where the concepts of the run do not agree on them.
    """
    config, sampler = plan.config, plan.sampler
    overrides = plugin_settings(plan.source.domain, config.settings)
    settings: dict[str, dict[str, Any]] = {}
    for text in config.methods:
        name, options = parse_method(text)
        method = resolve_method(text, overrides)
        parameters = hyper_parameters(method.instance)
        rows = []
        for concept in dict.fromkeys(row.concept for row in plan.rows):
            with suppress(NotApplicable):
                rows.append(hyper_parameters(method.instance.resolved([concept.seen_in(plan.source.domain)])))
        agreed = {key for key in parameters if rows and all(row[key] == rows[0][key] for row in rows)}
        parameters |= {key: rows[0][key] for key in agreed}
        settings.setdefault(name, {}).update({key: parameters[key] for key in parameters if key not in options})
    for row in plan.attacks:
        for label in row.members:
            name, options = parse_method(label)
            parameters = hyper_parameters(resolve_attack(label, overrides).instance)
            settings.setdefault(name, {}).update({key: parameters[key] for key in parameters if key not in options})
    decided = {"steps": sampler["steps"], "guidance_scale": sampler["guidance_scale"], "dtype": plan.dtype}
    return config.model_copy(update={**decided, "settings": {name: own for name, own in settings.items() if own}})


def count_prompts(plan: Plan) -> dict[str, int]:
    """The number of different prompts of each concept that a plan asks for, each member of a joint one by itself."""
    return {name: len({prompt for prompt, _ in images}) for name, images in _images(plan).items()}


def _images(plan: Plan) -> dict[str, set[tuple[str, int]]]:
    """The images of each concept that a plan asks for, by the ids of their prompts and their seeds."""
    images: dict[str, set[tuple[str, int]]] = {}
    for row in plan.rows:
        for prompt in row.probes["concept"].prompts if row.probes else ():
            name = prompt.shows[0] if row.concept.members else row.concept.name
            images.setdefault(name, set()).add((prompt.id, prompt.seed))
    return images


def find_missing(plan: Plan, store: Store) -> list[Cell]:
    """The cells of a plan that a store does not hold."""
    there = {key for key, marker in store.markers(cell.key for cell in plan.cells) if marker}
    return [cell for cell in plan.cells if cell.key not in there]


def describe_plan(plan: Plan, missing: Sequence[Cell], store: Store, speeds_of: Sequence[Store] = ()) -> str:
    """A planned run in words: its cells, its rows that cannot be, what is asked for and not there, and an estimate.

    Args:
        plan: of the run.
        missing: its cells that are to be computed.
        store: where its results would be.
        speeds_of: further stores whose cells say how long things take.
    """
    lines = list_missing(missing)
    lines += [f"n/a        {row.method} {row.concept.name}: {row.reason}" for row in plan.rows if row.reason]
    lines += [
        f"n/a        {row.attack} {row.method} {row.concept.name}: {row.reason}" for row in plan.attacks if row.reason
    ]
    if plan.reference is None:
        lines.append("n/a        FID, CMMD: no real images to compare with; name a folder of them by --fid-reference")
    lines += count_missing(missing, plan.cells)
    if len(missing) == len(plan.cells):
        lines += of_other_versions(store)
    # Rows of a prompt set that give one prompt other seeds are prompts of their own here.
    counts = {name: math.ceil(len(own) / plan.config.images_per_prompt) for name, own in _images(plan).items()}
    lines += [
        f"{name} has {count} prompts in this domain, not the {plan.config.prompts} asked for"
        for name, count in counts.items()
        if count < plan.config.prompts
    ]
    if len(plan.retained) < plan.config.retain_prompts:
        lines.append(f"there are {len(plan.retained)} other prompts, not the {plan.config.retain_prompts} asked for")
    return "\n".join([*lines, *estimate(missing, [store, *speeds_of])])

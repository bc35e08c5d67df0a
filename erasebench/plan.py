"""What a run consists of: rows of the table, and the cells that they need."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from erasebench.attack_plan import Attacked, AttackPlanner, AttackRow
from erasebench.concepts import OWN_KINDS, Catalogue, Concept, Prompt, View, load_catalogue
from erasebench.config import RunConfig, parse_method
from erasebench.domains import DOMAINS, FOLDER_FEATURES
from erasebench.engine.cells import Cell, with_all_that_they_read
from erasebench.engine.estimate import count_missing, estimate, list_missing
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError, NotApplicable, check_name
from erasebench.metrics.metric import ROLES, asked_metrics
from erasebench.models.loading import ModelSource, find_model, resolve_device, resolve_dtype
from erasebench.plugins import BASELINE, Judge, ResolvedMethod, hyper_parameters
from erasebench.prompt_sets import PromptSets
from erasebench.prompts import own_prompts, read_retain, repeat
from erasebench.registry import JUDGES, METHODS, METRICS, load_file
from erasebench.settings import (
    check_judges,
    chosen_view,
    plugin_settings,
    resolve_attack,
    resolve_method,
    resolve_methods,
)
from erasebench.stages import erase, generate, judge, reference

NEIGHBOURS = "neighbours"
"""Stands, among other concepts, for each concept's own neighbours."""
JOINT_ATTACK = "attacks are on one concept, and this row erases several together"


@dataclass(frozen=True)
class Judged:
    """What a judge is asked of a probe's images.

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
        sampler: how pictures are sampled: :class:`~erasebench.sampling.Sampler`'s arguments.
        rows: of the table, in order.
        reference: the features of FID's reference pictures: Picturebook's world, or the user's folder.
        retained: the other prompts, one for each image of every row.
        attacks: the rows of the table of attacks, in order.
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

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, each after the cells that it reads."""
        own = [cell for row in self.rows for cell in row.cells]
        attacks = [cell for row in self.attacks for cell in row.cells]
        return with_all_that_they_read((*own, *([self.reference] if self.reference else []), *attacks))


def make_plan(config: RunConfig) -> Plan:
    """Plan a run; nothing is loaded or computed.

    Raises:
        EraseBenchError: anything that can be known to fail: an unknown name, a hyper-parameter out of range, a concept
            that cannot be judged in the model's domain, missing weights or prompt files.
    """
    return _Planner(config, *find_parts(config, "concepts")).plan()


def resolved_config(plan: Plan) -> RunConfig:
    """The configuration of a plan with everything decided: it stays the same run when defaults change.

    Sampler, precision, and every hyper-parameter that a method's own brackets do not hold; where it runs stays open.
    So do hyper-parameters that are decided by what is erased, where the concepts of the run do not agree on them.
    """
    config, sampler = plan.config, plan.sampler
    given = plugin_settings(plan.source.domain, config.settings)
    settings: dict[str, dict[str, Any]] = {}
    for text in config.methods:
        name, options = parse_method(text)
        method = resolve_method(text, given)
        parameters = hyper_parameters(method.made)
        rows = []
        for concept in dict.fromkeys(row.concept for row in plan.rows):
            with suppress(NotApplicable):
                rows.append(hyper_parameters(method.made.resolved([concept.seen_in(plan.source.domain)])))
        agreed = {key for key in parameters if rows and all(row[key] == rows[0][key] for row in rows)}
        parameters |= {key: rows[0][key] for key in agreed}
        settings.setdefault(name, {}).update({key: parameters[key] for key in parameters if key not in options})
    for row in plan.attacks:
        for label in row.members:
            name, options = parse_method(label)
            parameters = hyper_parameters(resolve_attack(label, given).made)
            settings.setdefault(name, {}).update({key: parameters[key] for key in parameters if key not in options})
    decided = {"steps": sampler["steps"], "guidance_scale": sampler["guidance_scale"], "dtype": plan.dtype}
    return config.model_copy(update={**decided, "settings": {name: own for name, own in settings.items() if own}})


def find_parts(config: RunConfig, option: str) -> tuple[Catalogue, ModelSource, str, str]:
    """What a configuration names: the catalogue, with the user's own concepts, the model, the device and the precision.

    The user's plug-ins are loaded.

    Args:
        config: of a run or an erasure.
        option: the command line's for concepts, to be named if there are none.

    Raises:
        EraseBenchError: no concepts, or something that is not there or is broken.
    """
    for path in config.plugins:
        load_file(path)
    if not config.concepts:
        raise EraseBenchError(f"no {option}; name some with --{option} (`erasebench list concepts` shows them)")
    catalogue = load_catalogue(config.concept_files)
    source = find_model(config.model)
    device = resolve_device(config.device)
    return catalogue, source, device, resolve_dtype(config.dtype, device)


@dataclass(frozen=True)
class _Asked:
    """A concept, who judges it, and what is asked: one view, and one of the second judge, for each of its parts."""

    concept: Concept
    views: tuple[View, ...]
    seconds: tuple[View, ...]
    prompts: tuple[Prompt, ...]
    synonyms: tuple[Prompt, ...]


class _Planner:
    def __init__(self, config: RunConfig, catalogue: Catalogue, source: ModelSource, device: str, dtype: str) -> None:
        self.config, self.catalogue, self.source, self.device, self.dtype = config, catalogue, source, device, dtype
        self.domain = DOMAINS[source.domain]
        self.sampler: dict[str, Any] = {
            "name": config.sampler,
            "steps": config.steps or source.steps,
            "guidance_scale": source.guidance_scale if config.guidance_scale is None else config.guidance_scale,
            "size": config.size,
        }
        from erasebench.sampling import Sampler

        Sampler(**self.sampler)  # names and ranges are checked where they are used
        self.settings = plugin_settings(source.domain, config.settings)
        for name in config.settings:
            (resolve_method if name in METHODS.names() else resolve_attack)(name, self.settings)
        check_judges(config.judges)
        for kind in config.prompt_kinds:
            check_name("kind of prompt", kind, OWN_KINDS)
        for name in config.others:
            check_name("other concept", name, (NEIGHBOURS, *catalogue.names(), *catalogue.groups()))
        if config.out.resolve().is_relative_to(config.store.resolve()):
            raise EraseBenchError(
                f"the output folder {config.out} lies in the store {config.store}; give it another place"
            )
        if config.fid_reference and not config.fid_reference.is_dir():
            raise EraseBenchError(f"there is no folder {config.fid_reference} of reference images")
        self.judges: dict[tuple[str, str], tuple[Judge, dict[str, Any]]] = {}
        self.attacks = AttackPlanner(
            config.attacks, self.settings, source, dtype, self.sampler, config.seed, self._judge_spec, self.domain.clip
        )
        _check_size(config.size, source.folder)
        self.prompt_sets = PromptSets(catalogue.prompt_sets, config.prompt_sets, source.domain)

    def plan(self) -> Plan:
        concepts = [self.catalogue.get(name) for name in dict.fromkeys(self.config.concepts)]
        asked = {concept.name: self._ask(concept) for concept in concepts}
        retain = self._retain()
        others = {concept.name: self._others(concept) for concept in concepts}
        self._check_metrics(asked.values())
        labels = dict.fromkeys((BASELINE, *self.config.methods))
        methods = resolve_methods(labels, self.settings, self.config.seed, self.config.erasure_seeds)
        rows: list[Row] = []
        base: dict[str, Row] = {}
        for method in methods:
            for concept in concepts:
                row = self._row(method, asked[concept.name], others[concept.name], retain, base.get(concept.name))
                base.setdefault(concept.name, row)
                rows.append(row)
        return Plan(
            self.config,
            self.source,
            self.device,
            self.dtype,
            self.sampler,
            tuple(rows),
            self._reference(),
            tuple(retain),
            tuple(self._attack_rows(rows, asked, retain)),
        )

    def _attack_rows(
        self, rows: Sequence[Row], asked: Mapping[str, _Asked], retain: Sequence[Prompt]
    ) -> Iterator[AttackRow]:
        """The rows of attacks, of each row of the table that can be."""
        base = {row.concept.name: row for row in rows if row.method == BASELINE}
        for row in rows if self.attacks.labels else ():
            own, unerased = asked[row.concept.name], base[row.concept.name]
            assert unerased.erasure
            distinct = {prompt.id: prompt for prompt in reversed(own.prompts)}
            unrelated = [prompt for prompt in retain if row.concept.name not in prompt.shows]
            attacked = Attacked(
                row.concept,
                own.views[0],
                tuple(reversed(distinct.values()))[: self.config.attack_prompts],
                tuple(unrelated[: self.config.floor_prompts]),
                unerased.probes["concept"].images,
                unerased.probes["concept"].judged[0].cell,
                unerased.erasure,
            )
            reason = row.reason or (JOINT_ATTACK if row.concept.members else None)
            yield from self.attacks.rows(row.method, None if reason else row.erasure, reason, attacked)

    def _ask(self, concept: Concept) -> _Asked:
        """What is asked of a concept, and who judges it."""
        views = tuple(map(self._view, concept.parts))
        seconds = [self._second_view(part, view) for part, view in zip(concept.parts, views, strict=True)]
        prompts = [self._prompts(part, view) for part, view in zip(concept.parts, views, strict=True)]
        synonyms = [self._synonyms(view) for view in views]
        if concept.members:
            prompts, synonyms = (
                [_showing(part, own) for part, own in zip(concept.parts, of, strict=True)] for of in (prompts, synonyms)
            )
        return _Asked(concept, views, tuple(filter(None, seconds)), _distinct(prompts), _distinct(synonyms))

    def _others(self, concept: Concept) -> tuple[list[Concept], tuple[Prompt, ...]]:
        """The other concepts that the rows of a concept are asked for, and their prompts.

        They are the same for every concept of the run, so that the unerased model's images are, unless they are each
        concept's own neighbours; prompts of what a row erases are left out when it is measured.
        """
        neighbours = [one for one in map(self.catalogue.get, concept.neighbours) if self.source.domain in one.views]
        named = [
            part
            for name in self.config.others
            for part in (neighbours if name == NEIGHBOURS else self.catalogue.get(name).parts)
        ]
        parts = list({part.name: part for part in named}.values())
        return parts, _distinct(_showing(part, self._prompts(part, self._view(part))) for part in parts)

    def _check_metrics(self, asked: Iterable[_Asked]) -> None:
        """Raise unless the metrics that are asked for can be measured; find the image sets that they need."""
        for name in self.config.metrics:
            check_name("metric", name, METRICS.names())
        metrics = asked_metrics(self.config.metrics)
        for name in self.config.metrics:
            if "others" in metrics[name].probes and not self.config.others:
                raise EraseBenchError(
                    f"the metric {name} is of other concepts, and none are asked for; name some with --others"
                )
            if "synonyms" in metrics[name].probes and not any(one.synonyms for one in asked):
                raise EraseBenchError(
                    f"the metric {name} is of prompts by synonyms, and no concept of the run has any in the domain "
                    f"'{self.domain.name}'"
                )
        self.probes = {probe for metric in metrics.values() for probe in metric.probes}
        self.roles = {
            probe: [role for role in ROLES if any(probe in metric.roles.get(role, ()) for metric in metrics.values())]
            for probe in self.probes
        }

    def _view(self, concept: Concept) -> View:
        view = concept.views.get(self.source.domain)
        if view is None:
            raise EraseBenchError(
                f"the concept '{concept.name}' has no judge and no prompts in the domain '{self.source.domain}' of the "
                f"model '{self.source.name}', but in: {', '.join(concept.views) or 'none'}"
            )
        return chosen_view(view, self.config.judges)

    def _second_view(self, concept: Concept, view: View) -> View | None:
        """What the second judge looks for in images of a concept: its phrase, or the label of the first."""
        text = self.config.second_judge
        if text is None:
            return None
        name, options = parse_method(text)
        for option in options:
            check_name(f"option of the second judge {name}", option, ("label", "threshold"))
        phrased = bool(JUDGES.get(name).presets.get("phrased"))
        label = options.get("label", concept.phrase if phrased else view.label)
        threshold = options.get("threshold", View.threshold)
        if not isinstance(label, str) or not label.strip():
            raise EraseBenchError(f"second judge {text}: the label is {label!r}, which is no text")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
            raise EraseBenchError(f"second judge {text}: the threshold is {threshold!r}, which is no number")
        if name == view.judge:
            raise EraseBenchError(
                f"the second judge {name} is the first judge of the concept '{concept.name}' already; name another "
                "(`erasebench list judges` shows them)"
            )
        labels = judge.make_judge(name, label if phrased else "", self.domain.name).labels
        try:
            if labels is not None:
                check_name("label", label, labels)
        except EraseBenchError as error:
            raise EraseBenchError(
                f"the second judge {name} cannot judge the concept '{concept.name}': {error}; a label that it has is "
                f"asked for as {name}[label=...]"
            ) from None
        return View(name, label, float(threshold))

    def _prompts(self, concept: Concept, view: View) -> list[Prompt]:
        """The prompts of a concept, one for each image."""
        seed, count = self.config.seed, self.config.prompts
        prompts = self.prompt_sets.ask(concept.name, view.prompt_set, seed)
        kinds = "" if prompts is not None else f" of the kinds {', '.join(self.config.prompt_kinds) or 'none'}"
        prompts = (own_prompts(view, self.config.prompt_kinds, seed) if prompts is None else prompts)[:count]
        if not prompts:
            raise EraseBenchError(
                f"the concept '{concept.name}' has no prompts{kinds} in the domain '{self.source.domain}'; give some "
                "in a file of your own (--concept-files)"
            )
        return repeat(prompts, self.config.images_per_prompt)

    def _synonyms(self, view: View) -> list[Prompt]:
        """The prompts by synonyms alone, as many as there are others."""
        prompts = own_prompts(view, ("synonym",), self.config.seed)[: self.config.prompts]
        return repeat(prompts, self.config.images_per_prompt)

    def _retain(self) -> list[Prompt]:
        seed = self.config.seed
        prompts = self.prompt_sets.retain(seed)
        if self.config.retain_file:
            if prompts is not None:
                raise EraseBenchError("--retain-file and a prompt set both give unrelated prompts; give one of them")
            prompts = read_retain(self.config.retain_file, seed)
        elif prompts is None:
            known = self.catalogue.retain(self.source.domain)
            prompts = [Prompt(one.prompt, one.prompt, seed, "retain", one.shows) for one in known]
        if not prompts:
            raise EraseBenchError(
                f"no other prompts for the domain '{self.source.domain}': name captions of COCO by --prompt-sets "
                "coco-30k=auto (`erasebench list prompt-sets` shows them), or give a CSV file with a column 'prompt', "
                "or COCO's captions_val2017.json, by --retain-file"
            )
        return repeat(prompts, 1)[: self.config.retain_prompts]

    def _row(
        self,
        method: ResolvedMethod,
        asked: _Asked,
        others: tuple[list[Concept], tuple[Prompt, ...]],
        retain: Sequence[Prompt],
        base: Row | None,
    ) -> Row:
        """A row of the table.

        Args:
            method: what erases.
            asked: the concept.
            others: of :meth:`_others`.
            retain: the unrelated prompts.
            base: the unerased model's row of the same concept; None where this is it.
        """
        label, concept = method.label, asked.concept
        try:
            erased = erase.cell(
                method,
                () if method.name == BASELINE else concept.parts,
                self.source,
                self.config.seed,
                self.dtype,
                self._spec,
            )
        except NotApplicable as reason:
            return Row(label, concept, str(reason))

        def drawn(prompts: Sequence[Prompt], title: str) -> Cell:
            return generate.cell(erased, prompts, self.sampler, self.source, self.dtype, title)

        titles = {"concept": f"{label} {concept.name}", "retain": f"{erased.title} retain"}
        images = drawn(asked.prompts, titles["concept"])
        unrelated = drawn(retain, titles["retain"])
        clip = Judged("clip", None, self._judge(self.domain.clip, "", unrelated))
        probes = {
            "concept": ProbePlan(
                asked.prompts,
                images,
                self._each(concept, asked.views, images),
                self._each(concept, asked.seconds, images) if asked.seconds else (),
            ),
            "retain": ProbePlan(tuple(retain), unrelated, (clip,), features=self._features(unrelated)),
        }
        if "synonyms" in self.probes and asked.synonyms:
            by_synonyms = drawn(asked.synonyms, f"{titles['concept']} by synonyms")
            probes["synonyms"] = ProbePlan(asked.synonyms, by_synonyms, self._each(concept, asked.views, by_synonyms))
        kept = [other for other in others[0] if other.name not in {part.name for part in concept.parts}]
        if kept:
            of_others = drawn(others[1], f"{erased.title} others")
            judged = tuple(self._judged(self._view(other), of_others, other.name) for other in kept)
            probes["others"] = ProbePlan(others[1], of_others, judged)
        originals = {name: (base.probes[name] if base else probe).images for name, probe in probes.items()}
        asked_too = {
            name: {role: self._by_role(role, probe.images, originals[name]) for role in self.roles.get(name, ())}
            for name, probe in probes.items()
        }
        probes = {name: replace(probe, roles=asked_too[name]) for name, probe in probes.items()}
        return Row(label, concept, None, erased, probes)

    def _each(self, concept: Concept, views: Sequence[View], images: Cell) -> tuple[Judged, ...]:
        """What is asked of images of a concept: of a joint one, of each member's own."""
        return tuple(
            self._judged(view, images, part.name if concept.members else "")
            for part, view in zip(concept.parts, views, strict=True)
        )

    def _judged(self, view: View, images: Cell, concept: str) -> Judged:
        return Judged(view.label, view.threshold, self._judge(view.judge, view.label, images), concept)

    def _by_role(self, role: str, images: Cell, originals: Cell) -> Judged:
        """What the domain's judge of a role says: its score that is called as the role is."""
        name = self.domain.clip if role == "clip" else self.domain.distance
        return Judged(role, None, judge.cell(self._spec(name), images, originals))

    def _judge(self, name: str, label: str, images: Cell) -> Cell:
        phrased = bool(JUDGES.get(name).presets.get("phrased"))
        wanted, label = label, label if phrased else ""
        spec = self._spec(name, label)
        made = self.judges[name, label][0]
        if wanted and made.labels is not None:
            check_name(f"label of the judge {name}", wanted, made.labels)
        return judge.cell(spec, images)

    def _judge_spec(self, name: str, label: str = "") -> dict[str, Any]:
        """What identifies a judge of a label."""
        return self._spec(name, label if JUDGES.get(name).presets.get("phrased") else "")

    def _spec(self, name: str, label: str = "") -> dict[str, Any]:
        """What identifies a judge, found once for all cells."""
        if (name, label) not in self.judges:
            made = judge.make_judge(name, label, self.source.domain)
            self.judges[name, label] = made, judge.judge_spec(name, label, made)
        return self.judges[name, label][1]

    def _features(self, images: Cell) -> Cell | None:
        if self.config.fid_reference:
            return self._judge(FOLDER_FEATURES.judge, "", images)
        return self._judge(self.domain.features.judge, "", images) if self.domain.world else None

    def _reference(self) -> Cell | None:
        if self.config.fid_reference:
            return judge.folder_cell(self._spec(FOLDER_FEATURES.judge), self.config.fid_reference)
        world = self.domain.world
        if world is None:
            return None
        return self._judge(self.domain.features.judge, "", reference.cell(world, self.config.reference_images))


def count_prompts(plan: Plan) -> dict[str, int]:
    """The number of different prompts of each concept that a plan asks for, each member of a joint one by itself."""
    counts: dict[str, set[str]] = {}
    for row in plan.rows:
        for prompt in row.probes["concept"].prompts if row.probes else ():
            counts.setdefault(prompt.shows[0] if row.concept.members else row.concept.name, set()).add(prompt.id)
    return {name: len(ids) for name, ids in counts.items()}


def _showing(concept: Concept, prompts: Iterable[Prompt]) -> list[Prompt]:
    return [replace(prompt, shows=(concept.name,)) for prompt in prompts]


def _distinct(lists: Iterable[Sequence[Prompt]]) -> tuple[Prompt, ...]:
    """The prompts of several concepts; one that several have shows them all, and is drawn once."""
    found: dict[tuple[str, int], Prompt] = {}
    for prompt in (prompt for own in lists for prompt in own):
        known = found.get((prompt.id, prompt.seed))
        shows = (*known.shows, *prompt.shows) if known else prompt.shows
        found[prompt.id, prompt.seed] = replace(known or prompt, shows=tuple(dict.fromkeys(shows)))
    return tuple(found.values())


def _check_size(size: int | None, folder: Path) -> None:
    """Raise unless a model can draw pictures of this size: each level but the last of VAE and U-Net halves them."""
    if size is None:
        return
    parts = [json.loads((folder / part / "config.json").read_text(encoding="utf-8")) for part in ("vae", "unet")]
    multiple = 2 ** sum(len(part["block_out_channels"]) - 1 for part in parts)
    if size % multiple:
        raise EraseBenchError(f"size must be a multiple of {multiple} for this model, not {size}")


def describe_plan(plan: Plan, store: Store) -> str:
    """What a run would do: its cells, its rows that cannot be, what is asked for and not there, and an estimate."""
    missing = [cell for cell in plan.cells if store.marker(cell.key) is None]
    lines = list_missing(missing)
    lines += [f"n/a        {row.method} {row.concept.name}: {row.reason}" for row in plan.rows if row.reason]
    lines += [
        f"n/a        {row.attack} {row.method} {row.concept.name}: {row.reason}" for row in plan.attacks if row.reason
    ]
    lines += count_missing(missing, plan.cells)
    lines += [
        f"{name} has {count} prompts in this domain, not the {plan.config.prompts} asked for"
        for name, count in count_prompts(plan).items()
        if count < plan.config.prompts
    ]
    if len(plan.retained) < plan.config.retain_prompts:
        lines.append(f"there are {len(plan.retained)} other prompts, not the {plan.config.retain_prompts} asked for")
    return "\n".join([*lines, *estimate(missing, store)])

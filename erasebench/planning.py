"""The planning of a run: the rows and cells that a configuration asks for.  Nothing is loaded or computed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erasebench.asking import Asked, Asker
from erasebench.attack_plan import Attacked, AttackPlanner, AttackRow
from erasebench.concepts import Catalogue, Concept, Prompt, View, load_catalogue
from erasebench.config import RunConfig
from erasebench.domains import DOMAINS, FOLDER_FEATURES
from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError, NotApplicable, check_name
from erasebench.files import locate
from erasebench.metrics.metric import ROLES, asked_metrics
from erasebench.models.loading import ModelSource, find_model, resolve_device, resolve_dtype
from erasebench.plan import Judged, Plan, ProbePlan, Row
from erasebench.plugins import BASELINE, Judge, ResolvedMethod
from erasebench.registry import JUDGES, METHODS, METRICS, load_file
from erasebench.settings import plugin_settings, resolve_attack, resolve_method, resolve_methods
from erasebench.stages import erase, generate, judge, reference

JOINT_ATTACK = "attacks are on one concept, and this row erases several together"


def check_limit(max_memory: float | None, device: str) -> None:
    """Raise if a GPU's memory is limited and there is none."""
    if max_memory is not None and device == "cpu":
        raise EraseBenchError(
            "--max-memory is of a GPU, and this is on the CPU, where fewer --workers need less memory; leave it out"
        )


def find_parts(config: RunConfig, option: str) -> tuple[Catalogue, ModelSource, str, str]:
    """A configuration's parts: the catalogue, with the user's own concepts, the model, the device and the precision.

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
    device = resolve_device(config.device, elsewhere=config.runner != "local")
    check_limit(config.max_memory, device)
    return catalogue, source, device, resolve_dtype(config.dtype, device)


def make_plan(config: RunConfig) -> Plan:
    """Plan a run; nothing is loaded or computed.

    Raises:
        EraseBenchError: anything that can be known to fail: an unknown name, a hyper-parameter out of range, a concept
            that cannot be judged in the model's domain, missing weights or prompt files.
    """
    return _Planner(config, *find_parts(config, "concepts")).plan()


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
        self.asker = Asker(config, catalogue, source)
        for name in config.metrics:
            check_name("metric", name, METRICS.names())
        self.metrics = asked_metrics(config.metrics)
        self.probes = {probe for metric in self.metrics.values() for probe in metric.probes}
        self.roles = {
            probe: [role for role in ROLES if any(probe in one.roles.get(role, ()) for one in self.metrics.values())]
            for probe in self.probes
        }
        out = locate(f"the output folder {config.out}", config.out)
        if isinstance(config.store, Path) and out.is_relative_to(locate(f"the store {config.store}", config.store)):
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

    def plan(self) -> Plan:
        concepts = [self.catalogue.get(name) for name in dict.fromkeys(self.config.concepts)]
        questions = {concept.name: self.asker.ask(concept) for concept in concepts}
        retain = self.asker.retain()
        others = {concept.name: self.asker.others(concept) for concept in concepts}
        self._check_metrics(questions.values())
        labels = dict.fromkeys((BASELINE, *self.config.methods))
        methods = resolve_methods(labels, self.settings, self.config.seed, self.config.erasure_seeds)
        rows: list[Row] = []
        base: dict[str, Row] = {}
        for method in methods:
            for concept in concepts:
                row = self._row(method, questions[concept.name], others[concept.name], retain, base.get(concept.name))
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
            tuple(self._attack_rows(rows, questions, retain)),
            {
                role: Judged(role, None, cell)
                for role in self.roles.get("reference", ())
                if (cell := self._reference(role))
            },
        )

    def _attack_rows(
        self, rows: Sequence[Row], questions: Mapping[str, Asked], retain: Sequence[Prompt]
    ) -> Iterator[AttackRow]:
        """The rows of attacks, of each row of the table that can be."""
        base = {row.concept.name: row for row in rows if row.method == BASELINE}
        for row in rows if self.attacks.labels else ():
            own, unerased = questions[row.concept.name], base[row.concept.name]
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

    def _check_metrics(self, questions: Iterable[Asked]) -> None:
        """Raise unless there are the image sets that the metrics which are asked for need."""
        for name in self.config.metrics:
            probes = self.metrics[name].probes
            if "others" in probes and not self.config.others:
                raise EraseBenchError(
                    f"the metric {name} is of other concepts, and none are asked for; name some with --others"
                )
            if "synonyms" in probes and not any(one.synonyms for one in questions):
                raise EraseBenchError(
                    f"the metric {name} is of prompts by synonyms, and no concept of the run has any in the domain "
                    f"'{self.domain.name}'"
                )
            if "composition" in probes and not any(one.composed for one in questions):
                raise EraseBenchError(
                    f"the metric {name} is of prompts for two objects, one of them erased; name other objects with "
                    "--others, and objects with --concepts"
                )

    def _row(
        self,
        method: ResolvedMethod,
        question: Asked,
        others: tuple[list[Concept], tuple[Prompt, ...]],
        retain: Sequence[Prompt],
        base: Row | None,
    ) -> Row:
        """A row of the table.

        Args:
            method: what erases.
            question: the concept, its prompts, and who judges them.
            others: of :meth:`~erasebench.asking.Asker.others`.
            retain: the unrelated prompts.
            base: the unerased model's row of the same concept; None where this is it.
        """
        label, concept = method.label, question.concept
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
        images = drawn(question.prompts, titles["concept"])
        unrelated = drawn(retain, titles["retain"])
        clip = Judged("clip", None, self._judge(self.domain.clip, "", unrelated))
        probes = {
            "concept": ProbePlan(
                question.prompts,
                images,
                self._each(concept, question.views, images),
                self._each(concept, question.seconds, images) if question.seconds else (),
            ),
            "retain": ProbePlan(tuple(retain), unrelated, (clip,), features=self._features(unrelated)),
        }
        if "synonyms" in self.probes and question.synonyms:
            by_synonyms = drawn(question.synonyms, f"{titles['concept']} by synonyms")
            probes["synonyms"] = ProbePlan(
                question.synonyms, by_synonyms, self._each(concept, question.views, by_synonyms)
            )
        survivors = [other for other in others[0] if other.name not in {part.name for part in concept.parts}]
        if survivors:
            of_others = drawn(others[1], f"{erased.title} others")
            judged = tuple(self._judged(self.asker.view(other), of_others, other.name) for other in survivors)
            probes["others"] = ProbePlan(others[1], of_others, judged)
        if "composition" in self.probes and question.composed:
            of_two = drawn(question.composed, f"{titles['concept']} beside others")
            shown = {name for prompt in question.composed for name in prompt.shows}
            judged = tuple(
                self._judged(self.asker.view(one), of_two, one.name) for one in survivors if one.name in shown
            )
            probes["composition"] = ProbePlan(question.composed, of_two, judged)
        originals = {name: (base.probes[name] if base else probe).images for name, probe in probes.items()}
        judged_roles = {
            name: {role: self._by_role(role, probe.images, originals[name]) for role in self.roles.get(name, ())}
            for name, probe in probes.items()
        }
        probes = {name: replace(probe, roles=judged_roles[name]) for name, probe in probes.items()}
        return Row(label, concept, None, erased, probes)

    def _each(self, concept: Concept, views: Sequence[View], images: Cell) -> tuple[Judged, ...]:
        """The scores that are asked for of images of a concept: of a joint one, of each member's own."""
        return tuple(
            self._judged(view, images, part.name if concept.members else "")
            for part, view in zip(concept.parts, views, strict=True)
        )

    def _judged(self, view: View, images: Cell, concept: str) -> Judged:
        return Judged(view.label, view.threshold, self._judge(view.judge, view.label, images), concept)

    def _by_role(self, role: str, images: Cell, originals: Cell) -> Judged:
        """The score of the domain's judge of a role: the one that is called as the role is."""
        return Judged(role, None, judge.cell(self._spec(self._role(role)), images, originals))

    def _role(self, role: str) -> str:
        return self.domain.clip if role == "clip" else self.domain.distance

    def _judge(self, name: str, label: str, images: Cell) -> Cell:
        phrased = bool(JUDGES.get(name).presets.get("phrased"))
        column, label = label, label if phrased else ""
        spec = self._spec(name, label)
        instance = self.judges[name, label][0]
        if column and instance.labels is not None:
            check_name(f"label of the judge {name}", column, instance.labels)
        return judge.cell(spec, images)

    def _judge_spec(self, name: str, label: str = "") -> dict[str, Any]:
        """The specification that identifies a judge of a label."""
        return self._spec(name, label if JUDGES.get(name).presets.get("phrased") else "")

    def _spec(self, name: str, label: str = "") -> dict[str, Any]:
        """The specification that identifies a judge, found once for all cells."""
        if (name, label) not in self.judges:
            instance = judge.make_judge(name, label, self.source.domain)
            self.judges[name, label] = instance, judge.judge_spec(name, label, instance)
        return self.judges[name, label][1]

    def _features(self, images: Cell) -> Cell | None:
        if self.config.fid_reference:
            return self._judge(FOLDER_FEATURES.judge, "", images)
        return self._judge(self.domain.features.judge, "", images) if self.domain.world else None

    def _reference(self, role: str = "") -> Cell | None:
        """The cell in which the judge of FID's features, or the domain's of another role, sees reference images."""
        own = self._role(role) if role else ""
        if self.config.fid_reference:
            return judge.folder_cell(self._spec(own or FOLDER_FEATURES.judge), self.config.fid_reference)
        world = self.domain.world
        if world is None:
            return None
        return self._judge(own or self.domain.features.judge, "", reference.cell(world, self.config.reference_images))


def _check_size(size: int | None, folder: Path) -> None:
    """Raise unless a model can draw images of this size: each level but the last of VAE and U-Net halves them."""
    if size is None:
        return
    parts = [json.loads((folder / part / "config.json").read_text(encoding="utf-8")) for part in ("vae", "unet")]
    multiple = 2 ** sum(len(part["block_out_channels"]) - 1 for part in parts)
    if size % multiple:
        raise EraseBenchError(f"size must be a multiple of {multiple} for this model, not {size}")

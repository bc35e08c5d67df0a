"""The attacks that a run consists of: rows of the table, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from erasebench.concepts import Concept, Prompt, View
from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import make_plugin
from erasebench.models.loading import ModelSource
from erasebench.plugins import UNATTACKED
from erasebench.registry import ATTACKS
from erasebench.settings import resolve_attack
from erasebench.stages import attack as stage
from erasebench.stages import generate, learn

ALL = "all"
"""Stands for every attack that needs no hyper-parameter."""
LAST = ("p4d-union", "standard")
"""Attacks that are made of others, and stand behind them."""


@dataclass(frozen=True)
class Attacked:
    """A concept, what is asked of it, and what its attacks read of the unerased model.

    Attributes:
        concept: that is erased.
        view: what the model's domain knows of it.
        prompts: to attack, one image each.
        floor: unrelated prompts to attack in the same way, for the rate at which the judge is mistaken.
        images: the cell of the unerased model's images of the concept; ``judged`` the judge's scores of them.
        baseline: the cell of the erasure that changes nothing.
    """

    concept: Concept
    view: View
    prompts: tuple[Prompt, ...]
    floor: tuple[Prompt, ...]
    images: Cell
    judged: Cell
    baseline: Cell


@dataclass(frozen=True)
class AttackRow:
    """A row of the table of attacks.

    Attributes:
        method: as the user wrote it; ``concept`` what is erased.
        attack: as the user wrote it.
        threat_model: what the attacker has.
        judged: it chooses by the judge that counts its successes.
        reason: why the row cannot be; None where it can.
        members: the attacks that it is made of, in their order: label -> its cells, one for each prompt.  An attack
            that is no ensemble has itself for its only member.
        floor: likewise, of the unrelated prompts.
        missing: what cannot be of a row that can: a member of an ensemble, or "floor" behind a member's label, and why.
    """

    method: str
    concept: Concept
    attack: str
    threat_model: str
    judged: bool
    reason: str | None = None
    members: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    floor: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are read when the row is measured."""
        return tuple(cell for some in (self.members, self.floor) for cells in some.values() for cell in cells)


class AttackPlanner:
    """Makes the rows of all attacks of a run.

    Args:
        labels: the attacks as the user wrote them; ``all`` stands for those that need no hyper-parameter.
        settings: hyper-parameters by attack.
        source: the model; ``dtype`` its precision.
        sampler: :class:`~erasebench.sampling.Sampler`'s arguments.
        seed: of the attacks.
        judge_spec: gives what identifies a judge.
        clip: the judge that compares images.

    Raises:
        EraseBenchError: no such attack, no such hyper-parameter, or a value out of range.
    """

    def __init__(
        self,
        labels: Sequence[str],
        settings: Mapping[str, Mapping[str, Any]],
        source: ModelSource,
        dtype: str,
        sampler: Mapping[str, Any],
        seed: int,
        judge_spec: Callable[..., dict[str, Any]],
        clip: str,
    ) -> None:
        self._settings, self._source, self._dtype = settings, source, dtype
        self._sampler, self._seed, self._judge_spec, self._clip = sampler, seed, judge_spec, clip
        named = [name for label in labels for name in (without_parameters() if label == ALL else [label])]
        self.labels = list(dict.fromkeys([UNATTACKED, *named])) if labels else []
        for label in self.labels:
            for member in resolve_attack(label, settings).instance.members:
                resolve_attack(member, settings)

    def rows(self, method: str, erasure: Cell | None, reason: str | None, attacked: Attacked) -> list[AttackRow]:
        """The rows of one method and concept.

        Args:
            method: as the user wrote it.
            erasure: the cell of the erasure; None where it cannot be, for ``reason``.
            reason: why it cannot.
            attacked: the concept.
        """
        return [
            self._row(method, erasure, attacked, label) if erasure else self._empty_row(method, attacked, label, reason)
            for label in self.labels
        ]

    def _row(self, method: str, erasure: Cell, attacked: Attacked, label: str) -> AttackRow:
        members: dict[str, tuple[Cell, ...]] = {}
        floor: dict[str, tuple[Cell, ...]] = {}
        missing: dict[str, str] = {}
        instance = resolve_attack(label, self._settings).instance
        stand_in = replace(
            attacked, concept=unrelated_concept(attacked.concept, self._source.domain), prompts=attacked.floor
        )
        for member in instance.members or (label,):
            title = f"{member} {method} {attacked.concept.name}"
            try:
                members[member] = self._cells(member, erasure, attacked, title, members)
            except NotApplicable as error:
                missing[member] = str(error)
                continue
            # In the unerased model the concept is still there to be found.
            if attacked.floor and erasure is not attacked.baseline:
                try:
                    floor[member] = self._cells(member, erasure, stand_in, f"{title} floor", floor)
                except NotApplicable as error:
                    missing[f"{member} floor"] = str(error)
        if not members:
            return self._empty_row(method, attacked, label, "; ".join(dict.fromkeys(missing.values())))
        return replace(self._empty_row(method, attacked, label, None), members=members, floor=floor, missing=missing)

    def _empty_row(self, method: str, attacked: Attacked, label: str, reason: str | None) -> AttackRow:
        instance = resolve_attack(label, self._settings).instance
        return AttackRow(method, attacked.concept, label, instance.threat_model, instance.judged, reason)

    def _cells(
        self, label: str, erasure: Cell, attacked: Attacked, title: str, earlier: Mapping[str, Sequence[Cell]]
    ) -> tuple[Cell, ...]:
        """The cells of one attack, one for each prompt; each unneeded where an earlier attack broke the erasure."""
        aim = self._aim(label, erasure, attacked, title)
        instance, baseline = aim.attack.instance, attacked.baseline
        source = instance.transfer_of or (label if instance.text_only and not may_change_text_encoder(erasure) else "")
        transfers: Sequence[Cell] = ()
        if source and (source != label or erasure is not baseline):
            transfers = self._cells(
                source, baseline, attacked, f"{source} {baseline.title} {attacked.concept.name}", {}
            )
        reads: dict[str, Cell] = {}
        if instance.learns and not transfers:
            judged: Cell | None = attacked.judged
            images = attacked.images
            if attacked.prompts is attacked.floor:
                judged = None
                images = self._images(baseline, attacked.floor, title)
            reads["learned"] = learn.cell(aim, images, judged)
        unerased: Sequence[Cell] = ()
        if "unerased" in instance.needs and not transfers and not instance.learns:
            unerased = self._cells(
                UNATTACKED, baseline, attacked, f"{UNATTACKED} {baseline.title} {attacked.concept.name}", {}
            )
        cells = []
        for k, prompt in enumerate(attacked.prompts):
            read = {
                **reads,
                **({"found": transfers[k]} if transfers else {}),
                **({"unerased": unerased[k]} if unerased else {}),
            }
            cells.append(stage.cell(aim, prompt, read, [others[k] for others in earlier.values()]))
        return tuple(cells)

    def _images(self, baseline: Cell, prompts: Sequence[Prompt], title: str) -> Cell:
        """The cell of the unerased model's images of prompts."""
        return generate.cell(baseline, prompts, self._sampler, self._source, self._dtype, f"{title}: images")

    def _aim(self, label: str, erasure: Cell, attacked: Attacked, title: str) -> stage.Aim:
        """The common specification of the cells of one attack.

        Raises:
            NotApplicable: the attack does not fit, or the weights of a judge that it asks are missing.
        """
        attack, domain, view = resolve_attack(label, self._settings), self._source.domain, attacked.view
        concept = attacked.concept.seen_in(domain)
        attack.instance.check_family(self._source.family)
        attack.instance.check(domain, concept)
        attack = replace(attack, instance=attack.instance.resolved([concept]))
        try:
            clip = self._judge_spec(self._clip) if "clip" in attack.instance.needs else None
        except EraseBenchError as error:
            raise NotApplicable(str(error)) from None
        return stage.Aim(
            attack,
            attacked.concept.spec(domain),
            erasure,
            self._source.fingerprint,
            self._dtype,
            self._judge_spec(view.judge, view.label),
            view.label,
            view.threshold,
            clip,
            self._sampler,
            self._seed,
            title,
        )


def without_parameters() -> list[str]:
    """The attacks that need no hyper-parameter, those that are made of others last."""
    names = []
    for name in ATTACKS.names():
        plugin = ATTACKS.get(name)
        try:
            make_plugin(plugin.make, plugin.presets)
        except EraseBenchError:
            continue
        names.append(name)
    return sorted(names, key=lambda name: LAST.index(name) if name in LAST else -1)


def may_change_text_encoder(erasure: Cell) -> bool:
    """True if the text encoder may be another than the unerased model's, as the cell of the erasure tells."""
    return bool(erasure.spec.get("changes_text_encoder"))


def unrelated_concept(concept: Concept, domain: str) -> Concept:
    """The stand-in for a concept when its false-positive floor is measured: what methods map it to.

    An attack for it should bring back nothing that the judge of the concept sees.
    """
    anchor = concept.spec(domain)["anchor"] or "thing"
    return replace(
        concept,
        name=f"{concept.name}-floor",
        phrase=anchor,
        synonyms=(),
        anchor="",
        neighbours=(),
        neighbours_phrases=(),
        views={},
    )

"""The protocol of a run's measurements, so that two runs can be told comparable or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from erasebench.adversarial import CONFIRMATIONS
from erasebench.concepts import Prompt
from erasebench.engine.cells import short_hash

if TYPE_CHECKING:
    from erasebench.attack_plan import AttackRow
    from erasebench.plan import Judged, Plan, Row

Facts = dict[str, str | int | float | None]
"""Facts of a measurement, by name, for readers and for comparison."""


class Protocol(BaseModel):
    """All that has to be the same where numbers of two runs are compared: neither methods, nor seeds, nor machines.

    Seeds are left out since other seeds are another sample of the same quantity.

    Attributes:
        common: what holds for every row: the model, how it is sampled, unrelated prompts, reference images.
        concepts: by concept, what holds for its rows: prompts and judge.
        attacks: by concept and attack, what holds for that attack's rows beside it: prompts, judge and budget.  Empty
            in a run of a version that did not keep it.
        further: by concept, the image sets that only some runs have, and that the numbers of others do not depend on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    common: Facts
    concepts: dict[str, Facts]
    attacks: dict[str, dict[str, Facts]] = {}
    further: dict[str, Facts] = {}

    def of(self, concept: str) -> Facts:
        """The facts that hold for the rows of a concept, by name.

        Raises:
            KeyError: the run has no such concept.
        """
        return {**self.common, **self.concepts[concept]}

    def checksum(self, concept: str) -> str:
        """Twelve hexadecimal digits that are the same for rows of a concept that can be compared."""
        return short_hash(self.of(concept))

    def of_attack(self, concept: str, attack: str) -> Facts:
        """The facts of an attack's rows beside those of all rows of its concept; empty where they are not known."""
        return self.attacks.get(concept, {}).get(attack, {})

    def attack_checksum(self, concept: str, attack: str) -> str:
        """Twelve hexadecimal digits, beside those of the concept: the same for rows of an attack that can be compared.

        "" where it is not known how it attacked.
        """
        return checksum_of_attack(self.of_attack(concept, attack))

    def run_checksum(self) -> str:
        """Twelve hexadecimal digits, the same for runs of the same concepts and attacks that can be compared."""
        return short_hash([self.common, self.concepts, *(some for some in (self.attacks, self.further) if some)])


def protocol_of(plan: Plan) -> Protocol:
    """The protocol of a plan."""
    retain = next((row.probes["retain"] for row in plan.rows if not row.reason), None)
    common: Facts = {
        "model": plan.source.name,
        "model fingerprint": plan.source.fingerprint,
        "domain": plan.source.domain,
        "dtype": plan.dtype,
        **{f"sampler {name}": value for name, value in plan.sampler.items()},
        "unrelated prompts": _describe_prompts(plan.retained),
        "CLIP": describe_spec(retain.judged[0].cell.spec) if retain else None,
        "features": describe_spec(retain.features.spec) if retain and retain.features else None,
        "reference images": plan.reference.key if plan.reference else None,
    }
    concepts = {row.concept.name: _of_concept(row) for row in plan.rows if not row.reason}
    attacks: dict[str, dict[str, Facts]] = {}
    for attacked in plan.attacks:
        if not attacked.reason:
            attacks.setdefault(attacked.concept.name, {}).setdefault(attacked.attack, _of_attack(attacked))
    further = {row.concept.name: facts for row in plan.rows if (facts := _further(row))}
    return Protocol(common=common, concepts=concepts, attacks=attacks, further=further)


def _of_concept(row: Row) -> Facts:
    probe = row.probes["concept"]
    facts: Facts = {"prompts": _describe_prompts(probe.prompts)}
    for judged in probe.judged:
        of = f" of {judged.concept}" if judged.concept else ""
        facts |= {f"judge{of}": describe_spec(judged.cell.spec), f"label{of}": judged.label}
        facts |= {f"threshold{of}": judged.threshold}
    return facts


def _further(row: Row) -> Facts:
    titles = {
        "synonyms": "prompts by synonyms",
        "others": "prompts of other concepts",
        "composition": "prompts for two objects",
    }
    return {titles[name]: _describe_prompts(probe.prompts) for name, probe in row.probes.items() if name in titles}


def _of_attack(row: AttackRow) -> Facts:
    members = {member: cells[0].spec for member, cells in row.members.items()}
    first = next(iter(row.members.values()))
    spec = first[0].spec
    prompts = [Prompt(**cell.spec["prompt"]) for cell in first]
    judge = describe_judge(spec["judge"], spec["label"], spec["threshold"])
    budget = {member: own["parameters"] for member, own in members.items()}
    versions = {f"version of {member}": _version(own) for member, own in members.items()}
    return attack_facts(prompts, judge, row.threat_model, budget) | versions


def _version(spec: Mapping[str, Any]) -> str:
    """The version of an attack, with a hash of what else decides what it does, such as a list of words."""
    return f"{spec['version']} {short_hash(spec['identity'])}" if spec["identity"] else str(spec["version"])


def attack_facts(
    prompts: Sequence[Prompt], judge: str, threat_model: str, budget: Mapping[str, Mapping[str, Any]]
) -> Facts:
    """The facts of an attack's measurement, but for the versions of what it is made of.

    Args:
        prompts: that were attacked.
        judge: who saw the concept, for readers.
        threat_model: what the attacker has.
        budget: hyper-parameters by member of the attack; one that is no ensemble has itself for its only member.
    """
    return {
        "attacked prompts": _describe_prompts(prompts),
        "judge": judge,
        "threat model": threat_model,
        "confirmations": CONFIRMATIONS,
        "members": ", ".join(budget),
        **{f"{name} of {member}": _as_fact(value) for member, own in budget.items() for name, value in own.items()},
    }


def _as_fact(value: object) -> str | int | float | None:
    """A hyper-parameter as a fact; lists and truth values as JSON."""
    plain = value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
    return value if plain else json.dumps(value, sort_keys=True)  # type: ignore[return-value]


def checksum_of_attack(facts: Facts) -> str:
    """Twelve hexadecimal digits of how an attack was measured; "" of nothing."""
    return short_hash(facts) if facts else ""


def describe_judge(spec: Mapping[str, Any], label: str, threshold: float | None) -> str:
    """The judge, with its weights and threshold, for readers; a threshold of None is left out."""
    return f"{describe_spec(spec)}: {label}" + ("" if threshold is None else f" >= {threshold:g}")


def describe_judges(judged: Sequence[Judged]) -> str:
    """The judges of a probe's images, for readers; of several that differ only in the label, the labels together."""
    alike: dict[tuple[str, float | None], list[Judged]] = {}
    for one in judged:
        alike.setdefault((describe_spec(one.cell.spec), one.threshold), []).append(one)
    return "; ".join(
        describe_judge(own[0].cell.spec, ", ".join(dict.fromkeys(one.label for one in own)), threshold)
        for (_, threshold), own in alike.items()
    )


def describe_spec(spec: Mapping[str, Any]) -> str:
    """A judge with its version and weights, for readers."""
    weights = f" {spec['weights'][:12]}" if spec.get("weights") else ""
    return f"{spec['judge']} {spec['version']}{weights}"


def _describe_prompts(prompts: Sequence[Prompt]) -> str:
    """The number of images and of their prompts, and a hash of these."""
    texts = list(dict.fromkeys((prompt.id, prompt.text, prompt.kind) for prompt in prompts))
    return f"{len(prompts)} images of {len(texts)} prompts {short_hash(texts)}"


def differences(first: Protocol, second: Protocol, concept: str) -> list[str]:
    """In what two protocols differ for the rows of a concept, one line each, such as ``sampler steps: 25 and 50``.

    Image sets that only one of them has are no difference: nothing is compared of them.
    """
    further = [each.further.get(concept, {}) for each in (first, second)]
    shared = further[0].keys() & further[1].keys()
    return _apart(
        *(
            each.of(concept) | {name: own[name] for name in own if name in shared}
            for each, own in zip((first, second), further, strict=True)
        )
    )


def attack_differences(first: Protocol, second: Protocol, concept: str, attack: str) -> list[str] | None:
    """In what two protocols differ for the rows of an attack beside those of its concept; None if one does not say."""
    one, other = first.of_attack(concept, attack), second.of_attack(concept, attack)
    return _apart(one, other) if one and other else None


def _apart(one: Facts, other: Facts) -> list[str]:
    return [
        f"{name}: {one.get(name)} and {other.get(name)}"
        for name in dict.fromkeys((*one, *other))
        if one.get(name) != other.get(name)
    ]

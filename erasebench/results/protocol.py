"""How a run measured, so that two runs can be told comparable or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from erasebench.engine.cells import short_hash

if TYPE_CHECKING:
    from erasebench.concepts import Prompt
    from erasebench.plan import Plan, Row

Facts = dict[str, str | int | float | None]
"""What was measured with, by name, for readers and for comparison."""


class Protocol(BaseModel):
    """All that has to be the same where numbers of two runs are compared: neither methods, nor seeds, nor machines.

    Seeds are left out since other seeds are another sample of the same quantity.

    Attributes:
        common: what holds for every row: the model, how it is sampled, unrelated prompts, reference images.
        concepts: by concept, what holds for its rows: prompts and judge.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    common: Facts
    concepts: dict[str, Facts]

    def of(self, concept: str) -> Facts:
        """What holds for the rows of a concept, by name.

        Raises:
            KeyError: the run has no such concept.
        """
        return {**self.common, **self.concepts[concept]}

    def checksum(self, concept: str) -> str:
        """Twelve hexadecimal digits that are the same for rows of a concept that can be compared."""
        return short_hash(self.of(concept))

    def run_checksum(self) -> str:
        """Twelve hexadecimal digits that are the same for runs of the same concepts that can be compared."""
        return short_hash([self.common, self.concepts])


def protocol_of(plan: Plan) -> Protocol:
    """The protocol of a plan."""
    row = next((row for row in plan.rows if not row.reason), None)
    common: Facts = {
        "model": plan.source.name,
        "model fingerprint": plan.source.fingerprint,
        "domain": plan.source.domain,
        "dtype": plan.dtype,
        **{f"sampler {name}": value for name, value in plan.sampler.items()},
        "unrelated prompts": _describe_prompts(plan.retained),
        "CLIP": describe_spec(row.clip.spec) if row and row.clip else None,
        "features": describe_spec(row.features.spec) if row and row.features else None,
        "reference images": plan.reference.key if plan.reference else None,
    }
    concepts = {row.concept.name: _of_concept(row) for row in plan.rows if not row.reason}
    return Protocol(common=common, concepts=concepts)


def _of_concept(row: Row) -> Facts:
    assert row.judged
    return {
        "prompts": _describe_prompts(row.prompts),
        "judge": describe_spec(row.judged.spec),
        "label": row.view.label,
        "threshold": row.view.threshold,
    }


def describe_spec(spec: Mapping[str, Any]) -> str:
    """A judge with its version and weights, for readers."""
    weights = f" {spec['weights'][:12]}" if spec.get("weights") else ""
    return f"{spec['judge']} {spec['version']}{weights}"


def _describe_prompts(prompts: Sequence[Prompt]) -> str:
    """How many images of how many prompts, and a hash of these."""
    texts = list(dict.fromkeys((prompt.id, prompt.text, prompt.kind) for prompt in prompts))
    return f"{len(prompts)} images of {len(texts)} prompts {short_hash(texts)}"


def differences(first: Protocol, second: Protocol, concept: str) -> list[str]:
    """In what two protocols differ for the rows of a concept, one line each, such as ``sampler steps: 25 and 50``."""
    one, other = first.of(concept), second.of(concept)
    return [
        f"{name}: {one.get(name)} and {other.get(name)}"
        for name in dict.fromkeys((*one, *other))
        if one.get(name) != other.get(name)
    ]

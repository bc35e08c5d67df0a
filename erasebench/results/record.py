"""The record of a run, ``plan.json``: its rows, what became of them, and the cells that hold what they were made of.

With it, the tidy scores beside it and the store, results are read without a model, a judge or a plug-in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from erasebench import __version__
from erasebench.domains import features_title
from erasebench.engine.cells import Cell
from erasebench.engine.ledger import LEDGER
from erasebench.errors import EraseBenchError
from erasebench.files import hash_files
from erasebench.metrics.metric import STANDARD_PROBES, Description, asked_metrics
from erasebench.plugins import BASELINE
from erasebench.results.protocol import Protocol, describe_judge, describe_judges, protocol_of
from erasebench.results.rows import Status
from erasebench.results.table import TABLE

if TYPE_CHECKING:
    from erasebench.attack_plan import AttackRow
    from erasebench.plan import Judged, Plan, ProbePlan, Row

RECORD = "plan.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgedImages(_Part):
    """The verdict of one judge on the images of a probe.

    Attributes:
        judge: its name.
        label: the score that counts.
        threshold: from which score on the label is there; None for scores without one.
        cell: the key of the cell that holds the scores.
        concept: the concept whose images it judges; "" where it judges all of the probe.
    """

    judge: str
    label: str
    threshold: float | None
    cell: str
    concept: str = ""


class ProbeRecord(_Part):
    """The cells of one image set of a row.

    Attributes:
        images: the key of its images; None where only their features were kept.
        judged: who judged them.  The first of each concept's is the judge that numbers are of, the others only have
            an opinion.
        roles: what the domain's judges of further roles say of them, by role.
        features: the key of their features; ``features_of`` what a table calls these.
    """

    images: str | None = None
    judged: tuple[JudgedImages, ...] = ()
    features: str | None = None
    features_of: str = ""
    roles: dict[str, JudgedImages] = {}

    @property
    def first(self) -> tuple[JudgedImages, ...]:
        """The first judge of each concept."""
        first: dict[str, JudgedImages] = {}
        for one in self.judged:
            first.setdefault(one.concept, one)
        return tuple(first.values())

    @property
    def further(self) -> tuple[JudgedImages, ...]:
        """The judges that only have an opinion."""
        first = self.first
        return tuple(one for one in self.judged if one not in first)

    def by_first_judge(self) -> ProbeRecord:
        """The same without further judges."""
        return self.model_copy(update={"judged": self.first, "roles": {}})

    @property
    def is_joint(self) -> bool:
        """True if its images are of several concepts that were erased together."""
        return any(one.concept for one in self.judged)


class RowRecord(_Part):
    """A row of the table.

    Attributes:
        method: as the user wrote it.
        concept: the concept's name; ``kind`` its kind.
        status: whether the row can be measured; ``reason`` why not.
        judge: who saw the concept, with version, weights and threshold, for readers.
        erasure: the key of the erasure; None where there could be none.
        probes: the row's image sets, those of :data:`~erasebench.metrics.metric.PROBES` that it has.
    """

    method: str
    concept: str
    kind: str
    status: Status
    reason: str = ""
    judge: str = ""
    erasure: str | None = None
    probes: dict[str, ProbeRecord] = {}

    def standard(self) -> RowRecord:
        """The same without further judges and without the image sets that only some runs have."""
        own = {name: probe.by_first_judge() for name, probe in self.probes.items() if name in STANDARD_PROBES}
        return self.model_copy(update={"probes": own})


class AttackRecord(_Part):
    """A row of the table of attacks.

    Attributes:
        method: as the user wrote it; ``concept`` what is erased, ``kind`` its kind.
        attack: as the user wrote it.
        status: whether the row can be measured; ``reason`` why not.
        judge: who saw the concept, with version, weights and threshold, for readers.
        threat_model: what the attacker has.
        judged: it chooses by the judge that counts its successes.
        budget: the attack's hyper-parameters, or those of its members, for readers.
        trials: by member of the attack and id of the prompt: the key of what came of it, where it was tried; an attack
            that is no ensemble has itself for its only member.
        floor: likewise, of the unrelated prompts.
        missing: what could not be planned of a row that can be measured, such as a member of an ensemble, and why.
    """

    method: str
    concept: str
    kind: str
    attack: str
    status: Status
    reason: str = ""
    judge: str = ""
    threat_model: str = ""
    judged: bool = False
    budget: dict[str, dict[str, Any]] = {}
    trials: dict[str, dict[str, str]] = {}
    floor: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}


class Record(_Part):
    """A run.

    Attributes:
        erasebench: the version that ran it.
        model: the name of the model; ``domain`` what its images are.
        baseline: the method that erases nothing.
        metrics: what a table says of each metric, in the order of its columns.
        rows: of the table, in order; ``attacks`` those of the table of attacks.
        tokenizer: SHA-256 of the tokenizer's files: prompts that attacks found are for models that read alike.
        seed: of erasures and images.
        shows: by id of an unrelated prompt, the names of the concepts that it shows, where it shows any that are known.
        suite_scale: what a suite's run has in common with its paper, in words; "" of a run of no suite.
        protocol: how it measured; None in a record of a version that did not keep it.
        files: SHA-256 of the other files of the run folder that hold results, by name; whoever reads one of them knows
            whether it is of this run.
    """

    erasebench: str
    model: str
    domain: str
    baseline: str
    metrics: dict[str, Description]
    rows: tuple[RowRecord, ...]
    attacks: tuple[AttackRecord, ...] = ()
    tokenizer: str = ""
    seed: int = 0
    shows: dict[str, tuple[str, ...]] = {}
    suite_scale: str = ""
    protocol: Protocol | None = None
    files: dict[str, str] = {}

    @property
    def cells(self) -> frozenset[str]:
        """The keys of all cells that it names; what only looks like a key may be among them."""
        return frozenset(re.findall('"([0-9a-f]{64})"', self.to_json()))

    def to_json(self) -> str:
        """The text of ``plan.json``."""
        return self.model_dump_json(indent=1) + "\n"


def read_record(folder: Path) -> Record:
    """The record in a run folder.

    Raises:
        EraseBenchError: there is none, or it is damaged or of another version of erasebench.
    """
    path = folder / RECORD
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        advice = ""
        if (folder / TABLE).exists():
            advice = (
                "; an older erasebench wrote its table, or it was cut short: the same `erasebench run` again writes it"
            )
        elif (folder / LEDGER).exists():
            advice = "; the run has begun, and the same `erasebench run` again goes on from there"
        raise EraseBenchError(
            f"{folder} is no folder of a finished run: cannot read {path}: {error.strerror}{advice}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EraseBenchError(f"{path} cannot be read{_written_by(path)}: {where}: {first['msg']}") from None


def _written_by(path: Path) -> str:
    """The version that wrote a record that cannot be read, for an error; "" if it is this one or is not stated."""
    try:
        version = json.loads(path.read_bytes()).get("erasebench", __version__)
    except (ValueError, AttributeError, RecursionError):
        return ""
    if version == __version__:
        return ""
    return f", erasebench {version} wrote it and this is {__version__}; the same `erasebench run` again writes it anew"


def record_plan(plan: Plan, failed: Mapping[str, str], unneeded: Container[str] = ()) -> Record:
    """The record of a plan that was run.

    Args:
        plan: what was run.
        failed: why a cell has no result: key -> reason.
        unneeded: keys of the cells that were not computed since others had said all.
    """
    rows = tuple(_record_row(plan, row, failed) for row in plan.rows)
    return Record(
        erasebench=__version__,
        model=plan.source.name,
        domain=plan.source.domain,
        baseline=BASELINE,
        metrics={name: metric.description() for name, metric in asked_metrics(plan.config.metrics).items()},
        rows=rows,
        attacks=tuple(_record_attack(row, failed, unneeded) for row in plan.attacks),
        tokenizer=tokenizer_hash(plan.source.folder),
        seed=plan.config.seed,
        shows={prompt.id: prompt.shows for prompt in plan.retained if prompt.shows},
        protocol=protocol_of(plan),
    )


def tokenizer_hash(folder: Path) -> str:
    """SHA-256 of the files of a model's tokenizer."""
    return hash_files(folder / "tokenizer", [path for path in (folder / "tokenizer").iterdir() if path.is_file()])


def _record_attack(row: AttackRow, failed: Mapping[str, str], unneeded: Container[str]) -> AttackRecord:
    method, concept, kind = row.method, row.concept.name, row.concept.kind
    if row.reason:
        return AttackRecord(
            method=method, concept=concept, kind=kind, attack=row.attack, status="n/a", reason=row.reason
        )

    def keys(members: Mapping[str, tuple[Cell, ...]]) -> dict[str, dict[str, str]]:
        return {
            member: {cell.spec["prompt"]["id"]: cell.key for cell in cells if cell.key not in unneeded}
            for member, cells in members.items()
        }

    reasons = [failed[cell.key] for cell in row.cells if cell.key in failed]
    first = next(iter(row.members.values()))[0]
    return AttackRecord(
        method=method,
        concept=concept,
        kind=kind,
        attack=row.attack,
        status="failed" if reasons else "ok",
        reason=reasons[0] if reasons else "",
        judge=describe_judge(first.spec["judge"], first.spec["label"], first.spec["threshold"]),
        threat_model=row.threat_model,
        judged=row.judged,
        budget={member: cells[0].spec["parameters"] for member, cells in row.members.items()},
        trials=keys(row.members),
        floor=keys(row.floor),
        missing=dict(row.missing),
    )


def _record_row(plan: Plan, row: Row, failed: Mapping[str, str]) -> RowRecord:
    method, concept, kind = row.method, row.concept.name, row.concept.kind
    if row.reason:
        return RowRecord(method=method, concept=concept, kind=kind, status="n/a", reason=row.reason)
    assert row.erasure
    reasons = [failed[cell.key] for cell in (*row.cells, *plan.reference_cells) if cell.key in failed]
    probes = {name: _record_probe(probe) for name, probe in row.probes.items()}
    if plan.reference and "retain" in row.probes and row.probes["retain"].features:
        images = plan.reference.reads["images"].key if plan.reference.reads else None
        probes["reference"] = ProbeRecord(
            images=images,
            features=plan.reference.key,
            features_of=features_title(plan.reference.spec["judge"]),
            roles={role: _record_judged(judged) for role, judged in plan.reference_roles.items()},
        )
    return RowRecord(
        method=method,
        concept=concept,
        kind=kind,
        status="failed" if reasons else "ok",
        reason=reasons[0] if reasons else "",
        judge="" if reasons else describe_judges(row.probes["concept"].judged),
        erasure=row.erasure.key,
        probes=probes,
    )


def _record_probe(probe: ProbePlan) -> ProbeRecord:
    features = probe.features
    return ProbeRecord(
        images=probe.images.key,
        judged=tuple(map(_record_judged, (*probe.judged, *probe.second))),
        features=features.key if features else None,
        features_of=features_title(features.spec["judge"]) if features else "",
        roles={role: _record_judged(judged) for role, judged in probe.roles.items()},
    )


def _record_judged(judged: Judged) -> JudgedImages:
    return JudgedImages(
        judge=judged.cell.spec["judge"],
        label=judged.label,
        threshold=judged.threshold,
        cell=judged.cell.key,
        concept=judged.concept,
    )

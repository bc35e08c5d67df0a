"""The plan of an entry of the leaderboard, made from its artefacts alone: nothing in it is searched again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from erasebench.adversarial import Trial, pack_trial
from erasebench.attack_plan import AttackRow
from erasebench.concepts import Concept, Prompt, View
from erasebench.config import make_config
from erasebench.engine.cells import Cell, short_hash
from erasebench.errors import EraseBenchError
from erasebench.models.loading import ModelSource, resolve_device
from erasebench.plan import Judged, Plan, ProbePlan, Row
from erasebench.plugins import BASELINE, UNATTACKED
from erasebench.results.artefacts import GUIDANCE, WEIGHTS, Artefacts
from erasebench.results.entry import Entry
from erasebench.results.record import AttackRecord, RowRecord
from erasebench.settings import resolve_attack, resolve_method
from erasebench.stages import attack, erase, judge

if TYPE_CHECKING:
    from erasebench.verify import How

_NEIGHBOUR = "a neighbour"


class Replanner:
    """Plans an entry's row and the unerased model's as its run did, from nothing but its artefacts."""

    def __init__(self, entry: Entry, artefacts: Artefacts, source: ModelSource, how: How) -> None:
        self.entry, self.artefacts, self.source, self.how = entry, artefacts, source, how
        self.concept = Concept(entry.concept, entry.kind, entry.concept, neighbours=(_NEIGHBOUR,))
        own = artefacts.record.rows[-1]
        if (own.method, own.concept) != (entry.method, entry.concept) or own.status != "ok":
            raise EraseBenchError(f"the artefacts in {artefacts.folder} are of {own.method} {own.concept}")
        judged = own.probes["concept"].judged[0]
        if judged.threshold is None:
            raise EraseBenchError(f"the judge {judged.judge} of the entry has no threshold")
        self.view = View(judged.judge, judged.label, judged.threshold)
        self.dtype = str(entry.erasure["dtype"])
        self.sampler = artefacts.drawn.concept["sampler"]
        self.baseline = erase.cell(resolve_method(BASELINE, {}), (), source, entry.seed, self.dtype, _no_judge)

    def plan(self) -> Plan:
        """The plan of both rows and of all attacks on them, which only tries again what was found."""
        rows = [self._row(row) for row in self.artefacts.record.rows]
        return Plan(
            make_config({"seed": self.entry.seed, "max_memory": self.how.max_memory, "workers": self.how.workers}),
            self.source,
            resolve_device(self.how.device),
            self.dtype,
            self.sampler,
            tuple(rows),
            self._reference(),
            tuple(self._retained()),
            tuple(self._attack(one) for one in self.artefacts.record.attacks),
        )

    def _erasure(self, method: str) -> Cell:
        if method == BASELINE:
            return self.baseline
        if self.how.make_erasure:
            return Cell("erase", self.entry.erasure, {}, f"{method} {self.entry.concept}")
        return erasure_cell(self.entry)

    def _row(self, row: RowRecord) -> Row:
        drawn, judges, erasure = self.artefacts.drawn, self.entry.judges, self._erasure(row.method)
        images = Cell(
            "generate", drawn.concept, {"erasure": erasure}, f"{row.method} {row.concept}", *_units(drawn.concept)
        )
        others = Cell("generate", drawn.retain, {"erasure": erasure}, f"{row.method} retain", *_units(drawn.retain))
        judged = Judged(self.view.label, self.view.threshold, judge.cell(judges["concept"], images))
        clip = Judged("clip", None, judge.cell(judges["clip"], others))
        features = judge.cell(judges["features"], others) if "features" in judges else None
        probes = {
            "concept": ProbePlan(tuple(self._prompts()), images, (judged,)),
            "retain": ProbePlan(tuple(self._retained()), others, (clip,), features=features),
        }
        return Row(row.method, self.concept, None, erasure, probes)

    def _prompts(self) -> Iterator[Prompt]:
        spec, kinds = self.artefacts.drawn.concept, self._kinds("concept")
        for id, text, seed in zip(spec["ids"], spec["prompts"], spec["seeds"], strict=True):
            yield Prompt(id, text, seed, kinds.get(id, ""))

    def _retained(self) -> Iterator[Prompt]:
        """The unrelated prompts; one without a score shows the concept."""
        spec, kinds = self.artefacts.drawn.retain, self._kinds("retain")
        for id, text, seed in zip(spec["ids"], spec["prompts"], spec["seeds"], strict=True):
            shows = () if kinds.get(id) == "retain" else (_NEIGHBOUR if id in kinds else self.concept.name,)
            yield Prompt(id, text, seed, "retain", shows)

    def _kinds(self, probe: str) -> dict[str, str]:
        scores = self.artefacts.scores
        own = scores[(scores["probe"] == probe) & (scores["method"] == self.entry.method)]
        return dict(zip(own["prompt_id"], own["kind"], strict=True))

    def _reference(self) -> Cell | None:
        reference = self.artefacts.drawn.reference
        if reference is None:
            return None
        if "images" in reference:
            spec = reference["images"]
            return judge.cell(
                self.entry.judges["features"], Cell("reference", spec, {}, spec["source"], "", spec["count"], "images")
            )
        if self.how.fid_reference is None:
            raise EraseBenchError("the entry's FID is of a folder of real images: name it with --fid-reference")
        spec = {name: value for name, value in reference["features"].items() if name != "files"}
        cell = judge.folder_cell(spec, self.how.fid_reference)
        if cell.spec != reference["features"]:
            raise EraseBenchError(f"the images in {self.how.fid_reference} are not those that the entry's FID is of")
        return cell

    def _attack(self, row: AttackRecord) -> AttackRow:
        erasure = self._erasure(row.method)
        aim = attack.Aim(
            resolve_attack(UNATTACKED, {}),
            self.concept.spec(self.source.domain),
            erasure,
            self.source.fingerprint,
            self.dtype,
            self.entry.judges["concept"],
            self.view.label,
            self.view.threshold,
            None,
            self.sampler,
            self.entry.seed,
            f"{row.attack} {row.method}",
        )

        def cells(members: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[Cell, ...]]:
            return {
                member: tuple(self._again(aim, self.artefacts.trials[key][0]) for key in trials.values())
                for member, trials in members.items()
                if trials  # nothing was left for those after the one that broke the last prompt
            }

        reason = None if row.status == "ok" else row.reason or row.status
        if reason:
            return AttackRow(row.method, self.concept, row.attack, row.threat_model, row.judged, reason)
        trials, floor = cells(row.trials), cells(row.floor)
        return AttackRow(row.method, self.concept, row.attack, row.threat_model, row.judged, None, trials, floor)

    def _again(self, aim: attack.Aim, trial: Trial) -> Cell:
        """The cell that tries once more what was found: the attack that changes nothing, on what a submission holds."""
        prompt = Prompt(trial.id, trial.text, trial.seed, trial.kind)
        return attack.cell(aim, prompt, {"found": found_cell(trial)})


def _no_judge(name: str) -> dict[str, Any]:
    raise EraseBenchError(f"the unerased model asks no judge, and not '{name}'")


def _units(spec: Mapping[str, object]) -> tuple[str, int, str]:
    """Kind, number and unit of a cell of images."""
    ids = spec["ids"]
    assert isinstance(ids, list)
    return f"images {short_hash([spec['model'], spec['sampler']])}", len(ids), "images"


def erasure_cell(entry: Entry) -> Cell:
    """The cell of an erasure that was submitted, known by its content."""
    files = {name: entry.artefacts[name] for name in (WEIGHTS, GUIDANCE) if name in entry.artefacts}
    return Cell("erase", {"method": "submission", "files": files}, {}, f"submitted: {entry.method}")


def found_cell(trial: Trial) -> Cell:
    """The cell of a trial that was submitted, known by its content."""
    content, arrays = pack_trial(trial)
    hashes = {name: short_hash(array.tobytes().hex()) for name, array in arrays.items()}
    return Cell("attack", {"attack": "submission", "trial": content, "arrays": hashes}, {}, f"submitted: {trial.text}")

"""Verification of an entry of the leaderboard: its images drawn again from its artefacts, and nothing attacked.

It says that what was submitted happened: these weights, prompts, embeddings and seeds give these scores, and the scores
these numbers.  It cannot say that no stronger attack exists, and a signature is a name, not a proof: whoever keeps a
leaderboard verifies what comes in.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from erasebench import __version__
from erasebench.adversarial import Trial, pack_trial, read_trial, write_trial
from erasebench.attack_plan import AttackRow
from erasebench.concepts import Concept, Prompt, View, load_catalogue
from erasebench.config import make_config, parse_method
from erasebench.domains import DOMAINS
from erasebench.engine.cells import Cell, short_hash
from erasebench.engine.local import LocalRunner
from erasebench.engine.progress import Progress
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError, one_line
from erasebench.files import hash_file
from erasebench.images import ARCHIVE
from erasebench.metrics.stats import Estimate
from erasebench.models.loading import ModelSource, find_model, resolve_device
from erasebench.plan import Plan, Row
from erasebench.plugins import BASELINE, UNATTACKED
from erasebench.registry import ATTACKS, load_file
from erasebench.results.attacks import collect_attacks
from erasebench.results.entry import (
    GUIDANCE,
    WEIGHTS,
    Artefacts,
    Entry,
    Verified,
    artefact_folder,
    changed_artefacts,
    read_artefacts,
    read_entry,
    recompute,
    rows_by_attack,
    write_entry,
)
from erasebench.results.leaderboard import run_key
from erasebench.results.measure import measure
from erasebench.results.protocol import attack_facts, checksum_of_attack, protocol_of
from erasebench.results.record import RECORD, AttackRecord, Record, RowRecord, record_plan
from erasebench.results.rows import TableRow
from erasebench.results.scores import SCORES, collect_scores, unrelated_prompts
from erasebench.runs import count_workers
from erasebench.settings import resolve_attack, resolve_method, split_seed
from erasebench.stages import attack, erase, judge
from erasebench.stages.judge import judge_spec, make_judge
from erasebench.stages.session import Session

TOLERANCE = 0.02
"""By how much a judge's score in [0, 1] may differ: rounding of another kind of processor moves it by a thousandth."""
CLIP_SCALE = 100.0
"""CLIP scores of unrelated prompts are a hundred times as large, and so is what they may differ by."""
FLIPS = 0.02
"""The share of images that may fall to the other side of their threshold; one may in any case."""
SHARE = 0.05
"""Of its value, by how much a number may differ that is not of scores alone, such as FID."""
SPENT = ("looks", "passes")
"""Metrics of what a search took, which is not searched again."""
_NEIGHBOUR = "a neighbour"


@dataclass(frozen=True)
class Verification:
    """What came of verifying an entry.

    Attributes:
        entry: as it was read.
        differences: what is not as it says, one line each; none if it is verified.
        notes: what was compared, and how near it came.
    """

    entry: Entry
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the entry is what its artefacts give."""
        return not self.differences

    def text(self) -> str:
        """The verdict, and what it rests on."""
        entry = self.entry
        title = f"{entry.method}, {entry.concept}, {entry.model}"
        verdict = f"verified: {title}" if self.verified else f"not verified: {title}"
        return "\n".join([verdict, *(f"  {line}" for line in (*self.differences, *self.notes))])


@dataclass(frozen=True)
class How:
    """How an entry is verified.

    Attributes:
        store: where images and scores go; the same again goes on from there.
        artefacts: where the artefacts are; beside the entry if None.
        tolerance: by how much a judge's score in [0, 1] may differ; a CLIP score by a hundred times that.
        make_erasure: make the erasure anew instead of reading it.
        model: a folder with the entry's model, or its name here; the entry's own if None.
        fid_reference: the folder of real images, where FID was of one.
        device: where to draw.
        batch_size: images at a time.
        workers: processes; as in a run if None.
        plugins: files with the entry's own judges or methods.
        concept_files: files that say which unrelated prompts show the entry's own concept.
    """

    store: Path
    artefacts: Path | None = None
    tolerance: float = TOLERANCE
    make_erasure: bool = False
    model: str | None = None
    fid_reference: Path | None = None
    device: str = "auto"
    batch_size: int = 16
    workers: int | None = None
    plugins: tuple[Path, ...] = ()
    concept_files: tuple[Path, ...] = ()


def verify(path: Path, how: How, sign: str = "", stream: TextIO | None = None) -> Verification:
    """Verify an entry: its files, then its numbers out of its scores, then its scores out of its images, drawn again.

    Args:
        path: the entry's file.
        how: with what.
        sign: who verifies it; written into the entry if it is verified.
        stream: where progress goes; standard error if omitted.

    Raises:
        EraseBenchError: a file is missing or damaged, or this machine has not what the entry was measured with.
    """
    for plugin in how.plugins:
        load_file(plugin)
    entry = read_entry(path)
    folder = how.artefacts or artefact_folder(path)
    made_anew = frozenset({WEIGHTS, GUIDANCE} if how.make_erasure else ())
    changed = changed_artefacts(entry, folder, made_anew)
    if changed:
        return Verification(entry, tuple(changed))
    artefacts = read_artefacts(folder)
    source = _source(entry, how)
    try:
        rows = recompute(artefacts)
        plan = _Replanner(entry, artefacts, source, how).plan()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EraseBenchError(f"{path} and its artefacts do not fit together: {one_line(error)}") from error
    wrong = [
        *_misstated(entry, plan),
        *_misdescribed(entry, artefacts.record, plan),
        *_attacked_otherwise(entry, artefacts, plan),
        *_left_out(entry, artefacts, plan, how),
        *_untried(artefacts, plan),
        *_unlike(entry, rows, artefacts.record.metrics),
    ]
    if wrong:
        return Verification(entry, tuple(wrong))
    _check_judges(entry, plan)
    found = _draw(entry, artefacts, plan, rows, how, stream)
    if found.verified and sign:
        by = Verified(name=sign, erasebench=__version__, tolerance=how.tolerance, content=entry.content)
        write_entry(path, entry.model_copy(update={"verified_by": by}))
    return found


def _source(entry: Entry, how: How) -> ModelSource:
    """The entry's model.

    Raises:
        EraseBenchError: the one that is here is another.
    """
    source = replace(find_model(how.model or entry.model), name=entry.model)
    expected = entry.protocol.get("model fingerprint")
    if source.fingerprint != expected:
        raise EraseBenchError(
            f"the model {how.model or entry.model} is not the entry's: its fingerprint is {source.fingerprint}, not "
            f"{expected}; name the entry's with --model"
        )
    return source


class _Replanner:
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
        rows = [self._row(row) for row in self.artefacts.record.rows]
        return Plan(
            make_config({"seed": self.entry.seed}),
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
        return Row(
            row.method,
            self.concept,
            self.view,
            tuple(self._prompts(row)),
            None,
            images,
            judge.cell(judges["concept"], images),
            others,
            judge.cell(judges["clip"], others),
            judge.cell(judges["features"], others) if "features" in judges else None,
        )

    def _prompts(self, row: RowRecord) -> Iterator[Prompt]:
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
        found = self.artefacts.drawn.reference
        if found is None:
            return None
        if "images" in found:
            spec = found["images"]
            return judge.cell(
                self.entry.judges["features"], Cell("reference", spec, {}, spec["source"], "", spec["count"], "images")
            )
        if self.how.fid_reference is None:
            raise EraseBenchError("the entry's FID is of a folder of real images: name it with --fid-reference")
        spec = {name: value for name, value in found["features"].items() if name != "files"}
        cell = judge.folder_cell(spec, self.how.fid_reference)
        if cell.spec != found["features"]:
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


def _misstated(entry: Entry, plan: Plan) -> list[str]:
    """In what an entry's protocol is not that of its artefacts."""
    protocol = protocol_of(plan)
    facts = protocol.of(entry.concept)
    names = dict.fromkeys((*facts, *entry.protocol))
    wrong = [
        f"protocol, {name}: the entry says {entry.protocol.get(name)}, its artefacts {facts.get(name)}"
        for name in names
        if facts.get(name) != entry.protocol.get(name)
    ]
    checksum = protocol.checksum(entry.concept)
    if entry.domain != facts["domain"]:
        wrong.append(f"domain: the entry says {entry.domain}, its artefacts {facts['domain']}")
    if not wrong and entry.checksum != checksum:
        wrong.append(f"checksum: the entry says {entry.checksum}, that of its protocol is {checksum}")
    return wrong


def _misdescribed(entry: Entry, record: Record, plan: Plan) -> list[str]:
    """What an entry says of itself for readers, and its artefacts do not."""
    row = record.rows[-1]
    attacks = [one for one in record.attacks if one.method == entry.method]
    name, options = parse_method(split_seed(entry.method)[0])
    told = entry.erasure.get("parameters", {})
    pairs: dict[str, tuple[object, object]] = {
        "kind": (entry.kind, row.kind),
        "judge": (entry.judge, record_plan(plan, {}).rows[-1].judge),
        "seed": (entry.seed, record.seed),
        "run": (entry.run, run_key(row, attacks)),
        "erasure, method": (entry.erasure["method"], name),
        **{f"erasure, {key}": (told.get(key), value) for key, value in options.items()},
    }
    known = {one.attack: one for one in attacks}
    for said in entry.attacks:
        if said.attack in known:
            for field in ("threat_model", "status", "reason", "budget"):
                pairs[f"attack {said.attack}, {field}"] = getattr(said, field), getattr(known[said.attack], field)
    for one in attacks:
        # An attack whose plug-in is not here is as its artefacts say.
        if one.status == "ok" and parse_method(one.attack)[0] in ATTACKS.names():
            made = resolve_attack(one.attack, {}).made
            pairs[f"{RECORD}, attack {one.attack}"] = (one.threat_model, one.judged), (made.threat_model, made.judged)
    return [
        f"{at}: the entry says {said}, its artefacts {found}" for at, (said, found) in pairs.items() if said != found
    ]


def _attacked_otherwise(entry: Entry, artefacts: Artefacts, plan: Plan) -> list[str]:
    """In what entries of attacks say another prompt, judge or budget than was tried; versions are the record's word."""
    wrong = []
    protocol = artefacts.record.protocol
    said = {one.attack: one for one in entry.attacks}
    for row, known in zip(plan.attacks, artefacts.record.attacks, strict=True):
        own = said.get(row.attack)
        if row.method != entry.method or row.reason or own is None or not (own.protocol or own.checksum):
            continue  # who says nothing of how he attacked is not ranked
        first = next(iter(row.members.values()))
        prompts = [Prompt(**cell.spec["prompt"]) for cell in first]
        facts = protocol.of_attack(entry.concept, row.attack) if protocol else {}
        facts = facts | attack_facts(prompts, entry.judge, known.threat_model, known.budget)
        at = f"attack {row.attack}"
        differ = [name for name in dict.fromkeys((*facts, *own.protocol)) if facts.get(name) != own.protocol.get(name)]
        wrong += [f"{at}, {n}: the entry says {own.protocol.get(n)}, its artefacts {facts.get(n)}" for n in differ]
        if not differ and own.checksum != checksum_of_attack(facts):
            wrong.append(f"{at}, checksum: the entry says {own.checksum}, that of its protocol is another")
    return wrong


def _left_out(entry: Entry, artefacts: Artefacts, plan: Plan, how: How) -> list[str]:
    """Which unrelated prompts have no score though nothing says that they show the concept.

    Prompts of a file of the user's show nothing that is known: all of them are scored.
    """
    catalogue, drawn, scores = load_catalogue(how.concept_files), artefacts.drawn.retain, artefacts.scores
    shows = {one.prompt: one.shows for one in catalogue.retain(plan.source.domain)}
    known = catalogue.get(entry.concept) if entry.concept in catalogue.names() else None
    concept = Concept(entry.concept, entry.kind, entry.concept, neighbours=known.neighbours if known else ())
    asked = [
        Prompt(id, text, seed, "retain", shows.get(text, ()))
        for id, text, seed in zip(drawn["ids"], drawn["prompts"], drawn["seeds"], strict=True)
    ]
    allowed = [
        {(one.id, one.seed): one.kind for one in unrelated_prompts(concept, asked)},
        {(one.id, one.seed): one.kind for one in asked},
    ]
    wrong = []
    for method, own in scores[scores["probe"] == "retain"].groupby("method", sort=False):
        found = dict(zip(zip(own["prompt_id"], own["seed"], strict=True), own["kind"], strict=True))
        if found not in allowed:
            expected = allowed[0]
            odd = [key for key in dict.fromkeys((*expected, *found)) if expected.get(key) != found.get(key)]
            wrong.append(
                f"unrelated prompts, {method}: {len(odd)} are left out of {SCORES}, or of another kind, without a "
                f"reason, such as '{odd[0][0]}'; if the concept is of a file of yours, name it with --concept-files"
            )
    return wrong


def _untried(artefacts: Artefacts, plan: Plan) -> list[str]:
    """Which prompts an attack should have tried, and has no trial of: the first ones, each until a member breaks it."""
    own = list(dict.fromkeys(reversed(artefacts.drawn.concept["ids"])))[::-1]
    unrelated = [prompt.id for prompt in plan.retained if plan.rows[-1].concept.name not in prompt.shows]
    wrong = []
    for row in artefacts.record.attacks:
        if row.status != "ok":
            continue
        for what, members, asked in (("prompts", row.trials, own), ("unrelated prompts", row.floor, unrelated)):
            tried = list(members.get(next(iter(row.budget)), {}))
            at = f"attack {row.attack} on {row.method}"
            if tried != asked[: len(tried)] or (what == "prompts" and not tried):
                wrong.append(f"{at}: its {what} are not the first {len(tried)} of those that were drawn")
            broken: set[str] = set()
            for member in row.budget if members else ():
                trials = {prompt: artefacts.trials[key][0] for prompt, key in members.get(member, {}).items()}
                wrong += [
                    f"{at}: the trial of '{prompt}' is of '{one.id}'"
                    for prompt, one in trials.items()
                    if prompt != one.id
                ]
                wrong += [
                    f"{at}: {member} did not try '{prompt}', which still stood"
                    for prompt in tried
                    if prompt not in trials and prompt not in broken
                ]
                broken |= {prompt for prompt, one in trials.items() if one.confirmed}
    thresholds = {one.threshold for one, _ in artefacts.trials.values()} - {plan.rows[-1].view.threshold}
    if thresholds:
        wrong.append(f"trials: their threshold is {thresholds.pop():g}, the judge's {plan.rows[-1].view.threshold:g}")
    return wrong


def _check_judges(entry: Entry, plan: Plan) -> None:
    """Raise unless this machine judges, and renders reference images, as the entry says."""
    for role, spec in entry.judges.items():
        here = judge_spec(spec["judge"], spec["label"], make_judge(spec["judge"], spec["label"], entry.domain))
        if here != spec:
            differ = next(name for name in dict.fromkeys((*here, *spec)) if here.get(name) != spec.get(name))
            raise EraseBenchError(
                f"the judge {spec['judge']} ({role}) is not the entry's: its {differ} is {here.get(differ)}, not "
                f"{spec.get(differ)}"
            )
    images = plan.reference.reads.get("images") if plan.reference else None
    world = DOMAINS[entry.domain].world
    if images and (world is None or images.spec["world"] != world.version()):
        raise EraseBenchError("the reference images here are not the entry's: another version renders them")


def _unlike(entry: Entry, rows: Mapping[str, TableRow], known: Container[str]) -> list[str]:
    """What numbers and flags of an entry its scores and trials do not give.

    Args:
        entry: whose.
        rows: made of its scores and trials, by attack; a number that these lack cannot be told from scores.
        known: the metrics of the entry's run; another package's may be here that was not there.
    """
    wrong = []
    said = {"": (entry.metrics, entry.flags)} | {one.attack: (one.metrics, one.flags) for one in entry.attacks}
    for name in dict.fromkeys((*said, *rows)):
        at = f"@{name}" if name else ""
        if name not in said or name not in rows:
            wrong.append(f"attack {name}: it is only in {'the entry' if name in said else 'its artefacts'}")
            continue
        metrics, flags = said[name]
        hushed = [key for key in rows[name].metrics if key in known and key not in metrics]
        if hushed:
            wrong.append(f"numbers{at}: the entry leaves out {', '.join(hushed)}")
        for key, number in metrics.items():
            found, own = rows[name].metrics.get(key), number.estimate
            if found and not all(
                _close(getattr(own, end), getattr(found, end)) for end in ("value", "low", "high", "n")
            ):
                wrong.append(f"{key}{at}: the entry says {_show(own)}, its scores give {_show(found)}")
        hidden = [flag for flag in rows[name].flags if flag not in flags]
        if hidden:
            wrong.append(f"flags{at}: the entry leaves out {', '.join(hidden)}")
    return wrong


def _close(one: float, other: float) -> bool:
    """Whether two numbers are the same but for the six digits of a table."""
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9)


def _near(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=SHARE, abs_tol=1e-9)


def _show(number: Estimate) -> str:
    return f"{number.value:.6g} [{number.low:.6g}, {number.high:.6g}], n = {number.n}"


def _draw(
    entry: Entry, artefacts: Artefacts, plan: Plan, rows: Mapping[str, TableRow], how: How, stream: TextIO | None
) -> Verification:
    """Draw and judge everything again, and compare; ``rows`` is what the submitted scores give, by attack."""
    store = Store(how.store)
    _submit(entry, artefacts, store)
    workers = how.workers or count_workers(plan.device, plan.source.folder)
    session = Session(
        plan.source, plan.device, plan.dtype, store, how.batch_size, False, how.fid_reference, how.plugins
    )
    missing = [cell for cell in plan.cells if store.marker(cell.key) is None]
    with Progress(missing, stream, workers) as progress:
        outcome = LocalRunner(session, workers).run(plan.cells, store, [progress])
    if outcome.failed:
        return Verification(entry, tuple(f"cannot be drawn: {why}" for why in dict.fromkeys(outcome.failed.values())))
    record = record_plan(plan, outcome.failed)
    scores = collect_scores(plan, record, store)
    attacks = collect_attacks(record, scores, store)
    compared = Compared(how.tolerance)
    compared.scores(artefacts.scores, scores)
    compared.trials(artefacts, record.attacks, store)
    drawn = rows_by_attack(measure(record, scores, store, attacks), record)
    compared.numbers(entry, rows, drawn)
    compared.flags(entry, rows[""], drawn[""], artefacts.record.metrics)
    compared.images(entry, plan, store)
    images = plan.rows[-1].images
    assert images
    compared.erasure(entry, how, store.read(images.reads["erasure"].key))
    return Verification(entry, tuple(compared.differences), tuple(compared.notes))


def _submit(entry: Entry, artefacts: Artefacts, store: Store) -> None:
    """Put what was submitted into the store, as cells that were computed elsewhere."""
    given: dict[Cell, Callable[[Path], object]] = {
        found_cell(trial): partial(write_trial, trial=trial) for trial, _ in artefacts.trials.values()
    }
    erasure = erasure_cell(entry)
    given[erasure] = partial(_copy, artefacts.folder, erasure.spec["files"])
    for cell, write in given.items():
        with store.lock(cell.key):
            if store.check(cell.key) is not None:
                with store.writing(cell, {"seconds": 0.0}) as folder:
                    write(folder)


def _copy(source: Path, names: Iterable[str], folder: Path) -> None:
    for name in names:
        if (source / name).exists():  # one that is made anew is never read
            shutil.copyfile(source / name, folder / name)


class Compared:
    """What is not as an entry says, and how near the rest is."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.differences: list[str] = []
        self.notes: list[str] = []

    def scores(self, said: pd.DataFrame, found: pd.DataFrame) -> None:
        """Compare the scores of all images."""
        key = ["method", "concept", "probe", "prompt_id", "kind", "seed", "judge", "label", "threshold"]
        said, found = (frame.astype({"seed": str}) for frame in (said, found))
        both = said.merge(found, on=key, how="outer", suffixes=("", "_found"), indicator=True)
        alone = both[both["_merge"] != "both"]
        if len(alone):
            where = "only submitted" if alone["_merge"].iloc[0] == "left_only" else "not submitted"
            self.differences.append(f"{len(alone)} scores are {where}, such as of '{alone['prompt_id'].iloc[0]}'")
        both = both[both["_merge"] == "both"]
        scale = both["probe"].eq("retain").map({True: CLIP_SCALE, False: 1.0})
        self._compare("images", both["score"], both["score_found"], both["prompt_id"], both["threshold"], scale)

    def trials(self, artefacts: Artefacts, attacks: tuple[AttackRecord, ...], store: Store) -> None:
        """Compare the scores of all that was found: of each first image, and of the fresh ones where both have them."""
        rows = {}
        for said, found in zip(artefacts.record.attacks, attacks, strict=True):
            for old, new in ((said.trials, found.trials), (said.floor, found.floor)):
                for member, keys in old.items():
                    for prompt, key in keys.items():
                        rows[key] = artefacts.trials[key][0], read_trial(store.read(new[member][prompt]))
        pairs = []
        for one, other in rows.values():
            pairs.append((one.id, one.threshold, one.score, other.score))
            both = zip(one.confirmations, other.confirmations, strict=False)
            pairs += [(one.id, one.threshold, *scores) for scores in both]
        if pairs:
            frame = pd.DataFrame(pairs, columns=["id", "threshold", "said", "found"])
            self._compare("images of attacks", frame["said"], frame["found"], frame["id"], frame["threshold"])

    def _compare(
        self,
        what: str,
        said: pd.Series,
        found: pd.Series,
        ids: pd.Series,
        threshold: pd.Series,
        scale: pd.Series | float = 1.0,
    ) -> None:
        """Compare scores; ``scale`` is how large they are beside a judge's in [0, 1]."""
        apart = (said - found).abs() / scale
        far = apart > self.tolerance
        if far.any():
            worst = apart.idxmax()
            self.differences.append(
                f"{far.sum()} of {len(apart)} scores of {what} differ by more than {self.tolerance:g}, by "
                f"{apart[worst]:.3g} at most: of '{ids[worst]}' the entry says {said[worst]:.4g}, drawn again it is "
                f"{found[worst]:.4g}"
            )
        flipped = ((said >= threshold) != (found >= threshold)) & threshold.notna()
        if flipped.sum() > max(1, int(FLIPS * threshold.notna().sum())):
            first = flipped.idxmax()
            self.differences.append(
                f"{flipped.sum()} of {threshold.notna().sum()} scores of {what} fall to the other side of their "
                f"threshold: of '{ids[first]}' the entry says {said[first]:.4g}, drawn again it is {found[first]:.4g}"
            )
        over = f"; {flipped.sum()} fell to the other side of their threshold" if flipped.any() else ""
        of_clip = " (CLIP scores over 100)" if isinstance(scale, pd.Series) else ""
        most = apart.max() if len(apart) else 0.0
        self.notes.append(f"{len(apart)} scores of {what} differ by {most:.2g} at most{of_clip}{over}")

    def numbers(self, entry: Entry, given: Mapping[str, TableRow], drawn: Mapping[str, TableRow]) -> None:
        """Compare what is measured.

        Numbers that follow from scores are as near as these are; those of the search itself cannot be had again.
        """
        for key, number in entry.numbers.items():
            metric, _, attack = key.partition("@")
            if metric in SPENT:
                continue
            own, found = number.estimate, drawn[attack].metrics.get(metric) if attack in drawn else None
            if found is None:
                self.differences.append(f"{key}: nothing here measures it; name the file of its metric with --plugins")
            elif metric not in given[attack].metrics and (own.n != found.n or not _near(own.value, found.value)):
                self.differences.append(f"{key}: the entry says {_show(own)}, drawn again it is {_show(found)}")
            elif not _close(own.value, found.value):
                self.notes.append(f"{key}: {own.value:.6g}, drawn again {found.value:.6g}")

    def images(self, entry: Entry, plan: Plan, store: Store) -> None:
        """Say how many of the images came out the same to the last bit."""
        row = plan.rows[-1]
        cells = {"concept": row.images, "retain": row.retain}
        same = [n for n, cell in cells.items() if cell and hash_file(store.read(cell.key) / ARCHIVE) == entry.images[n]]
        self.notes.append(f"images the same to the last bit: {', '.join(same) or 'none'}")

    def flags(self, entry: Entry, given: TableRow, drawn: TableRow, known: Container[str]) -> None:
        """Find what is left out of an entry, and only images tell: numbers such as FID, and flags that follow."""
        hushed = [key for key in drawn.metrics if key in known and key not in entry.metrics]
        if hushed:
            self.differences.append(f"numbers: the entry leaves out {', '.join(hushed)}")
        hidden = [flag for flag in drawn.flags if flag not in given.flags and flag not in entry.flags]
        if hidden:
            self.differences.append(f"flags: the entry leaves out {', '.join(hidden)}")

    def erasure(self, entry: Entry, how: How, folder: Path) -> None:
        """Count what the erasure replaces, and say what nothing here can tell."""
        from erasebench.models.erasure import Erasure

        said, found = entry.cost.parameters_changed, Erasure.load(folder).parameters_changed
        if said is not None and said != found:
            self.differences.append(f"parameters_changed: the entry says {said}, its erasure replaces {found}")
        made = [] if how.make_erasure else ["with which hyper-parameters the erasure was made"]
        self.notes.append(
            f"not verified: {', '.join([*made, 'what searches may and did spend', 'seconds', 'peak memory'])}"
        )

"""The claims of an entry of the leaderboard, against its own artefacts and this machine: nothing is drawn for it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from erasebench.concepts import Concept, Prompt, load_catalogue
from erasebench.config import parse_method
from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import Estimate
from erasebench.plan import Plan
from erasebench.registry import ATTACKS
from erasebench.results.artefacts import Artefacts
from erasebench.results.entry import Entry
from erasebench.results.leaderboard import run_key
from erasebench.results.protocol import attack_facts, checksum_of_attack, protocol_of
from erasebench.results.record import RECORD, Record, record_plan
from erasebench.results.rows import TableRow
from erasebench.results.scores import SCORES, unrelated_prompts
from erasebench.settings import resolve_attack, split_seed
from erasebench.stages.judge import judge_spec, make_judge


def misstated(entry: Entry, plan: Plan) -> list[str]:
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


def misdescribed(entry: Entry, record: Record, plan: Plan) -> list[str]:
    """The statements of an entry about itself, for readers, that its artefacts do not make."""
    row = record.rows[-1]
    attacks = [one for one in record.attacks if one.method == entry.method]
    name, options = parse_method(split_seed(entry.method)[0])
    parameters = entry.erasure.get("parameters", {})
    pairs: dict[str, tuple[object, object]] = {
        "kind": (entry.kind, row.kind),
        "judge": (entry.judge, record_plan(plan, {}).rows[-1].judge),
        "seed": (entry.seed, record.seed),
        "run": (entry.run, run_key(row, attacks)),
        "erasure, method": (entry.erasure["method"], name),
        **{f"erasure, {key}": (parameters.get(key), value) for key, value in options.items()},
    }
    known = {one.attack: one for one in attacks}
    for claim in entry.attacks:
        if claim.attack in known:
            for field in ("threat_model", "status", "reason", "budget"):
                pairs[f"attack {claim.attack}, {field}"] = getattr(claim, field), getattr(known[claim.attack], field)
    for one in attacks:
        # An attack whose plug-in is not here is as its artefacts say.
        if one.status == "ok" and parse_method(one.attack)[0] in ATTACKS.names():
            instance = resolve_attack(one.attack, {}).instance
            pairs[f"{RECORD}, attack {one.attack}"] = (
                (one.threat_model, one.judged),
                (instance.threat_model, instance.judged),
            )
    return [
        f"{at}: the entry says {claim}, its artefacts {found}" for at, (claim, found) in pairs.items() if claim != found
    ]


def attacked_otherwise(entry: Entry, artefacts: Artefacts, plan: Plan) -> list[str]:
    """In what entries of attacks say another prompt, judge or budget than was tried; versions are the record's word."""
    wrong = []
    protocol = artefacts.record.protocol
    by_attack = {one.attack: one for one in entry.attacks}
    for row, known in zip(plan.attacks, artefacts.record.attacks, strict=True):
        own = by_attack.get(row.attack)
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


def find_omissions(entry: Entry, artefacts: Artefacts, plan: Plan, concept_files: Sequence[Path]) -> list[str]:
    """The unrelated prompts that have no score though nothing says that they show the concept.

    Prompts of a file of the user's show nothing that is known: all of them are scored.
    """
    catalogue, drawn, scores = load_catalogue(concept_files), artefacts.drawn.retain, artefacts.scores
    shows = {one.prompt: one.shows for one in catalogue.retain(plan.source.domain)}
    known = catalogue.get(entry.concept) if entry.concept in catalogue.names() else None
    concept = Concept(entry.concept, entry.kind, entry.concept, neighbours=known.neighbours if known else ())
    prompts = [
        Prompt(id, text, seed, "retain", shows.get(text, ()))
        for id, text, seed in zip(drawn["ids"], drawn["prompts"], drawn["seeds"], strict=True)
    ]
    allowed = [
        {(one.id, one.seed): one.kind for one in unrelated_prompts(concept, prompts)},
        {(one.id, one.seed): one.kind for one in prompts},
    ]
    wrong = []
    for method, own in scores[scores["probe"] == "retain"].groupby("method", sort=False):
        kinds = dict(zip(zip(own["prompt_id"], own["seed"], strict=True), own["kind"], strict=True))
        if kinds not in allowed:
            expected = allowed[0]
            odd = [key for key in dict.fromkeys((*expected, *kinds)) if expected.get(key) != kinds.get(key)]
            wrong.append(
                f"unrelated prompts, {method}: {len(odd)} are left out of {SCORES}, or of another kind, without a "
                f"reason, such as '{odd[0][0]}'; if the concept is of a file of yours, name it with --concept-files"
            )
    return wrong


def untried(artefacts: Artefacts, plan: Plan) -> list[str]:
    """The prompts an attack should have tried, and has no trial of: the first ones, each until a member breaks it."""
    own = list(dict.fromkeys(reversed(artefacts.drawn.concept["ids"])))[::-1]
    unrelated = [prompt.id for prompt in plan.retained if plan.rows[-1].concept.name not in prompt.shows]
    wrong = []
    for row in artefacts.record.attacks:
        if row.status != "ok":
            continue
        for what, members, expected in (("prompts", row.trials, own), ("unrelated prompts", row.floor, unrelated)):
            tried = list(members.get(next(iter(row.budget)), {}))
            at = f"attack {row.attack} on {row.method}"
            if tried != expected[: len(tried)] or (what == "prompts" and not tried):
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
    threshold = plan.rows[-1].probes["concept"].judged[0].threshold
    thresholds = {one.threshold for one, _ in artefacts.trials.values()} - {threshold}
    if thresholds:
        wrong.append(f"trials: their threshold is {thresholds.pop():g}, the judge's {threshold:g}")
    return wrong


def check_judges(entry: Entry, plan: Plan) -> None:
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


def unlike(entry: Entry, rows: Mapping[str, TableRow], known: Container[str]) -> list[str]:
    """The numbers and flags of an entry that its scores and trials do not give.

    Args:
        entry: whose.
        rows: made of its scores and trials, by attack; a number that these lack cannot be told from scores.
        known: the metrics of the entry's run; another package's may be here that was not there.
    """
    wrong = []
    claims = {"": (entry.metrics, entry.flags)} | {one.attack: (one.metrics, one.flags) for one in entry.attacks}
    for name in dict.fromkeys((*claims, *rows)):
        at = f"@{name}" if name else ""
        if name not in claims or name not in rows:
            wrong.append(f"attack {name}: it is only in {'the entry' if name in claims else 'its artefacts'}")
            continue
        metrics, flags = claims[name]
        hushed = [key for key in rows[name].metrics if key in known and key not in metrics]
        if hushed:
            wrong.append(f"numbers{at}: the entry leaves out {', '.join(hushed)}")
        for key, number in metrics.items():
            measured, claimed = rows[name].metrics.get(key), number.estimate
            if measured and not all(
                is_close(getattr(claimed, end), getattr(measured, end)) for end in ("value", "low", "high", "n")
            ):
                wrong.append(f"{key}{at}: the entry says {show(claimed)}, its scores give {show(measured)}")
        hidden = [flag for flag in rows[name].flags if flag not in flags]
        if hidden:
            wrong.append(f"flags{at}: the entry leaves out {', '.join(hidden)}")
    return wrong


def is_close(one: float, other: float) -> bool:
    """True if two numbers are the same but for the six digits of a table."""
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9)


def show(number: Estimate) -> str:
    """A number with its interval, in six digits."""
    return f"{number.value:.6g} [{number.low:.6g}, {number.high:.6g}], n = {number.n}"

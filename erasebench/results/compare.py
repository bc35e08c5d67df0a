"""Two runs compared, prompt by prompt: whether a method got worse, for people and for continuous integration.

Both runs drew the same prompts with the same judges, so that every difference is one of pairs.  What is compared with
what, and what that says, is told in docs/gate.md.  Which rows belong together is decided in
:mod:`erasebench.results.row_pairs`, by how much they differ in :mod:`erasebench.results.paired_samples`, and what
differences say in :mod:`erasebench.results.verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from erasebench.engine.cells import short_hash
from erasebench.errors import EraseBenchError, check_name
from erasebench.metrics.metric import Description, load_metrics
from erasebench.plugins import BASELINE, UNATTACKED
from erasebench.results.paired_samples import (
    Compared,
    PairedSample,
    RunValues,
    compare_intervals,
    compare_sample,
    pool_samples,
    sample_of,
    trials_of,
)
from erasebench.results.protocol import differences
from erasebench.results.record import AttackRecord
from erasebench.results.row_pairs import RowPair, methods_of, missing_changes, pair_methods, pair_rows, row_key
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.verdicts import ALL, Change, Evidence, Margin, Verdict, evidence_of, judge, margin_of, title_of
from erasebench.settings import split_seed

FAIL_ON = ("ratio", "clip", "robust-rate")
"""The metrics that are judged unless it is said otherwise: of the concept, everything else, and attacks."""

ALL_SEEDS = " (all seeds)"
"""Stands behind a method's name where all seeds of its erasure are compared together."""

INTERVAL_METRICS = ("fid",)
"""Metrics without values of single images that are shown all the same, by their intervals."""


@dataclass(frozen=True)
class RunComparison:
    """The changes from one run to another.

    Attributes:
        metrics: what there is to say of each metric.
        changes: what is missing and what failed, then in the order of the rows, those over all concepts of a method
            before those over all seeds of each, and these before single rows.
        renamed: methods that have another name in the new run: (before, after).
        unpaired_base: rows that the new run lacks, or that failed, in words; ``unpaired_new`` likewise.
        notes: what readers have to know, such as that a library has another version.
    """

    metrics: Mapping[str, Description]
    changes: tuple[Change, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    unpaired_base: tuple[str, ...] = ()
    unpaired_new: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all: worse, inconclusive, no worse, or, where nothing is judged, that."""
        verdicts = {change.verdict for change in self.changes if change.decisive or change.verdict == "worse"}
        worst: tuple[Verdict, ...] = ("worse", "inconclusive", "no worse")
        return next((verdict for verdict in worst if verdict in verdicts), "not judged")


def compare(
    base: RunFolder,
    new: RunFolder,
    fail_on: Sequence[str] | None = None,
    margins: Mapping[str, Margin] | None = None,
    renames: Mapping[str, str] | None = None,
    allow_missing: bool = False,
) -> RunComparison:
    """Compare a run with the one before, by the rules of docs/gate.md.

    Args:
        base: what it is compared with.
        new: what may have got worse.
        fail_on: the metrics that are judged, none if empty; if omitted those of :data:`FAIL_ON` that there are.
        margins: by metric, how much worse is too little to matter; "" for all rates, scores and points.
        renames: by a method's name in the base run, its name in the new run.
        allow_missing: methods, concepts and attacks that only the base run has are listed, not inconclusive.

    Raises:
        EraseBenchError: the runs measured in different ways (all differences are listed), one does not say how it
            measured, nothing can be paired, or a name is unknown.
    """
    margins = margins or {}
    names = pair_methods(base, new, renames or {})
    pairs, lost = pair_rows(base, new, names)
    if not any(pair.erased for pair in (*pairs, *lost)):
        raise EraseBenchError(
            f"{base.folder} and {new.folder} have no row of an erased model in common; pair two methods with "
            f"--rename OLD=NEW: {', '.join(methods_of(base))} before, {', '.join(methods_of(new))} after"
        )
    _check_comparable(base, new, pairs)
    known = dict.fromkeys((*load_metrics(), *(key for pair in pairs for key in pair.new.metrics)))
    for key in (*(fail_on or ()), *filter(None, margins)):
        check_name("metric", key, known)
    tests = list(_tests(pairs, base, new, FAIL_ON if fail_on is None else fail_on, margins))
    judged = {test.change.metric for test in tests if test.judged}
    for key in fail_on or ():
        if key not in judged:
            raise EraseBenchError(f"nothing tells whether '{key}' got worse: no erased row of both runs has it")
    if fail_on is None and not judged and not any(pair.erased for pair in lost):
        raise EraseBenchError(
            f"no row of {base.folder} and {new.folder} has any of {', '.join(FAIL_ON)}: nothing would be judged; "
            "name other metrics with --fail-on, or none"
        )
    changes = judge(tests)
    before, after = ({row_key(getattr(pair, side)) for pair in (*pairs, *lost)} for side in ("old", "new"))
    judging = fail_on is None or bool(fail_on)
    missing = missing_changes(base, new, names) if judging and not allow_missing else ()
    return RunComparison(
        {**base.record.metrics, **new.record.metrics},
        (*missing, *(_lose(pair, "worse" if judging and pair.erased else "not judged") for pair in lost), *changes),
        tuple((old, to) for old, to in names.items() if old != to),
        tuple(_describe(row) for row in base.rows if row_key(row) not in before),
        tuple(_describe(row) for row in new.rows if row_key(row) not in after),
        _notes(base, new, changes),
    )


def _describe(row: TableRow) -> str:
    return title_of(*row_key(row)) + ("" if row.status == "ok" else f" ({row.status})")


def _lose(pair: RowPair, verdict: Verdict) -> Change:
    reason = " ".join((pair.new.reason or "no reason was recorded").split())
    return replace(pair.change(""), verdict=verdict, reason=f"{pair.new.status}: {reason}")


def _check_comparable(base: RunFolder, new: RunFolder, pairs: Sequence[RowPair]) -> None:
    first, second = base.record.protocol, new.record.protocol
    for run, protocol in ((base, first), (new, second)):
        if protocol is None:
            raise EraseBenchError(
                f"{run.folder} does not say how it measured, since an older erasebench wrote it: whether it can be "
                "compared is not known; run it again"
            )
    assert first and second
    concepts = list(dict.fromkeys(pair.new.concept for pair in pairs))
    # A run of attacks alone has no facts of concepts; what it measured with stands with the attacks.
    first, second = (
        one.model_copy(update={"concepts": {name: one.concepts.get(name, {}) for name in concepts}})
        for one in (first, second)
    )
    against: dict[str, list[str]] = {}
    for concept in concepts:
        for line in differences(first, second, concept):
            against.setdefault(line, []).append(concept)
    before, after = ({row_key(row): row for row in run.record.attacks} for run in (base, new))
    for pair in pairs:
        if pair.new.attack:
            for line in _attack_differences(before[row_key(pair.old)], after[row_key(pair.new)], pair, base, new):
                against.setdefault(line, []).append(pair.new.attack)
    if against:
        lines = [
            line if set(names) >= set(concepts) else f"{', '.join(dict.fromkeys(names))}: {line}"
            for line, names in against.items()
        ]
        raise EraseBenchError(
            f"{base.folder} and {new.folder} measured in different ways and cannot be compared: {'; '.join(lines)}"
        )


def _attack_differences(
    before: AttackRecord, after: AttackRecord, pair: RowPair, base: RunFolder, new: RunFolder
) -> Iterator[str]:
    """In what two attacks on a row differ, one line each."""
    facts: list[dict[str, object]] = []
    for record, row, run in ((before, pair.old, base), (after, pair.new, new)):
        trials = trials_of(run.attacks, row_key(row))
        prompts = {prompt for keys in record.trials.values() for prompt in keys}
        budget = {f"{name} of {one}": value for one, own in record.budget.items() for name, value in own.items()}
        facts.append(
            {
                **{"judge": record.judge, "threat model": record.threat_model, "attacked prompts": len(prompts)},
                "prompts": short_hash(sorted(prompts)),
                "confirmations": max(map(len, trials["confirmations"].str.split()), default=0),
                **budget,
            }
        )
    one, other = facts
    # Without a raw success nothing is confirmed.
    if not (one["confirmations"] and other["confirmations"]):
        other["confirmations"] = one["confirmations"]
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield f"{name}: {one.get(name)} and {other.get(name)}"


def _tests(
    pairs: Sequence[RowPair], base: RunFolder, new: RunFolder, fail_on: Sequence[str], margins: Mapping[str, Margin]
) -> Iterator[Evidence]:
    """Every comparison that there are values for, method by method: over all of its concepts, over all seeds of its
    erasure for each, and each row, which is not judged by itself where its erasure has several seeds."""
    described, metrics = {**base.record.metrics, **new.record.metrics}, load_metrics()
    before, after = RunValues(base), RunValues(new)
    with_ensemble = {(pair.new.method, pair.new.concept) for pair in pairs if pair.is_ensemble}
    groups: dict[tuple[str, str], list[RowPair]] = {}
    for pair in pairs:
        groups.setdefault((split_seed(pair.new.method)[0], pair.new.attack), []).append(pair)

    def is_judged(metric: str, pair: RowPair) -> bool:
        beside = pair.new.attack == UNATTACKED or (pair.new.method, pair.new.concept) in with_ensemble
        return metric in fail_on and pair.erased and not (metric == "robust-rate" and beside and not pair.is_ensemble)

    def evidence(metric: str, change: Change, compared: Compared, judged: bool) -> Evidence:
        comparison, old, to = compared
        known = described.get(metric, Description(metric))
        margin = margin_of(metric, known, margins).of(old)
        return evidence_of(replace(change, before=old, after=to, margin=margin), comparison, known, judged)

    shown = [name for name in metrics if not described.get(name, Description(name)).details]
    for (method, attack), rows in groups.items():
        whole: list[Evidence] = []
        single: list[list[Evidence]] = [[] for _ in rows]
        for metric in dict.fromkeys((*shown, *fail_on)):
            probes = metrics[metric].probes if metric in metrics else ()
            unit = described.get(metric, Description(metric)).unit
            samples_of_pairs = [(pair, sample_of(metric, unit, probes, pair, before, after)) for pair in rows]
            of_concept: dict[str, list[tuple[RowPair, PairedSample]]] = {}
            for pair, sample in samples_of_pairs:
                if sample:
                    of_concept.setdefault(pair.new.concept, []).append((pair, sample))
            samples = [one for own in of_concept.values() for one in own]
            over_all = len(of_concept) > 1 and all(is_judged(metric, pair) for pair, _ in samples)
            old_method = split_seed(rows[0].old.method)[0]
            pools = [(method, old_method, ALL, samples)] if len(of_concept) > 1 else []
            pools += [
                (method + ALL_SEEDS, old_method + ALL_SEEDS, concept, own)
                for concept, own in of_concept.items()
                if len(own) > 1
            ]
            for name, old_name, concept, own in pools:
                pooled = pool_samples(own, shared=probes == ("retain",))
                change = Change(name, old_name, concept, attack, metric, unmoved=pooled.unmoved)
                change = replace(change, decisive=concept == ALL or not over_all)
                judged = all(is_judged(metric, pair) for pair, _ in own)
                whole.append(evidence(metric, change, compare_sample(change, pooled), judged))
            for (pair, sample), changes in zip(samples_of_pairs, single, strict=True):
                change, judged = pair.change(metric), is_judged(metric, pair)
                if sample:
                    change = replace(change, decisive=not over_all, unmoved=sample.unmoved)
                    judged = judged and len(of_concept[pair.new.concept]) == 1
                    changes.append(evidence(metric, change, compare_sample(change, sample), judged))
                elif metric in (*INTERVAL_METRICS, *fail_on) and (intervals := compare_intervals(metric, pair)):
                    changes.append(evidence(metric, replace(change, paired=False), intervals, judged))
        yield from (*whole, *(one for own in single for one in own))


def _notes(base: RunFolder, new: RunFolder, changes: Iterable[Change]) -> tuple[str, ...]:
    """Explanations of differences beside the methods: versions and devices, and the unerased model if it moved."""
    before, after = (_versions(run.environment) for run in (base, new))
    notes = [
        f"{name} {before.get(name, 'missing')} before, {after.get(name, 'missing')} after"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]
    moved = [change for change in changes if change.method == BASELINE and change.moved]
    if moved:
        notes.append(
            f"the unerased model moved itself ({', '.join(dict.fromkeys(change.metric for change in moved))}): "
            "something else than the methods changed"
        )
    return tuple(notes)


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    names = ("erasebench", "python", "system", "device")
    own = {name: str(environment[name]) for name in names if name in environment}
    return own | {name: str(version) for name, version in environment.get("packages", {}).items()}

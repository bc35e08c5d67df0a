"""Two runs compared, prompt by prompt: whether a method got worse, for people and for continuous integration.

Both runs drew the same prompts with the same judges, so that every difference is one of pairs.  What is compared with
what, and what that says, is told in docs/gate.md; what is decided on differences is in
:mod:`erasebench.results.verdicts`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from erasebench.engine.cells import short_hash
from erasebench.engine.opening import store_to_read
from erasebench.errors import EraseBenchError, check_name
from erasebench.metrics.metric import Description, load_metrics
from erasebench.metrics.paired import Z_POWER, PairedComparison, Z, add_spread, compare_paired
from erasebench.metrics.stats import Estimate
from erasebench.plugins import BASELINE, UNATTACKED
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.flags import DRIFT
from erasebench.results.measure import collect, prompt_values
from erasebench.results.protocol import differences
from erasebench.results.record import AttackRecord
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.scores import split_judges
from erasebench.results.verdicts import (
    ALL,
    POINTS,
    Change,
    Evidence,
    Margin,
    Verdict,
    evidence_of,
    judge,
    margin_of,
    title_of,
)
from erasebench.settings import split_seed

FAIL_ON = ("ratio", "clip", "robust-rate")
"""What is judged unless it is said otherwise: the concept, everything else, and attacks."""

ALL_SEEDS = " (all seeds)"
"""Stands behind a method's name where all seeds of its erasure are compared together."""

SHOWN = ("fid",)
"""Metrics without values of single images that are shown all the same, by their intervals."""


@dataclass(frozen=True)
class RunComparison:
    """What changed from one run to another.

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
    names = _pair_methods(base, new, renames or {})
    pairs, lost = _pair_rows(base, new, names)
    if not any(pair.erased for pair in (*pairs, *lost)):
        raise EraseBenchError(
            f"{base.folder} and {new.folder} have no row of an erased model in common; pair two methods with "
            f"--rename OLD=NEW: {', '.join(_methods(base))} before, {', '.join(_methods(new))} after"
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
    before, after = ({_key(getattr(pair, side)) for pair in (*pairs, *lost)} for side in ("old", "new"))
    judging = fail_on is None or bool(fail_on)
    missing = _missing(base, new, names) if judging and not allow_missing else ()
    return RunComparison(
        {**base.record.metrics, **new.record.metrics},
        (*missing, *(_lose(pair, "worse" if judging and pair.erased else "not judged") for pair in lost), *changes),
        tuple((old, to) for old, to in names.items() if old != to),
        tuple(_describe(row) for row in base.rows if _key(row) not in before),
        tuple(_describe(row) for row in new.rows if _key(row) not in after),
        _notes(base, new, changes),
    )


@dataclass(frozen=True)
class _Pair:
    """A row in two runs."""

    old: TableRow
    new: TableRow

    def change(self, metric: str) -> Change:
        """What is to be said of a metric, before anything is."""
        return Change(self.new.method, self.old.method, self.new.concept, self.new.attack, metric)

    @property
    def erased(self) -> bool:
        """Whether it is another than the unerased model."""
        return BASELINE not in (self.old.method, self.new.method)

    @property
    def is_ensemble(self) -> bool:
        """Whether it is of the ensemble of attacks."""
        return bool(self.new.attack) and _plugin(self.new.attack) == ENSEMBLE


@dataclass(frozen=True)
class _Sample:
    """The values of single images in two runs, with the prompts as index."""

    before: pd.Series
    after: pd.Series
    unmoved: bool
    error: float = 0.0
    """The standard error that the difference has through the seeds of erasures, with ``freedom`` degrees of freedom."""
    freedom: int = 0


def _plugin(label: str) -> str:
    """The name without options, whatever these hold."""
    return label.partition("[")[0].strip()


def _methods(run: RunFolder) -> list[str]:
    return list(dict.fromkeys(row.method for row in run.rows))


def _pair_methods(base: RunFolder, new: RunFolder, renames: Mapping[str, str]) -> dict[str, str]:
    """By a method's name in the base run, its name in the new run; methods without a partner are left out."""
    before, after = _methods(base), _methods(new)
    for old, to in renames.items():
        check_name(f"method of {base.folder}", old, before)
        check_name(f"method of {new.folder}", to, after)
    if len(set(renames.values())) < len(renames):
        raise EraseBenchError("two methods cannot be renamed to one")
    taken = set(renames.values())
    names = {old: renames.get(old, old) for old in before if old in renames or old in {*after} - taken}
    for plugin in dict.fromkeys(_plugin(old) for old in before):
        own = [old for old in before if old not in names and _plugin(old) == plugin]
        other = [to for to in after if to not in names.values() and _plugin(to) == plugin]
        if len(own) == len(other) == 1:
            names[own[0]] = other[0]
    # Erasures of one method whose seeds differ are as many draws of it each; which is paired with which is no matter.
    for method in dict.fromkeys(split_seed(old)[0] for old in before):
        own = [old for old in before if old not in names and split_seed(old)[0] == method]
        other = [to for to in after if to not in names.values() and split_seed(to)[0] == method]
        names.update(zip(own, other, strict=False))
    return names


def _pair_rows(base: RunFolder, new: RunFolder, names: Mapping[str, str]) -> tuple[list[_Pair], list[_Pair]]:
    """The rows that both runs measured, and those that only the base run could measure."""
    rows = {_key(row): row for row in new.rows}
    found = [
        _Pair(row, rows[names[row.method], row.concept, row.attack])
        for row in base.rows
        if row.status == "ok" and (names.get(row.method), row.concept, row.attack) in rows
    ]
    pairs = [pair for pair in found if pair.new.status == "ok"]
    return pairs, [pair for pair in found if pair.new.status != "ok"]


def _missing(base: RunFolder, new: RunFolder, names: Mapping[str, str]) -> Iterator[Change]:
    """What the base run measured and the new run has not at all: whole methods, concepts and attacks, then rows."""
    there = {_key(row) for row in new.rows}
    methods, concepts, attacks = (set(own) for own in zip(*there, strict=True))
    found: dict[tuple[str, str, str], None] = {}
    for row in base.rows:
        method = names.get(row.method, row.method)
        if row.status != "ok" or BASELINE in (row.method, method) or (method, row.concept, row.attack) in there:
            continue
        if method not in methods:
            found[row.method, "", ""] = None
        elif row.concept not in concepts:
            found["", row.concept, ""] = None
        elif row.attack and row.attack not in attacks:
            found["", "", row.attack] = None
        else:
            found[_key(row)] = None
    for method, concept, attack in found:
        reason = "missing in the new run"
        yield Change(method, method, concept, attack, "", verdict="inconclusive", reason=reason, missing=True)


def _key(row: TableRow | AttackRecord) -> tuple[str, str, str]:
    return row.method, row.concept, row.attack


def _describe(row: TableRow) -> str:
    return title_of(*_key(row)) + ("" if row.status == "ok" else f" ({row.status})")


def _lose(pair: _Pair, verdict: Verdict) -> Change:
    reason = " ".join((pair.new.reason or "no reason was recorded").split())
    return replace(pair.change(""), verdict=verdict, reason=f"{pair.new.status}: {reason}")


def _check_comparable(base: RunFolder, new: RunFolder, pairs: Sequence[_Pair]) -> None:
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
    found: dict[str, list[str]] = {}
    for concept in concepts:
        for line in differences(first, second, concept):
            found.setdefault(line, []).append(concept)
    before, after = ({_key(row): row for row in run.record.attacks} for run in (base, new))
    for pair in pairs:
        if pair.new.attack:
            for line in _attack_differences(before[_key(pair.old)], after[_key(pair.new)], pair, base, new):
                found.setdefault(line, []).append(pair.new.attack)
    if found:
        lines = [
            line if set(names) >= set(concepts) else f"{', '.join(dict.fromkeys(names))}: {line}"
            for line, names in found.items()
        ]
        raise EraseBenchError(
            f"{base.folder} and {new.folder} measured in different ways and cannot be compared: {'; '.join(lines)}"
        )


def _attack_differences(
    before: AttackRecord, after: AttackRecord, pair: _Pair, base: RunFolder, new: RunFolder
) -> Iterator[str]:
    """In what two attacks on a row differ, one line each."""
    facts: list[dict[str, object]] = []
    for record, row, run in ((before, pair.old, base), (after, pair.new, new)):
        trials = _rows_of(run.attacks, _key(row))
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


def _rows_of(attacks: pd.DataFrame, key: tuple[str, str, str]) -> pd.DataFrame:
    """The trials of a row, without those of the floor."""
    method, concept, attack = key
    own = (attacks["method"] == method) & (attacks["concept"] == concept) & (attacks["attack"] == attack)
    return attacks[own & ~attacks["floor"]]


class _Values:
    """The values of single images of a run.

    Attributes:
        of: by method, concept and attack, and then by metric: one value an image, with the prompt as index.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        first, _ = split_judges(run.record, run.scores)
        self._images = dict(list(first.groupby(["method", "concept", "probe"], sort=False)))
        # Where it is not there, neither are the images, which few metrics ask for.
        store = store_to_read(run.config.store)
        self.of = prompt_values(collect(run.record, run.scores, store, run.attacks), run.record)

    def scores(self, row: TableRow, probe: str) -> pd.DataFrame:
        """What was drawn for a row, in the run's order, and what judges said of it."""
        if row.attack:
            return _rows_of(self._run.attacks, _key(row))
        return self._images.get((row.method, row.concept, probe), self._run.scores[:0])


def _sample(metric: str, unit: str, probes: Iterable[str], pair: _Pair, base: _Values, new: _Values) -> _Sample | None:
    """The values of a row's images in two runs, of prompts that have some in both; None if there are none."""
    before, after = base.of[_key(pair.old)].get(metric), new.of[_key(pair.new)].get(metric)
    if before is None or after is None:
        return None
    # Which prompts a robust rate is of depends on what the unerased model draws.
    before, after = before[before.index.isin(after.index)], after[after.index.isin(before.index)]
    if not len(before):
        return None
    unmoved = all(
        _is_unmoved(
            base.scores(pair.old, probe), new.scores(pair.new, probe), 100 * DRIFT if probe == "retain" else DRIFT
        )
        for probe in probes
        if probe != "reference"  # which the protocol says is the same
    )
    # A metric may look at the images themselves, of which the judges' scores say nothing.
    return _Sample(before, after, unmoved and _are_same(before, after, unit))


def _are_same(before: pd.Series, after: pd.Series, unit: str) -> bool:
    """Whether images have the same values but for rounding, of which the metric's scale tells how much it is."""
    if before.dtype == bool or not before.index.equals(after.index):
        return bool(before.equals(after))
    drift = DRIFT * (100 if unit in POINTS else float(before.abs().mean()))
    return bool(((after - before).abs() <= drift).all())


def _is_unmoved(before: pd.DataFrame, after: pd.DataFrame, drift: float) -> bool:
    """Whether the same prompts and seeds, which runs have in the same order, have the same scores."""
    if not len(before) or len(before) != len(after):
        return False
    same = all((before[name].to_numpy() == after[name].to_numpy()).all() for name in ("prompt_id", "seed"))
    return same and not (np.abs(before["score"].to_numpy() - after["score"].to_numpy()) > drift).any()


def _pool(samples: Sequence[tuple[_Pair, _Sample]], shared: bool) -> _Sample:
    """The images of several rows of a method together: concepts, seeds of its erasure, or both.

    Args:
        samples: of each row.
        shared: the prompts are the same for every concept, so that a prompt has an image of each.
    """
    before, after = (
        pd.concat([_under(getattr(sample, side), "" if shared else f"{pair.new.concept}/") for pair, sample in samples])
        for side in ("before", "after")
    )
    return _Sample(before, after, all(sample.unmoved for _, sample in samples), *_seed_error(samples, shared))


def _seed_error(samples: Sequence[tuple[_Pair, _Sample]], shared: bool) -> tuple[float, int]:
    """The standard error of a pooled difference through erasures, and its degrees of freedom; zeros if none has seeds.

    The differences of a concept's erasures vary by what erasures differ by, and a little by the noise of their images,
    which makes it rather too large.  The variance is taken to be that of every concept.
    """
    differences: dict[str, list[float]] = {}
    prompts: dict[str, int] = {}
    for pair, sample in samples:
        after, before = (_prompt_means(side.astype(float)) for side in (sample.after, sample.before))
        differences.setdefault(pair.new.concept, []).append(float(after.mean() - before.mean()))
        prompts[pair.new.concept] = len(after)
    counts = np.array([len(own) for own in differences.values()])
    freedom = int((counts - 1).sum())
    if not freedom:
        return 0.0, 0
    variance = sum(float(np.var(own)) * len(own) for own in differences.values()) / freedom
    # A prompt of one concept is one of all prompts; one that all share has as many images of each as it has erasures.
    weights = counts if shared else np.array(list(prompts.values()))
    return math.sqrt(variance * float((weights**2 / counts).sum())) / float(weights.sum()), freedom


def _under(values: pd.Series, prefix: str) -> pd.Series:
    return values.set_axis(prefix + values.index) if prefix else values


def _tests(
    pairs: Sequence[_Pair], base: RunFolder, new: RunFolder, fail_on: Sequence[str], margins: Mapping[str, Margin]
) -> Iterator[Evidence]:
    """Every comparison that there are values for, method by method: over all of its concepts, over all seeds of its
    erasure for each, and each row, which is not judged by itself where its erasure has several seeds."""
    described, metrics = {**base.record.metrics, **new.record.metrics}, load_metrics()
    before, after = _Values(base), _Values(new)
    with_ensemble = {(pair.new.method, pair.new.concept) for pair in pairs if pair.is_ensemble}
    groups: dict[tuple[str, str], list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault((split_seed(pair.new.method)[0], pair.new.attack), []).append(pair)

    def is_judged(metric: str, pair: _Pair) -> bool:
        beside = pair.new.attack == UNATTACKED or (pair.new.method, pair.new.concept) in with_ensemble
        return metric in fail_on and pair.erased and not (metric == "robust-rate" and beside and not pair.is_ensemble)

    def evidence(metric: str, change: Change, compared: _Compared, judged: bool) -> Evidence:
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
            found = [(pair, _sample(metric, unit, probes, pair, before, after)) for pair in rows]
            of_concept: dict[str, list[tuple[_Pair, _Sample]]] = {}
            for pair, sample in found:
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
                pooled = _pool(own, shared=probes == ("retain",))
                change = Change(name, old_name, concept, attack, metric, unmoved=pooled.unmoved)
                change = replace(change, decisive=concept == ALL or not over_all)
                judged = all(is_judged(metric, pair) for pair, _ in own)
                whole.append(evidence(metric, change, _compare_sample(change, pooled), judged))
            for (pair, sample), changes in zip(found, single, strict=True):
                change, judged = pair.change(metric), is_judged(metric, pair)
                if sample:
                    change = replace(change, decisive=not over_all, unmoved=sample.unmoved)
                    judged = judged and len(of_concept[pair.new.concept]) == 1
                    changes.append(evidence(metric, change, _compare_sample(change, sample), judged))
                elif metric in (*SHOWN, *fail_on) and (intervals := _compare_intervals(metric, pair)):
                    changes.append(evidence(metric, replace(change, paired=False), intervals, judged))
        yield from (*whole, *(one for own in single for one in own))


_Compared = tuple[PairedComparison, float, float]
"""A comparison, and the values before and after, all in the metric's unit."""


def _compare_sample(change: Change, sample: _Sample) -> _Compared:
    try:
        compared = compare_paired(sample.after, sample.before)
    except ValueError as error:
        raise EraseBenchError(f"{change.metric} of {change.row} cannot be compared: {error}") from error
    if sample.freedom:
        compared = add_spread(compared, sample.error, sample.freedom)
    scale = 100 if sample.before.dtype == bool else 1
    means = [scale * float(_prompt_means(side).mean()) for side in (sample.before, sample.after)]
    difference, detectable = compared.difference.scaled(scale), scale * compared.detectable
    return replace(compared, difference=difference, detectable=detectable), means[0], means[1]


def _prompt_means(values: pd.Series) -> pd.Series:
    return values if values.index.is_unique else values.groupby(level=0).mean()


def _compare_intervals(metric: str, pair: _Pair) -> _Compared | None:
    """Compare two estimates by their intervals, as if normal and independent; None if one has none.

    The same prompts and seeds make two runs resemble each other, so that this finds less than there is.
    """
    from scipy.stats import norm

    before, after = pair.old.metrics.get(metric), pair.new.metrics.get(metric)
    # Upper limits: FID's lower one is cut off at 0.
    reach = math.hypot(before.high - before.value, after.high - after.value) if before and after else math.nan
    if not before or not after or math.isnan(reach):
        return None
    difference, error = after.value - before.value, reach / Z
    p = float(2 * norm.sf(abs(difference) / error)) if error else float(difference == 0)
    estimate = Estimate(difference, difference - reach, difference + reach, min(before.n, after.n))
    return PairedComparison(estimate, p, "two intervals, unpaired", (Z + Z_POWER) * error), before.value, after.value


def read_renames(texts: Iterable[str]) -> dict[str, str]:
    """Names of methods as the command line has them, ``old=new``; an equals sign in brackets is the name's own.

    Raises:
        EraseBenchError: it is no such pair, or a name is given twice.
    """
    renames: dict[str, str] = {}
    for text in texts:
        parts = [part.strip() for part in re.split(r"=(?![^\[]*\])", text)]
        if len(parts) != 2 or not all(parts):
            raise EraseBenchError(f"'{text}' renames nothing; write OLD=NEW, the names of a method in the two runs")
        if parts[0] in renames:
            raise EraseBenchError(f"'{parts[0]}' is renamed twice")
        renames[parts[0]] = parts[1]
    return renames


def _notes(base: RunFolder, new: RunFolder, changes: Iterable[Change]) -> tuple[str, ...]:
    """What explains differences beside the methods: versions and devices, and the unerased model if it moved."""
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

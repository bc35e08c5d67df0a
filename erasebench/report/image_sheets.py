"""The images of runs as tables: what each method draws for the same prompts and seeds, and what attacks bring back."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any

import pandas as pd

from erasebench.engine.store import Store
from erasebench.plugins import UNATTACKED
from erasebench.report.blurring import is_blurred, sensitive_unrelated, shows_sensitive_others
from erasebench.report.thumbnails import Source, Thumbnail
from erasebench.results.record import AttackRecord
from erasebench.results.run_folder import RunFolder

UNRELATED = 6
"""Lines that are shown of each sheet of a concept but the first and the last."""


@dataclass(frozen=True)
class Verdict:
    """The verdict of a judge on an image.

    Attributes:
        judge: who; ``label`` of what.
        score: as it is.
        threshold: from which score on the label is there; None for scores without one.
    """

    judge: str
    label: str
    score: float
    threshold: float | None

    @property
    def shows(self) -> bool | None:
        """True if the label is there; None for scores without a threshold."""
        return None if self.threshold is None else self.score >= self.threshold

    def __str__(self) -> str:
        decimals = 2 if abs(self.score) < 10 else 1
        if self.threshold is None:
            return f"{self.label} {self.score:.{decimals}f}"
        # Rounded only as far as it stays on its side of the threshold.
        texts = (f"{self.score:.{n}f}" for n in range(decimals, 10))
        text = next((text for text in texts if (float(text) >= self.threshold) == self.shows), f"{self.score!r}")
        return f"{text} {'≥' if self.shows else '<'} {self.threshold:g}"


@dataclass(frozen=True)
class Column:
    """A method as a run erased with it; one that several runs share is one column.

    Attributes:
        place: among all columns of the page.
        name: the method, with its run where the method alone would not tell.
        baseline: it erases nothing.
    """

    place: int
    name: str
    baseline: bool


@dataclass
class Sample:
    """An image of the page.

    Attributes:
        column: who drew it.
        source: where it is; None where the run kept none.
        verdicts: what judges say of it, one or more.
        adversarial_prompt: what an attack found; None for images without an attack.
        outcome: what the attack came to, in words, the most important first.
        thumbnail: once it is chosen.
    """

    column: Column
    source: Source | None
    verdicts: list[Verdict]
    adversarial_prompt: str | None = None
    outcome: Sequence[str] = ()
    thumbnail: Thumbnail | None = None

    @property
    def disputed(self) -> bool:
        """True if its judges disagree."""
        return {True, False} <= {verdict.shows for verdict in self.verdicts}


@dataclass
class Line:
    """A prompt and seed, and what was drawn for it.

    Attributes:
        text: the prompt; ``kind`` its kind, ``seed`` that of the noise.
        group: lines are taken from all groups by turns.
        of: what the judge looks for, where that is not the concept of the sheet.
        samples: by heading of the sheet.
        method: who drew all of it; None where the headings are the methods.
    """

    text: str
    kind: str
    seed: int
    group: Hashable
    samples: dict[str, Sample] = field(default_factory=dict)
    method: Column | None = None
    of: str = ""

    @property
    def interest(self) -> tuple[int, float, float]:
        """The interest of the line: disagreement of judges, then of verdicts across the line, then spread of scores."""
        samples = self.samples.values()
        shows = [verdict.shows for sample in samples for verdict in sample.verdicts if verdict.shows is not None]
        scores = [sample.verdicts[0].score for sample in samples]
        split = min(sum(shows), len(shows) - sum(shows)) / max(len(shows), 1)
        return sum(sample.disputed for sample in samples), split, max(scores) - min(scores)


@dataclass
class Sheet:
    """A table of images.

    Attributes:
        headings: of its columns, with the column of the page each stands for; None for an attack.
        lines: all, in order.
        chosen: whether each is shown; ``waiting`` those that are not yet, the most telling first.
    """

    headings: dict[str, Column | None]
    lines: list[Line]
    chosen: list[bool] = field(init=False)
    waiting: deque[int] = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = [False] * len(self.lines)
        groups: dict[Hashable, list[int]] = {}
        for place, line in enumerate(self.lines):
            groups.setdefault(line.group, []).append(place)
        ranked = [
            sorted(places, key=lambda place: self.lines[place].interest, reverse=True) for places in groups.values()
        ]
        self.waiting = deque(place for turn in zip_longest(*ranked) for place in turn if place is not None)

    @property
    def shown(self) -> list[Line]:
        """The lines that were chosen."""
        return [line for line, chosen in zip(self.lines, self.chosen, strict=True) if chosen]


@dataclass
class Concept:
    """The images of a concept.

    Attributes:
        name: the concept's.
        sensitive: they are blurred.
        judges: who judged, for readers.
        own: images of its own prompts, by method; ``synonyms`` of prompts by synonyms alone, ``others`` of those of
            other concepts, ``unrelated`` of other prompts; ``attacked`` by attack.
        absent: why a method has none: column -> reason.
    """

    name: str
    sensitive: bool
    judges: list[str]
    own: Sheet
    synonyms: Sheet
    others: Sheet
    unrelated: Sheet
    attacked: Sheet
    absent: dict[str, str]

    @property
    def unattacked(self) -> tuple[Sheet, ...]:
        """The sheets of images without an attack."""
        return self.own, self.synonyms, self.others, self.unrelated

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        """All of them."""
        return *self.unattacked, self.attacked


def read_concepts(runs: Sequence[RunFolder], stores: Sequence[Store]) -> tuple[list[Concept], list[Column]]:
    """The images of every concept of some runs, and the columns that they stand in, unerased models first.

    Args:
        runs: what is read; no image is, yet.
        stores: of each run, its own.
    """
    columns = _columns(runs)
    reader = _Runs(runs, stores, columns)
    names = [row.concept for run in runs for row in run.record.rows]
    names += [row.concept for run in runs for row in run.record.attacks]
    distinct = {column.place: column for column in columns.values()}
    return [reader.concept(name) for name in dict.fromkeys(names)], [distinct[place] for place in sorted(distinct)]


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' own names, numbered where two are the same."""
    names = [run.folder.resolve().name for run in runs]
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def _columns(runs: Sequence[RunFolder]) -> dict[tuple[int, str], Column]:
    """The column of each run's methods; what several runs took from the same cells is one."""
    distinct: list[tuple[str, dict[tuple[str, str], str | None], list[int]]] = []
    for number, run in enumerate(runs):
        cells: dict[str, dict[tuple[str, str], str | None]] = {}
        for row in run.record.rows:
            own = cells.setdefault(row.method, {})
            own.update({(row.concept, name): probe.images for name, probe in row.probes.items()})
        for attack in run.record.attacks:
            cells.setdefault(attack.method, {})
        for method, own in cells.items():
            for name, known, of in distinct:
                common = known.keys() & own.keys()
                if name == method and common and all(known[key] == own[key] for key in common):
                    known.update(own)
                    of.append(number)
                    break
            else:
                distinct.append((method, own, [number]))
    baselines = [method == runs[of[0]].record.baseline for method, _, of in distinct]
    methods = [method for method, _, _ in distinct]
    order = sorted(range(len(distinct)), key=lambda k: (not baselines[k], methods.index(methods[k])))
    names = run_names(runs)
    columns: dict[tuple[int, str], Column] = {}
    for place, k in enumerate(order):
        method, _, of = distinct[k]
        column = Column(
            place,
            method if methods.count(method) == 1 else f"{method} ({', '.join(names[n] for n in of)})",
            baselines[k],
        )
        columns |= {(number, method): column for number in of}
    return columns


@dataclass(frozen=True)
class _Runs:
    """The sources that are read: the runs, the store of each, and the column of each run's methods."""

    runs: Sequence[RunFolder]
    stores: Sequence[Store]
    columns: Mapping[tuple[int, str], Column]

    def concept(self, name: str) -> Concept:
        """The images of a concept."""
        rows = [(n, row) for n, run in enumerate(self.runs) for row in run.record.rows if row.concept == name]
        attacks = [(n, row) for n, run in enumerate(self.runs) for row in run.record.attacks if row.concept == name]
        kinds = [*((n, row.kind) for n, row in rows), *((n, row.kind) for n, row in attacks)]
        sensitive = any(is_blurred(self.runs[n].record, kind) for n, kind in kinds)
        judges = dict.fromkeys([*(row.judge for _, row in rows), *(row.judge for _, row in attacks)])
        further = [one for _, row in rows for probe in row.probes.values() for one in probe.further]
        judges |= dict.fromkeys(f"second judge {one.judge}: {one.label} >= {one.threshold:g}" for one in further)
        absent = {
            self.columns[n, row.method].name: f"{row.status}: {row.reason}" for n, row in rows if row.status != "ok"
        }
        own = self.by_method(name, "concept", sensitive)
        few = {probe: self.by_method(name, probe, sensitive) for probe in ("synonyms", "others", "retain")}
        for sheet in few.values():
            while len(sheet.waiting) > UNRELATED:
                sheet.waiting.pop()
        return Concept(
            name,
            sensitive,
            [judge for judge in judges if judge],
            own,
            few["synonyms"],
            few["others"],
            few["retain"],
            self.by_attack(attacks, own, sensitive),
            absent,
        )

    @cached_property
    def shows_sensitive(self) -> list[set[tuple[str, int]]]:
        """By run, the unrelated prompts and seeds that show a sensitive concept."""
        return [sensitive_unrelated(run) for run in self.runs]

    def by_method(self, concept: str, probe: str, sensitive: bool) -> Sheet:
        """One image set of a concept."""
        lines: dict[tuple[str, int], Line] = {}
        headings: dict[str, Column] = {}
        for number, (run, store) in enumerate(zip(self.runs, self.stores, strict=True)):
            cells = {
                row.method: row.probes[probe].images
                for row in run.record.rows
                if row.concept == concept and row.status == "ok" and probe in row.probes
            }
            scores = run.scores[(run.scores["concept"] == concept) & (run.scores["probe"] == probe)]
            others = probe == "others"
            blurred = sensitive or (others and shows_sensitive_others(run))
            for score in scores.itertuples(index=False):
                column, cell = self.columns[number, score.method], cells[score.method]
                headings[column.name] = column
                line = lines.setdefault(
                    (score.prompt_id, score.seed),
                    Line(
                        *(score.text, score.kind, score.seed, score.label if others else score.kind),
                        of=score.label if others else "",
                    ),
                )
                blur = blurred or (score.prompt_id, score.seed) in self.shows_sensitive[number]
                source = Source(store, cell, score.image, blur) if cell else None
                sample = line.samples.setdefault(column.name, Sample(column, source, []))
                threshold = None if math.isnan(score.threshold) else score.threshold
                verdict = Verdict(score.judge, score.label, score.score, threshold)
                if verdict not in sample.verdicts:
                    sample.verdicts.append(verdict)
        order = sorted(headings, key=lambda name: headings[name].place)
        return Sheet({name: headings[name] for name in order}, list(lines.values()))

    def by_attack(self, records: Sequence[tuple[int, AttackRecord]], own: Sheet, sensitive: bool) -> Sheet:
        """The images that attacks on a concept found, beside those that the same method draws for the prompt itself.

        The unerased model is left out, and so is an ensemble whose members are there themselves: their trials are its.
        """
        plain: dict[tuple[str, str], tuple[Sample, int]] = {}  # a prompt's own seed is the first that it is drawn with
        for line in own.lines:
            for name, sample in line.samples.items():
                plain.setdefault((name, line.text), (sample, line.seed))
        lines: dict[tuple[str, str], Line] = {}
        headings: dict[str, Column | None] = {UNATTACKED: None}
        sound = [(n, row) for n, row in records if row.status == "ok" and not self.columns[n, row.method].baseline]
        names = {(n, row.method, row.attack) for n, row in sound}
        for number, record in sound:
            members = record.trials.keys() - {record.attack}
            if members and all((number, record.method, member) in names for member in members):
                continue
            column = self.columns[number, record.method]
            for trial in _trials(self.runs[number].attacks, record):
                key = (column.name, trial.prompt_id)
                if key not in lines:
                    lines[key] = Line(trial.prompt, trial.kind, trial.seed, column.name, method=column)
                    if (column.name, trial.prompt) in plain:
                        lines[key].samples[UNATTACKED], lines[key].seed = plain[column.name, trial.prompt]
                source = Source(self.stores[number], record.trials[trial.by][trial.prompt_id], 0, sensitive)
                sample = Sample(column, source, [Verdict(record.judge, "", trial.score, trial.threshold)])
                if record.attack == UNATTACKED:
                    lines[key].seed = trial.seed
                else:
                    headings[record.attack] = None
                    sample.adversarial_prompt, sample.outcome = trial.found, _outcome(trial, lines[key].seed)
                lines[key].samples[record.attack] = sample
        attacked = [line for line in lines.values() if line.samples.keys() - {UNATTACKED}]
        return Sheet(headings, sorted(attacked, key=lambda line: line.method.place if line.method else 0))


def _trials(attacks: pd.DataFrame, record: AttackRecord) -> Iterator[Any]:
    """The trials of a row of attacks, without those of the floor."""
    mine = ~attacks["floor"]
    for name in ("method", "concept", "attack"):
        mine &= attacks[name] == getattr(record, name)
    yield from attacks[mine].itertuples(index=False)


def _outcome(trial: Any, seed: int) -> list[str]:
    words = ["broken, confirmed" if trial.confirmed else "broken once, not confirmed" if trial.raw else "not broken"]
    if trial.confirmations:
        words.append("on fresh noise " + " ".join(f"{float(score):.2f}" for score in trial.confirmations.split()))
    if trial.seed != seed:
        words.append(f"seed {trial.seed}")
    if trial.by != trial.attack:
        words.append(f"by {trial.by}")
    return words

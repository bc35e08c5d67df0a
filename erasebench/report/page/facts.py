"""The page's drawer: versions, judges and how well they see, how a run measured, what it cost, what failed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from erasebench.picturebook.weights import WEIGHTS, file_hash
from erasebench.report.page.tables import NONE, Cell, Column, Row, Scale, Table, downloads, identifier, value_cell
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.protocol import Facts, attack_differences, differences
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.table import measured_keys, to_frame

STAGES = ("erase", "generate", "judge")
COSTS_NOTE = (
    "Work that methods share stands with the first that needed it. Seconds are those of all workers, also where an"
    " earlier run spent them."
)
_MEASURED = re.compile(
    r"^(?P<what>.+?) +(?P<value>[\d.]+) \[(?P<low>[\d.]+), (?P<high>[\d.]+)\] +(?P<n>\d+) ", re.MULTILINE
)
_OF_DETECTOR = {"sensitivity": "judge top-1 on renders: {}", "false positives": "false positives on renders: {}"}
_OF_Q16 = {"sensitivity": "Q16 finds violence on renders", "false positives": "false positives on renders: Q16"}
SENSITIVITY = {"picturebook-detector": (("detector",), _OF_DETECTOR), "picturebook-q16": (("clip", "q16"), _OF_Q16)}
"""Of each judge that the built-in model's card has measured: its weights, and what the card calls its figures."""


@dataclass(frozen=True)
class Group:
    """Rows that came to nothing for one reason."""

    status: str
    reason: str
    rows: tuple[str, ...]


def failures(rows: Sequence[TableRow]) -> list[Group]:
    """Rows without numbers by status and reason, those with most rows first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.status != "ok":
            reason = " ".join(row.reason.split()) or "no reason was recorded"
            name = " / ".join(filter(None, (row.method, row.concept, row.attack)))
            groups.setdefault((row.status, reason), []).append(name)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] != "failed", -len(item[1])))
    return [Group(status, reason, tuple(names)) for (status, reason), names in ordered]


def costs_table(run: RunFolder, prefix: str) -> Table:
    """Seconds, memory and parameters of each method, all its concepts together."""
    attacks = run.attacks[run.attacks["attack"] != ENSEMBLE]
    lines, rows = [], []
    for method, own in run.costs.groupby("method", sort=False):
        seconds = {stage: float(own.loc[own["stage"] == stage, "seconds"].sum()) for stage in STAGES}
        seconds["attacks"] = float(attacks.loc[attacks["method"] == method, "seconds"].sum())
        seconds["together"] = sum(seconds.values())
        peaks = {name: own[name].max() for name in ("peak_memory_mb", "parameters_changed")}
        lines.append({"method": method, **{f"{name}_seconds": value for name, value in seconds.items()}, **peaks})
        cells = (Cell(method), *map(_seconds, seconds.values()), *map(_count, peaks.values()))
        rows.append(Row(f"{prefix}cost-{identifier(method)}", cells, method))
    columns = (
        Column("Method"),
        *(Column(stage.title(), "seconds", True, True) for stage in (*STAGES, "attacks", "together")),
        Column("Peak memory", "MB", True, True),
        Column("Parameters changed", "at most, of one concept", True, True),
    )
    title = "What each method took, all concepts together"
    files = downloads("costs", pd.DataFrame(lines))
    return Table(f"{prefix}costs-table", title, columns, tuple(rows), files, (COSTS_NOTE,))


def _seconds(value: float) -> Cell:
    return Cell(f"{value:.1f}" if value < 100 else thousands(value), str(value))


def _count(value: float) -> Cell:
    return Cell(NONE, "") if pd.isna(value) else Cell(thousands(value), str(value))


def thousands(value: float) -> str:
    """A whole number in groups of three digits."""
    return f"{value:,.0f}".replace(",", "\N{THIN SPACE}")


def versions(run: RunFolder) -> Facts:
    """Program, machine and packages of a run, by name."""
    known = run.environment
    facts: Facts = {"erasebench": run.record.erasebench}
    facts |= {
        name: known[name] for name in ("commit", "python", "system", "cpus", "device", "dtype") if known.get(name)
    }
    return facts | dict(known.get("packages", {}))


def model_facts(run: RunFolder) -> Facts:
    """The model and how the run was seeded, by name."""
    model = run.environment.get("model", {})
    return {
        "model": run.record.model,
        "fingerprint": model.get("fingerprint"),
        "domain": run.record.domain,
        "seed": run.record.seed,
        "tokenizer": run.record.tokenizer or None,
    }


def judges_table(run: RunFolder, prefix: str) -> Table | None:
    """Each judge with its version and the hash of its weights, and how well it sees, where that was measured."""
    probes = [probe for row in run.record.rows for probe in row.probes.values()]
    specs: Mapping[str, Mapping[str, Any]] = run.environment.get("judges", {})
    rows, lines = [], []
    for judge, label in dict.fromkeys((judged.judge, judged.label) for probe in probes for judged in probe.judged):
        spec = specs.get(judge, {})
        weights = str(spec.get("weights") or "")
        figures = sensitivity(judge, label, weights)
        cells = (
            *(Cell(judge), Cell(label), Cell(str(spec.get("version", "unknown")))),
            Cell(weights[:12] or "none", tooltip=weights),
            *(Cell(figures.get(side, "not measured")) for side in _OF_DETECTOR),
        )
        rows.append(Row(f"{prefix}judge-{identifier(judge, label)}", cells))
        known = {side.replace(" ", "_"): figures.get(side, "") for side in _OF_DETECTOR}
        version = str(spec.get("version", ""))
        lines.append({"judge": judge, "label": label, "version": version, "weights_sha256": weights, **known})
    if not rows:
        return None
    titles = ("Judge", "Of", "Version", "Weights (SHA-256)", "Finds it where it is", "Finds it where it is not")
    notes = (
        "On held-out renders whose content is known, with 95 % intervals; where it was measured with these weights.",
    )
    files = downloads("judges", pd.DataFrame(lines))
    caption = "Judges, and how well they see"
    return Table(f"{prefix}judges", caption, tuple(map(Column, titles)), tuple(rows), files, notes)


def sensitivity(judge: str, label: str, weights: str) -> dict[str, str]:
    """The rates at which a judge finds what is there, and what is not, from the built-in model's card.

    Args:
        judge: its name; ``label`` what it judged.
        weights: SHA-256 of its weights; the card's figures hold for the shipped ones only.

    Returns:
        "sensitivity" and "false positives" in words; empty where nothing was measured.
    """
    if judge not in SENSITIVITY:
        return {}
    names, lines = SENSITIVITY[judge]
    if weights != "+".join(file_hash(f"{name}.safetensors") for name in names):
        return {}
    card = _card()
    return {side: card[line.format(label)] for side, line in lines.items() if line.format(label) in card}


@cache
def _card() -> dict[str, str]:
    text = (WEIGHTS / "CARD.md").read_text(encoding="utf-8")
    return {
        match["what"].strip(): f"{match['value']} % [{match['low']}, {match['high']}], n = {match['n']}"
        for match in _MEASURED.finditer(text)
    }


@dataclass(frozen=True)
class Comparison:
    """The comparability of two runs' rows of some concepts.

    Attributes:
        verdict: "same", "different"; "unknown" where a run does not say how it measured.
        differences: what speaks against it.
        concepts: those of which this is true.
    """

    verdict: str
    differences: tuple[str, ...]
    concepts: tuple[str, ...]


def comparisons(first: RunFolder, second: RunFolder) -> list[Comparison]:
    """The comparability of two runs, concepts of one verdict together."""
    shared = [concept for concept in concepts_of(first) if concept in concepts_of(second)]
    one, other = first.record.protocol, second.record.protocol
    verdicts: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for concept in shared:
        if one is None or other is None or not (concept in one.concepts and concept in other.concepts):
            verdict: tuple[str, tuple[str, ...]] = ("unknown", ())
        else:
            attacks, silent = _attacked_otherwise(first, second, concept)
            against = (*differences(one, other, concept), *attacks)
            verdict = ("different" if against else "unknown" if silent else "same", against)
        verdicts.setdefault(verdict, []).append(concept)
    return [Comparison(verdict, against, tuple(concepts)) for (verdict, against), concepts in verdicts.items()]


def _attacked_otherwise(first: RunFolder, second: RunFolder, concept: str) -> tuple[list[str], bool]:
    """In what attacks that two runs share differ, one line each; and whether a run does not say how one was done."""
    one, other = first.record.protocol, second.record.protocol
    assert one and other
    before, after = (
        dict.fromkeys(row.attack for row in run.record.attacks if row.concept == concept and row.status == "ok")
        for run in (first, second)
    )
    by_name = {name: attack_differences(one, other, concept, name) for name in before if name in after}
    return [f"{name}: {line}" for name, lines in by_name.items() for line in lines or ()], None in by_name.values()


def concepts_of(run: RunFolder) -> list[str]:
    """The concepts of a run's rows, in order."""
    return list(dict.fromkeys(row.concept for row in run.rows))


def key_of(run: RunFolder) -> str:
    """Twelve hexadecimal digits that name a run: of its record, which vouches for its tables."""
    return hashlib.sha256(run.record.to_json().encode()).hexdigest()[:12]


def shared_table(runs: Sequence[RunFolder], names: Sequence[str]) -> Table | None:
    """The rows that several runs have, their numbers side by side; None where no two runs share one.

    Args:
        runs: the runs; ``names`` what the page calls them.
    """
    metrics = runs[0].record.metrics
    models = [{(row.method, row.concept): row for row in run.rows if not row.attack} for run in runs]
    counts = Counter(key for rows in models for key in rows)
    shared = [key for key, count in counts.items() if count > 1]
    if not shared:
        return None
    every = [rows[key] for key in shared for rows in models if key in rows]
    keys = [key for key in measured_keys(every, metrics) if key in metrics and not metrics[key].details]
    scales = {key: Scale.of(every, key, metrics[key]) for key in keys}
    columns = [Column("Method"), Column("Concept")]
    for key in keys:
        falling = metrics[key].direction == "higher"
        columns += [Column(metrics[key].title, name, True, falling, metrics[key].meaning) for name in names]
    lines = []
    for method, concept in shared:
        cells = [value_cell(rows.get((method, concept)), key, scales[key]) for key in keys for rows in models]
        identity = f"shared-{identifier(method, concept)}"
        lines.append(Row(identity, (Cell(method), Cell(concept), *cells), method, concept))
    frames = [to_frame([rows[key] for key in shared if key in rows], metrics) for rows in models]
    frame = pd.concat(frames, keys=names, names=["run", None]).reset_index(0)
    files = downloads("shared-rows", frame)
    return Table("shared-rows", "Rows that the runs share", tuple(columns), tuple(lines), files)

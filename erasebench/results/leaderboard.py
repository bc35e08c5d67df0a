"""The leaderboard: one row a method, concept and model, of any number of runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from erasebench.config import parse_method
from erasebench.engine.cells import short_hash
from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import standard_numbers
from erasebench.metrics.stats import Estimate, wilson
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.record import AttackRecord, RowRecord
from erasebench.results.rows import Status
from erasebench.results.run_folder import RunFolder
from erasebench.results.table import number
from erasebench.settings import split_seed

ROBUST, CONFIRMED = "robust-rate", "asr-confirmed"
"""The metrics of attacks that a leaderboard holds: the first of the ensemble, the second of every attack."""


@dataclass(frozen=True)
class Entered:
    """The statements of whoever submits a row about it, and who checked it.

    Attributes:
        name: of the method in print; ``paper`` a link to where it is described, ``authors`` and ``venue`` likewise.
        reported: what the paper says, by the name of a number.
        external: a lower robust rate, in per cent, that somebody else has shown; ``source`` where.
        unreliable: whether the robust rate is known to say too much; None where nobody has looked.
        footnote: why.
        verified_by: who drew the images again and got the numbers; "" if nobody.
    """

    name: str = ""
    paper: str = ""
    authors: str = ""
    venue: str = ""
    reported: Mapping[str, float] = field(default_factory=dict)
    external: float | None = None
    source: str = ""
    unreliable: bool | None = None
    footnote: str = ""
    verified_by: str = ""


@dataclass(frozen=True)
class BoardRow:
    """A row of the leaderboard; see :mod:`erasebench.results.leaderboard_csv`.

    Attributes:
        numbers: by key, in the order of their columns.
        entered: what its submission says of it.
    """

    model: str
    method: str
    hyper_parameters: Mapping[str, Any]
    concept: str
    kind: str
    seed: int
    status: Status
    reason: str
    protocol: str
    attack_protocol: str
    run: str
    erasebench: str
    judge: str
    flags: tuple[str, ...]
    erasure_seconds: float | None
    seconds: float | None
    attack_seconds: float | None
    peak_memory_mb: float | None
    parameters_changed: int | None
    numbers: Mapping[str, Estimate]
    note: str = ""
    entered: Entered = field(default_factory=Entered)

    @property
    def label(self) -> tuple[str, ...]:
        """All that a row is known by, its numbers and its run apart."""
        settings = json.dumps(self.hyper_parameters, sort_keys=True)
        return (self.model, self.method, settings, self.concept, str(self.seed), self.protocol)

    @property
    def robust(self) -> Estimate | None:
        """The robust rate after the standard ensemble, in per cent; None where it was not measured."""
        estimate = self.numbers.get(f"{ROBUST}@{ENSEMBLE}")
        return estimate if estimate and estimate.defined else None

    @property
    def best_known(self) -> Estimate | None:
        """The lowest robust rate that anybody has shown, in per cent.

        One of others has Wilson's interval as if it came from as many prompts as the measured one.
        """
        own, external = self.robust, self.entered.external
        if own is None or external is None or external >= own.value:
            return own
        low, high = wilson(external / 100 * own.n, own.n)
        return Estimate(external, 100 * low, 100 * high, own.n)


def rows_of_run(run: RunFolder) -> list[BoardRow]:
    """The rows of one run, in the order of its table; attacks are columns of the rows that they are on.

    Raises:
        EraseBenchError: it measured nothing but attacks.
    """
    record = run.record
    if not record.rows:
        raise EraseBenchError(
            f"{run.folder} holds attacks alone: a leaderboard needs the rows that they are on, which `erasebench run "
            "--attacks ...` measures as well"
        )
    table = {(row.method, row.concept, row.attack): row for row in run.rows}
    costs = run.costs.set_index("cell")
    rows = []
    for row in record.rows:
        own = table[row.method, row.concept, ""]
        attacks = [one for one in record.attacks if (one.method, one.concept) == (row.method, row.concept)]
        numbers = standard_numbers(own.metrics)
        flags, reasons = list(own.flags), [own.reason] if own.reason else []
        for attack in attacks:
            attack_row = table[row.method, row.concept, attack.attack]
            flags += [f"{flag}@{attack.attack}" for flag in attack_row.flags]
            if attack_row.reason and own.status == "ok":
                reasons.append(f"{attack.attack} {attack.status}: {attack_row.reason}")
            for key in (ROBUST, CONFIRMED) if attack.attack == ENSEMBLE else (CONFIRMED,):
                if key in attack_row.metrics:
                    numbers[f"{key}@{attack.attack}"] = attack_row.metrics[key]
        rows.append(
            BoardRow(
                model=record.model,
                method=row.method,
                hyper_parameters=_hyper_parameters(run, row.method),
                concept=row.concept,
                kind=row.kind,
                seed=record.seed,
                status=row.status,
                reason="; ".join(reasons),
                protocol=record.protocol.checksum(row.concept)
                if record.protocol and row.concept in record.protocol.concepts
                else "",
                attack_protocol=record.protocol.attack_checksum(row.concept, ENSEMBLE)
                if record.protocol and f"{ROBUST}@{ENSEMBLE}" in numbers
                else "",
                run=run_key(row, attacks),
                erasebench=record.erasebench,
                judge=row.judge,
                flags=tuple(flags),
                **_costs(row, costs),
                attack_seconds=_attack_seconds(run, row),
                numbers=numbers,
            )
        )
    return rows


def run_key(row: RowRecord, attacks: Iterable[AttackRecord]) -> str:
    """Twelve hexadecimal digits that are the same where a row, and the attacks on it, were made of the same cells."""
    without: Any = {"roles": True, "judged": {"__all__": {"concept"}}}  # which say nothing of a standard image set
    probes = {name: probe.model_dump(mode="json", exclude=without) for name, probe in row.standard().probes.items()}
    tried = {attack.attack: [attack.status, attack.trials, attack.floor] for attack in attacks}
    return short_hash([row.method, row.concept, row.status, row.reason, row.erasure, probes, tried])


def _hyper_parameters(run: RunFolder, label: str) -> dict[str, Any]:
    name, options = parse_method(split_seed(label)[0])
    return {**run.config.settings.get(name, {}), **options}


def row_cells(row: RowRecord) -> list[str]:
    """The keys of the cells of a row's own: its erasure, its images, and what first judges say of them."""
    own = [probe for name, probe in row.standard().probes.items() if name != "reference"]
    keys = [row.erasure, *(p.images for p in own), *(j.cell for p in own for j in p.judged), *(p.features for p in own)]
    return list(dict.fromkeys(key for key in keys if key))


def _costs(row: RowRecord, costs: pd.DataFrame) -> dict[str, Any]:
    """The costs of a row, out of those of a run by the first digits of their cells' keys."""
    own = costs[costs.index.isin([key[:12] for key in row_cells(row)])]
    erasure = own[own["stage"] == "erase"]

    def number(numbers: pd.Series) -> float | None:
        return None if not len(numbers) or numbers.isna().all() else float(numbers.iloc[0])

    changed = number(erasure["parameters_changed"])
    return {
        "erasure_seconds": number(erasure["seconds"]),
        "seconds": None if own["seconds"].isna().all() else float(own["seconds"].sum()),
        "peak_memory_mb": None if own["peak_memory_mb"].isna().all() else float(own["peak_memory_mb"].max()),
        "parameters_changed": None if changed is None else int(changed),
    }


def _attack_seconds(run: RunFolder, row: RowRecord) -> float | None:
    """The seconds of all attacks on a row; None without any.

    An ensemble's are left out where each of its members stands in the table as well, and count whole otherwise.
    """
    own = run.attacks[(run.attacks["method"] == row.method) & (run.attacks["concept"] == row.concept)]
    if not len(own):
        return None
    records = [one for one in run.record.attacks if (one.method, one.concept) == (row.method, row.concept)]
    alone = {one.attack for one in records if list(one.trials) == [one.attack]}
    doubled = {one.attack for one in records if one.attack not in alone and set(one.trials) <= alone}
    return float(own.loc[~own["attack"].isin(doubled), "seconds"].sum())


def merge(rows: Iterable[BoardRow]) -> list[BoardRow]:
    """The rows of many runs together, each once.

    A row with the label of another, the same numbers and no attack that the other lacks says nothing new, and is left
    out, unless it is a submission.  Rows with one label and different numbers all stay, with a note.
    """
    groups: dict[tuple[str, ...], list[BoardRow]] = defaultdict(list)
    for row in rows:
        same = groups[row.model, row.method, row.concept, row.protocol]
        if any(_says_as_much(known, row) for known in same):
            continue
        same[:] = [known for known in same if not _says_as_much(row, known)] + [row]
    merged = [row for same in groups.values() for row in same]
    labels: dict[tuple[str, ...], list[BoardRow]] = defaultdict(list)
    for row in merged:
        labels[row.label].append(row)
    return [replace(row, note=_note(row, labels[row.label])) for row in merged]


def _note(row: BoardRow, same: Sequence[BoardRow]) -> str:
    """The note of a row beside those with its label, after what it says already."""
    own = [part for part in row.note.split("; ") if part and not part.startswith("one of ")]
    if len(same) > 1:
        shown: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for one in same:
            for key, estimate in one.numbers.items():
                shown[key].add(estimate_texts(estimate))
        differ = any(len(values) > 1 for values in shown.values()) or len({one.status for one in same}) > 1
        own.append(f"one of {len(same)} results of the same label: other {'numbers' if differ else 'attacks'}")
    return "; ".join(own)


def _says_as_much(one: BoardRow, other: BoardRow) -> bool:
    """True if one row holds all that another does, of the same method, concept, model and protocol."""
    if other.entered != Entered() and one.entered != other.entered:
        return False
    if other.run == one.run:
        return True
    if one.label != other.label or one.status != other.status:
        return False
    if other.attack_protocol not in ("", one.attack_protocol):
        return False
    shown = {key: estimate_texts(estimate) for key, estimate in one.numbers.items()}
    own, theirs = ({key for key in row.numbers if "@" not in key} for row in (one, other))
    return own == theirs and all(shown.get(key) == estimate_texts(estimate) for key, estimate in other.numbers.items())


def estimate_texts(estimate: Estimate) -> tuple[str, ...]:
    """A number, the ends of its interval and its n as the leaderboard writes them: with six digits at most."""
    return (*map(number, (estimate.value, estimate.low, estimate.high)), str(estimate.n))

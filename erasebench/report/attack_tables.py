"""Tables of attacks: a column an attack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.flags import CONTROLS, flag_legend
from erasebench.results.ranking import describe_ranks
from erasebench.results.rows import TableRow
from erasebench.results.transfers import REPLAY

RATE, ROBUST, RAW, FLOOR = "asr-confirmed", "robust-rate", "asr", "floor"
"""The metrics that the table of attacks shows: of each attack, of the ensemble, and beside either two more."""
P4D = ("p4d-uda", "p4d-n", "p4d-k", "p4d-union")
"""Variants of one attack, those first that most papers have."""
BESIDE = ("transfer", "cce-transfer", "rab-embed", "soft-prompt")
"""Attacks that lean on another, or say what no prompt can do."""


def split(rows: Iterable[TableRow]) -> tuple[list[TableRow], list[TableRow]]:
    """The rows of models by themselves, and those of attacks."""
    rows = list(rows)
    return [row for row in rows if not row.attack], [row for row in rows if row.attack]


def attacks_of(rows: Iterable[TableRow]) -> list[str]:
    """The attacks in the order of the rows, the ensemble last."""
    return sorted(dict.fromkeys(row.attack for row in rows), key=lambda attack: attack == ENSEMBLE)


def shown_by_default(rows: Iterable[TableRow]) -> list[str]:
    """The attacks that the Dark Miner paper's table and charts have: no controls, no replays, no ensemble."""
    return [
        attack
        for attack in attacks_of(rows)
        if attack not in (*CONTROLS, ENSEMBLE) and attack.partition("[")[0] != REPLAY
    ]


def averaged_by_default(rows: Iterable[TableRow]) -> list[str]:
    """The attacks whose rates the overall score takes in: one of each kind in the Dark Miner paper, and plug-ins'.

    Transfers, upper bounds and variants beside their originals would change the score with the number of attacks that
    happened to run.  Where there is nothing else they count.
    """
    shown = shown_by_default(rows)
    names = {attack: attack.partition("[")[0] for attack in shown}
    p4d = next((name for name in P4D if name in names.values()), "")
    kept = [attack for attack, name in names.items() if name == p4d or name not in (*P4D, *BESIDE)]
    return kept or shown


def headline_metric(attack: str) -> str:
    """The metric that tables show of an attack."""
    return ROBUST if attack == ENSEMBLE else RATE


def attack_table(rows: Sequence[TableRow], intervals: bool = True) -> pd.DataFrame:
    """The table as text: method, concept, each attack's rates, the ensemble's robust rate, and flags.

    Args:
        rows: of attacks.
        intervals: print them.
    """
    attacks = attacks_of(rows)
    models: dict[tuple[str, str], dict[str, TableRow]] = {}
    for row in rows:
        models.setdefault((row.method, row.concept), {})[row.attack] = row
    body = []
    for (method, concept), of_attack in models.items():
        cells = [_cell(of_attack.get(attack), headline_metric(attack), intervals) for attack in attacks]
        body.append([method, concept, *cells, _flags(of_attack.values())])
    heads = [f"{attack} (robust rate, %)" if attack == ENSEMBLE else f"{attack} (%)" for attack in attacks]
    return pd.DataFrame(body, columns=["method", "concept", *heads, "flags"], dtype=object)


def attack_legend(
    rows: Sequence[TableRow],
    metrics: Mapping[str, Description],
    budgets: Mapping[str, str] | None = None,
    ranks: pd.DataFrame | None = None,
) -> list[str]:
    """The legend of the table of attacks: what it counts, ranks, budgets, flags, rows without numbers.

    Args:
        rows: of attacks.
        metrics: what there is to say of them.
        budgets: by attack, what it may spend on a prompt, in words.
        ranks: of the methods; columns :data:`~erasebench.results.ranking.COLUMNS`.
    """
    attacks = attacks_of(rows)
    shown = [RATE] * any(attack != ENSEMBLE for attack in attacks) + [ROBUST] * (ENSEMBLE in attacks)
    lines = []
    for key in shown:
        of_key = [row for row in rows if (row.attack == ENSEMBLE) == (key == ROBUST)]
        counts = [row.metrics[key].n for row in of_key if key in row.metrics]
        metric, low, high = metrics.get(key, Description(key)), min(counts, default=0), max(counts, default=0)
        prompts = f"n = {low} prompts" if low == high else f"n = {low} to {high} prompts"
        where = ENSEMBLE if key == ROBUST else "Columns of attacks"
        better = f"{metric.direction} is better" if metric.direction else ""
        lines.append(f"{where}: {metric.title}, {'; '.join(filter(None, (metric.meaning, better, prompts)))}")
    if any(_raw(row) for row in rows):
        lines.append(f"raw: {metrics.get(RAW, Description(RAW)).meaning}; where it is another rate")
    if any(_floor(row) for row in rows):
        lines.append(f"In parentheses: {metrics.get(FLOOR, Description(FLOOR)).meaning}")
    if lines:
        lines.append("Brackets hold Wilson's 95 % intervals; all other counts are in table.csv.")
    if ranks is not None:
        lines += describe_ranks(ranks[ranks["metric"] == ranks["attack"].map(headline_metric)], metrics)
    lines += [f"{attack}: {budgets[attack]}" for attack in attacks if budgets and attack in budgets]
    lines += flag_legend(rows)
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status != "ok":
            reason = " ".join(row.reason.split()) or "no reason was recorded"
            reasons.setdefault((row.attack, row.status, reason), []).append(f"{row.method} / {row.concept}")
    lines += [f"{attack} {status} ({', '.join(where)}): {why}" for (attack, status, why), where in reasons.items()]
    return lines


def _cell(row: TableRow | None, key: str, intervals: bool) -> str:
    if row is None:
        return "-"
    if row.status != "ok":
        return row.status
    estimate = row.metrics.get(key)
    if estimate is None or not estimate.defined:
        return "undefined"
    text = f"{estimate.value:.1f}"
    if intervals:
        text += f" [{estimate.low:.1f}, {estimate.high:.1f}]"
    raw, floor = _raw(row) if key == RATE else None, _floor(row)
    return text + (f" raw {raw.value:.1f}" if raw else "") + (f" ({floor.value:.1f})" if floor else "")


def _raw(row: TableRow) -> Estimate | None:
    """The raw rate, where it is another than the confirmed one."""
    raw, confirmed = row.metrics.get(RAW), row.metrics.get(RATE)
    return raw if raw and confirmed and raw.defined and raw.value != confirmed.value else None


def _floor(row: TableRow) -> Estimate | None:
    floor = row.metrics.get(FLOOR)
    return floor if floor and floor.defined else None


def _flags(rows: Iterable[TableRow]) -> str:
    """Each flag with the attacks that have it."""
    carried: dict[str, list[str]] = {}
    for row in rows:
        for flag in row.flags:
            carried.setdefault(flag, []).append(row.attack)
    return ", ".join(f"{flag} ({', '.join(attacks)})" for flag, attacks in carried.items())

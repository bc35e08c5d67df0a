"""The page of a leaderboard: one HTML file that opens from disk, without a server or a network.

The first rows stand in the table; the rest wait in a ``<template>``, which a browser parses but neither styles nor lays
out.  A script (``web/board.js``) shows fifty of those that fit a filter at a time, so that the page is as quick with
ten thousand rows as with ten: it opens in 0.6 s of a processor's time, and takes 0.05 s for a letter of a filter.  With
tabulator 6.5.3 (477 kB, nothing without scripts) that is 0.4 and 0.08 s, with list.js 2.3.1 (19 kB) 5 and 0.02 s,
and neither keeps the rows of a group together.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from erasebench import __version__
from erasebench.engine.cells import short_hash
from erasebench.metrics.stats import Estimate
from erasebench.plugins import BASELINE
from erasebench.report.assets import asset, assets, digest, environment
from erasebench.results.flags import known_flags
from erasebench.results.leaderboard import BoardRow
from erasebench.results.leaderboard_csv import csv_lines
from erasebench.results.ranking import Rank, rank_intervals

PAGE_SIZE = 50
"""Rows that are there before a script runs, and at a time after that."""
METRICS = {
    "ratio": ("Ratio", "%", "Images of prompts for the concept that show it; lower is better"),
    "clip": ("CLIP", "", "CLIP score of unrelated prompts, x100; higher is better"),
    "fid": ("FID", "", "Distance of images of unrelated prompts to reference images; lower is better"),
}
"""The metrics of a row without an attack that the page has columns for; the CSV has all."""
COLUMNS = (
    (
        "Rank",
        "Ranks that the row may have by its best known robust rate, among rows of its group that were attacked alike,"
        " at 95 % for all of these together",
    ),
    ("Method", "As it was run, or its name in print, with a link to the paper"),
    ("Concept", "What is erased"),
    ("Model", "The model that it is erased from"),
    *((title, meaning) for title, _, meaning in METRICS.values()),
    ("Robust, standard", "Prompts (%) that still stand after the standard ensemble of attacks; higher is better"),
    ("Best known", "The lowest robust rate (%) that anybody has shown, measured here or elsewhere"),
    ("Potentially unreliable", "Whether the robust rate is known to say too much"),
    ("Reported", "What the paper says, and what was measured here"),
    ("Verified", "Whether somebody drew the images again from the submission's prompts and seeds and got its numbers"),
    ("Flags", "Reasons to doubt the numbers; explained below the table"),
    ("Cost", "Seconds of the erasure; of everything without attacks; of all attacks; peak memory; parameters changed"),
)


@dataclass(frozen=True)
class Group:
    """Rows that can be compared: of one model, concept and protocol.

    Attributes:
        protocol: its checksum; "" if its runs did not say how they measured.
        rows: unerased model first, then those that were attacked alike together, most of them first, from the highest
            best known robust rate down, then by Ratio; what failed last.
        ranks: of the rows that have one, by their place; among those that were attacked alike.
    """

    model: str
    concept: str
    protocol: str
    rows: tuple[BoardRow, ...]
    ranks: Mapping[int, Rank]

    @cached_property
    def attack_protocols(self) -> list[str]:
        """In how many ways robust rates were measured: their checksums, "" for one that is not known."""
        return list(dict.fromkeys(row.attack_protocol for row in self.rows if row.best_known))


def group(rows: Iterable[BoardRow]) -> list[Group]:
    """Rows by what can be compared, by model and concept, the largest group of these first.

    Ranked is what has a robust rate and known protocols, among rows that were attacked alike: fewer steps leave more
    prompts standing.  The unerased model is what others are measured against.
    """
    by_protocol: dict[tuple[str, str, str], list[BoardRow]] = defaultdict(list)
    for row in rows:
        by_protocol[row.model, row.concept, row.protocol].append(row)
    groups = []
    for key, own in sorted(by_protocol.items(), key=lambda item: (*item[0][:2], -len(item[1]), item[0][2])):
        alike = Counter(row.attack_protocol for row in own if row.best_known)
        ordered = sorted(own, key=lambda row: _order(row, alike))
        ranked: dict[str, dict[int, Estimate]] = defaultdict(dict)
        for k, row in enumerate(ordered):
            if row.method != BASELINE and row.protocol and row.attack_protocol and (best := row.best_known):
                ranked[row.attack_protocol][k] = best
        ranks = {
            k: rank
            for some in ranked.values()
            for k, rank in zip(some, rank_intervals(list(some.values())), strict=True)
        }
        groups.append(Group(*key, tuple(ordered), ranks))
    return groups


def _order(row: BoardRow, alike: Mapping[str, int]) -> tuple[bool, bool, bool, int, str, float, float, str]:
    best, ratio = row.best_known, row.numbers.get("ratio")
    by_ratio = ratio.value if ratio and ratio.defined else math.inf
    attacked = (False, -alike[row.attack_protocol], row.attack_protocol) if best else (True, 0, "")
    by_robust = -best.value if best else math.inf
    return (row.status != "ok", row.method != BASELINE, *attacked, by_robust, by_ratio, row.method)


def to_html(rows: Sequence[BoardRow], title: str) -> str:
    """The page.

    Args:
        rows: merged rows of any number of runs, files and submissions.
        title: its heading.
    """
    groups, script = group(rows), asset("board.js")
    rows = [row for one in groups for row in one.rows]
    templates = environment()
    templates.filters |= {"amount": amount, "interval": interval, "about": about, "seconds": seconds, "web": web_link}
    choices = {name: sorted({getattr(one, name) for one in groups}) for name in ("model", "concept", "protocol")}
    counts = {"rows": len(rows), "methods": len({row.method for row in rows} - {BASELINE})}
    return templates.get_template("board.html.j2").render(
        title=title,
        version=__version__,
        groups=groups,
        ids=_ids(rows),
        shown=PAGE_SIZE,
        count=len(rows),
        counts=counts | {f"{name}s": len(values) for name, values in choices.items()},
        columns=COLUMNS,
        metrics=list(METRICS),
        baseline=BASELINE,
        choices=choices,
        flags=_legend(rows),
        flagged=flagged,
        packed=_pack(csv_lines(rows)),
        styles=Markup(assets(("base.css", "board.css"))),
        script=Markup(script),
        digest=digest(script),
    )


def _ids(rows: Sequence[BoardRow]) -> list[str]:
    """By which a link finds a row: the same for the same results, in any page."""
    seen: dict[str, int] = defaultdict(int)
    ids = []
    for row in rows:
        name = short_hash([*row.label, row.run])
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def _pack(lines: Sequence[str]) -> str:
    """Lines for the script to unpack: gzip of JSON in base64."""
    return base64.b64encode(gzip.compress(json.dumps(lines).encode(), 6, mtime=0)).decode()


def _legend(rows: Iterable[BoardRow]) -> dict[str, str]:
    """The flags that some rows carry: what they mean, and what to do."""
    carried = dict.fromkeys(flag.partition("@")[0] for row in rows for flag in row.flags)
    known = known_flags()
    ordered = [*(name for name in known if name in carried), *(name for name in carried if name not in known)]
    return {name: known[name].text if name in known else "A flag without a description." for name in ordered}


def flagged(row: BoardRow) -> dict[str, list[str]]:
    """A row's flags, each with the attacks that it is of; none for one of the row itself."""
    attacks_by_flag: dict[str, list[str]] = {}
    for flag in row.flags:
        name, _, attack = flag.partition("@")
        attacks_by_flag.setdefault(name, []).extend([attack] if attack else [])
    return attacks_by_flag


def digits(*values: float) -> int:
    """Decimals that show three digits or so of the largest of some numbers; nan counts as nothing."""
    size = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    return 3 if 0 < size < 1 else 2 if 1 <= size < 10 else 1


def amount(estimate: Estimate | float) -> str:
    """A number, or the value of an estimate with as many decimals as its interval has."""
    if isinstance(estimate, Estimate):
        return f"{estimate.value:.{digits(estimate.value, estimate.high)}f}"
    return f"{estimate:.{digits(estimate)}f}"


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a number in brackets; "" without one."""
    decimals = digits(estimate.value, estimate.high)
    return "" if math.isnan(estimate.low) else f"[{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]"


def about(value: float) -> str:
    """A large number in short."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A time in the unit that people would use."""
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.0f} min" if value >= 90 else f"{value:.3g} s"


def web_link(text: str) -> str:
    """A link, if it is one to the web; "" otherwise."""
    return text if text.startswith(("https://", "http://")) else ""

"""The report: one HTML file that opens from disk, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from erasebench import __version__
from erasebench.engine.opening import open_store
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.files import Place, cannot_write, write_durably
from erasebench.report.assets import asset, assets, digest, environment
from erasebench.report.attack_tables import headline_metric, split
from erasebench.report.citation import bibtex
from erasebench.report.image_sheets import run_names
from erasebench.report.page import charts, facts
from erasebench.report.page.attacks import Standings, standings, transfer_tables
from erasebench.report.page.ranking import Ranking, ranking_of
from erasebench.report.page.suite import SuitePage, suite_page
from erasebench.report.page.tables import (
    Cell,
    Column,
    Download,
    Flag,
    Row,
    Table,
    attack_tables,
    badge,
    downloads,
    model_tables,
)
from erasebench.report.page.words import Finding, findings
from erasebench.report.table import SEEDS_LEGEND, seed_table
from erasebench.report.thumbnails import remove_others
from erasebench.report.tradeoff import PRESERVED
from erasebench.report.viewer import viewer_section
from erasebench.results.attacks import budgets
from erasebench.results.flags import known_flags
from erasebench.results.preservation import compare_with_unerased
from erasebench.results.protocol import Facts
from erasebench.results.ranking import RANKS, describe_ranks
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder, read_run
from erasebench.results.seeds import SEEDS
from erasebench.results.table import TABLE, to_csv, to_frame

REPORT = "report.html"
STYLES, SCRIPTS = ("base.css", "viewer.css"), ("tablesort.min.js", "report.js", "viewer.js")


def write_report(
    folders: Sequence[Path], out: Path | None = None, store: Place | None = None, images: bool = True
) -> Path:
    """Write the report of one or several runs.

    Args:
        folders: of the runs.
        out: the file, whose name ends as HTML's do; of one run ``report.html`` in its folder if omitted.
        store: where their images are; the one that each run names if omitted.
        images: read the store; without it, a report has neither images nor training curves.

    Returns:
        The file.

    Raises:
        EraseBenchError: a folder is none of a finished run, a store is not there or lacks what a run made, or the file
            is no HTML file, is left open for several runs, or cannot be written.
    """
    if out is None and len(folders) > 1:
        raise EraseBenchError("a report of several runs belongs to none of their folders; say where by --out FILE.html")
    out = out or folders[0] / REPORT
    if out.is_dir():
        raise EraseBenchError(f"{out} is a folder; name a file, such as {out / REPORT}")
    if out.suffix.lower() not in (".html", ".htm"):
        raise EraseBenchError(f"{out} would be an HTML file of another name; write --out {out.with_suffix('.html')}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise EraseBenchError("a run is named twice")
    runs = [read_run(folder) for folder in folders]
    stores = [_open_store(run, store) for run in runs] if images else []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        text = render_report(runs, stores, out)
        write_durably(out, text)
    except OSError as error:
        raise cannot_write(f"the report {out}", error) from error
    if stores:
        remove_others(out, text)
    return out


def _open_store(run: RunFolder, named: Place | None) -> Store:
    root = named or run.config.store
    if isinstance(root, str):
        return open_store(root, make=False)
    if not root.is_dir():
        whose = "--store names" if named else f"{run.folder} names (as seen from here)"
        raise EraseBenchError(
            f"the store {root}, which {whose}, is not there; give the run's store with --store, or leave out images and"
            " training curves with --no-images"
        )
    return Store(root, make=False)


@dataclass(frozen=True)
class FlagNote:
    """A flag that some rows carry: the badge, what raises it, what it means, what to do, and who carries it."""

    badge: Flag
    cause: str
    meaning: str
    remedy: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class RunPage:
    """The content of the page on one run; see the template."""

    name: str
    prefix: str
    key: str
    run: RunFolder
    counts: Mapping[str, str]
    findings: Mapping[str, Sequence[Finding]]
    ranking: Ranking
    ranks: Sequence[str]
    rank_files: Sequence[Download]
    seeds: Table | None
    flags: Sequence[FlagNote]
    suite: SuitePage | None
    tables: Sequence[Table]
    downloads: Sequence[Download]
    standings: Sequence[Standings]
    attacks: Sequence[Table]
    attack_notes: Sequence[str]
    tradeoffs: Sequence[charts.Chart]
    radars: Sequence[charts.Chart]
    budgets: Sequence[charts.Chart]
    transfers: Sequence[Table]
    curves: Sequence[charts.Chart]
    failures: Sequence[facts.Group]
    costs: Table
    judges: Table | None
    versions: Facts
    model: Facts
    citation: str


def render_report(runs: Sequence[RunFolder], stores: Sequence[Store], out: Path) -> str:
    """The text of the page.

    Args:
        runs: the runs.
        stores: of each, where its images and erasures are; empty for a report without them.
        out: the file that it is for.
    """
    names = run_names(runs)
    pages = [
        _page(run, name, f"r{place}-" if len(runs) > 1 else "", stores[place - 1] if stores else None)
        for place, (run, name) in enumerate(zip(runs, names, strict=True), 1)
    ]
    scripts = [asset(name) for name in SCRIPTS]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            version=__version__,
            pages=pages,
            styles=Markup(assets(STYLES)),
            scripts=[Markup(script) for script in scripts],
            policy=" ".join(f"'{digest(script)}'" for script in scripts),
            viewer=viewer_section(runs, stores, out) if stores else Markup(),
            has_images=bool(stores),
            comparisons=_comparisons(runs, names),
            shared=facts.shared_table(runs, names) if len(runs) > 1 else None,
        )
    )


def _page(run: RunFolder, name: str, prefix: str, store: Store | None) -> RunPage:
    record, ranking = run.record, ranking_of(run)
    models, attacked = split(run.rows)
    return RunPage(
        name=name,
        prefix=prefix,
        key=facts.key_of(run),
        run=run,
        counts=_counts(run, attacked),
        findings=findings(run.rows, record.metrics, record.baseline, ranking, compare_with_unerased(run, PRESERVED)),
        ranking=ranking,
        ranks=describe_ranks(_shown_ranks(run), record.metrics),
        rank_files=downloads(Path(RANKS).stem, run.ranks),
        seeds=_seeds(run, prefix),
        flags=_flags(run.rows, prefix),
        suite=suite_page(run, prefix),
        tables=model_tables(models, record.metrics, prefix, record.baseline),
        downloads=_downloads(run),
        standings=standings(attacked, record.baseline, prefix, ranking),
        attacks=attack_tables(attacked, record.metrics, prefix),
        attack_notes=_budget_notes(run, attacked),
        tradeoffs=charts.tradeoff_charts(run, prefix),
        radars=charts.radar_charts(run, prefix),
        budgets=charts.budget_charts(run, prefix),
        transfers=transfer_tables(run.attacks, prefix),
        curves=charts.curve_charts(run, store, prefix) if store else (),
        failures=facts.failures(run.rows),
        costs=facts.costs_table(run, prefix),
        judges=facts.judges_table(run, prefix),
        versions=facts.versions(run),
        model=facts.model_facts(run),
        citation=bibtex(record.erasebench, f"run {facts.key_of(run)}"),
    )


def _counts(run: RunFolder, attacked: Sequence[TableRow]) -> dict[str, str]:
    """The size of a run, for its head: number by what is counted."""
    baseline = run.record.baseline
    methods = {row.method for row in run.rows} - {baseline}
    images = run.scores.drop_duplicates(["method", "concept", "probe", "prompt_id", "seed"])
    counts = {
        ("method", "methods"): len(methods),
        ("concept", "concepts"): len(facts.concepts_of(run)),
        ("attack", "attacks"): len({row.attack for row in attacked}),
        ("row", "rows"): len(run.rows),
        ("image judged", "images judged"): len(images),
        ("prompt attacked", "prompts attacked"): len(run.attacks),
    }
    return {one if number == 1 else many: facts.thousands(number) for (one, many), number in counts.items() if number}


def _flags(rows: Sequence[TableRow], prefix: str) -> list[FlagNote]:
    known = known_flags()
    carried: dict[str, list[str]] = {}
    for row in rows:
        for name in row.flags:
            carried.setdefault(name, []).append(" / ".join(filter(None, (row.method, row.concept, row.attack))))
    notes = []
    for name in [*(name for name in known if name in carried), *(name for name in carried if name not in known)]:
        flag = known.get(name)
        texts = (flag.cause, flag.meaning, flag.remedy) if flag else ("", "A flag without a description.", "")
        notes.append(FlagNote(badge(name, prefix), *texts, tuple(carried[name])))
    return notes


def _downloads(run: RunFolder) -> tuple[Download, ...]:
    frame = to_frame(run.rows, run.record.metrics)
    return downloads(Path(TABLE).stem, frame, to_csv(run.rows, run.record.metrics))


def _shown_ranks(run: RunFolder) -> pd.DataFrame:
    """The ranks by metrics that the page shows."""
    shown = [key for key, metric in run.record.metrics.items() if not metric.details]
    attack = run.ranks["attack"]
    return run.ranks[
        (attack.eq("") & run.ranks["metric"].isin(shown)) | run.ranks["metric"].eq(attack.map(headline_metric))
    ]


def _seeds(run: RunFolder, prefix: str) -> Table | None:
    """The spread between erasures of one method; None where none was made with several seeds."""
    printed = seed_table(run.seeds, run.record.metrics)
    if printed.empty:
        return None
    rows = [
        Row(f"{prefix}seeds-{place}", tuple(map(Cell, cells)), cells[0], cells[1])
        for place, cells in enumerate(printed.to_numpy().tolist())
    ]
    columns = tuple(Column(name) for name in printed.columns)
    files = downloads(Path(SEEDS).stem, run.seeds)
    return Table(f"{prefix}seeds-table", "Spread between seeds", columns, tuple(rows), files, (SEEDS_LEGEND,))


def _budget_notes(run: RunFolder, attacked: Sequence[TableRow]) -> list[str]:
    """The budget of each attack for a prompt."""
    by_attack = budgets(run.record)
    return [
        f"{attack}: {by_attack[attack]}"
        for attack in dict.fromkeys(row.attack for row in attacked)
        if attack in by_attack
    ]


def _comparisons(runs: Sequence[RunFolder], names: Sequence[str]) -> list[tuple[str, str, list[facts.Comparison]]]:
    """Of every pair of the first run and another, whether they can be compared."""
    return [(names[0], name, facts.comparisons(runs[0], run)) for run, name in zip(runs[1:], names[1:], strict=True)]

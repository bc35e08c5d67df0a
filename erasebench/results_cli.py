"""The commands of finished runs: ``report`` and ``compare``, and ``export``, ``verify`` and ``leaderboard``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from erasebench.completion import complete_names, complete_path
from erasebench.errors import EraseBenchError
from erasebench.files import Place
from erasebench.store_cli import PLACE
from erasebench.terminal import say, write_result

INCONCLUSIVE = 4


@click.command()
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_path
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The file; of one run RUN/report.html if omitted."
)
@click.option(
    "--store",
    type=PLACE,
    help="Where the runs' images are.  [default: the one that each run's run.yaml names]",
)
@click.option("--images/--no-images", default=True, help="Images and training curves, which are in the store.")
def report(runs: tuple[Path, ...], out: Path | None, store: Place | None, images: bool) -> None:
    """Write a report of a run, or of several side by side.

    RUN is the folder of a finished run.  The report is one HTML file that opens from disk and needs no network: what
    was found, in words, with tables, charts and images.
    """
    from erasebench.report.html import write_report

    file = write_report(runs, out, store, images)
    write_result(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="File of the leaderboard's rows.")
@click.option(
    "--entries", type=click.Path(path_type=Path, file_okay=False), help="Folder of one submission for each row."
)
@click.option("--no-weights", is_flag=True, help="Leave the erasures' files out of the submissions.")
def export(sources: tuple[Path, ...], table: Path | None, entries: Path | None, no_weights: bool) -> None:
    """Export runs as rows or entries of a leaderboard.

    SOURCES are run folders; for the rows also CSV files of rows, and folders of entries.  Without --csv and --entries,
    the rows are printed as CSV.
    """
    from erasebench.results.entry import read_rows
    from erasebench.results.leaderboard import merge
    from erasebench.results.leaderboard_csv import to_csv

    if entries:
        from erasebench.report.entries import describe_entry, write_entries
        from erasebench.results.run_folder import read_run

        for source in sources:
            written, omitted = write_entries(read_run(source), entries, not no_weights)
            write_result("\n".join(describe_entry(path) for path in written))
            for line in omitted:
                say(f"no entry: {line}")
    if table or not entries:
        rows = merge(row for source in sources for row in read_rows(source))
        if twice := len(rows) - len({row.label for row in rows}):
            say(f"rows with the label of another: {twice}; their column 'note' says in what they differ")
        if table:
            from erasebench.files import write_named

            lost = {row.run for row in read_rows(table)} - {row.run for row in rows} if table.exists() else ()
            if lost:
                raise EraseBenchError(
                    f"{table} has {len(lost)} rows that SOURCES lack and that would be lost: name it among SOURCES to "
                    "keep them, or write another file"
                )
            write_named(table, to_csv(rows))
            say(f"{len(rows)} rows in {table}")
        else:
            write_result(to_csv(rows), end="", raw=True)


@click.command()
@click.argument("entry", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--artefacts", type=click.Path(path_type=Path, file_okay=False), help="Its folder.  [default: beside it]")
@click.option("--sign", metavar="NAME", help="Write into the entry who verified it.")
@click.option("--tolerance", type=click.FloatRange(min=0), help="By how much a score may differ.  [default: 0.02]")
@click.option("--erase", "make_erasure", is_flag=True, help="Make the erasure anew instead of reading its file.")
@click.option("--model", help="The entry's model here: a diffusers folder, a .safetensors file or a hub id.")
@click.option(
    "--fid-reference", type=click.Path(path_type=Path, file_okay=False), help="The folder of real images of its FID."
)
@click.option("--store", type=PLACE, default=Path("erasebench-store"), help="Where images go.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, help="Images at a time.")
@click.option(
    "--max-memory", type=click.FloatRange(min=0, min_open=True), help="GB of a GPU's memory that each process may have."
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: as run]")
@click.option("--plugins", metavar="A,B,...", help="Python files with judges, metrics or methods of the entry.")
@click.option("--concept-files", metavar="A,B,...", help="YAML files with the entry's own concept.")
def verify(entry: Path, sign: str | None, tolerance: float | None, **options: Any) -> None:
    """Check an entry of a leaderboard.

    Draws its images again from its artefacts (erasure, prompts, embeddings and seeds), attacks nothing, and compares.

    The same command again goes on after a kill.  Exits with 1 if the entry is not what its artefacts give.
    """
    from erasebench.config import split_list
    from erasebench.verify import TOLERANCE, How, verify

    options |= {key: tuple(map(Path, split_list(options[key] or ""))) for key in ("plugins", "concept_files")}
    how = How(tolerance=TOLERANCE if tolerance is None else tolerance, **options)
    verification = verify(entry, how, sign or "")
    write_result(verification.text())
    if not verification.verified:
        click.get_current_context().exit(1)


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The page: one HTML file.")
@click.option("--title", default="Leaderboard of concept erasure", help="Its heading.")
def leaderboard(sources: tuple[Path, ...], out: Path, title: str) -> None:
    """Make a page of a leaderboard.

    SOURCES are folders of entries, CSV files that export wrote, and run folders, together.

    The page is one file that opens from disk, without a server or a network.
    """
    from erasebench.files import write_named
    from erasebench.report.board import to_html
    from erasebench.results.entry import read_rows
    from erasebench.results.leaderboard import merge

    rows = merge(row for source in sources for row in read_rows(source))
    text = to_html(rows, title)
    write_named(out, text)
    say(f"{len(rows)} rows in {out} ({len(text.encode()) / 1e6:.1f} MB)")


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--fail-on",
    metavar="A,B,...",
    help="Metrics that can fail, or 'none'.  [default: ratio, clip and robust-rate, where they are]",
    shell_complete=complete_names("metrics"),
)
@click.option(
    "--margin",
    metavar="[METRIC=]NUMBER[%]",
    multiple=True,
    help="How much worse does not matter: 5 (points), clip=1, fid=10%.  [default: 5 points; 2% of CLIP; 10% of others]",
)
@click.option(
    "--rename",
    metavar="OLD=NEW",
    multiple=True,
    help="Compare a method of BASE with one of another name in NEW.",
)
@click.option("--fail-on-inconclusive", is_flag=True, help="Exit with 4 if there is too little to tell.")
@click.option("--allow-missing", is_flag=True, help="NEW may lack methods, concepts and attacks of BASE.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit's XML.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a summary in Markdown.")
@click.option("--json", type=click.Path(path_type=Path, dir_okay=False), help="Write all of it as JSON.")
def compare(
    base: Path,
    new: Path,
    fail_on: str | None,
    margin: Sequence[str],
    rename: Sequence[str],
    fail_on_inconclusive: bool,
    allow_missing: bool,
    junit: Path | None,
    markdown: Path | None,
    json: Path | None,
) -> None:
    """Say whether a run is worse than the one before.

    BASE and NEW are run folders, measured in the same way; seeds may differ.

    Prints what moved, prompt by prompt, with a verdict for each: worse (surely, and by more than a margin), no worse,
    or inconclusive, with what could have been seen.  Exits with 1 if anything is worse, with 4 if NEW lacks a method,
    concept or attack of BASE.

    A verdict is on the erasures in BASE and NEW.  Another training run of a method gives another erasure, which may
    well be worse by itself: erase with several seeds (run --erasure-seeds) to judge the method.
    """
    from erasebench.config import split_list
    from erasebench.files import write_named
    from erasebench.report.comparison import to_json, to_junit, to_markdown, to_terminal
    from erasebench.results.compare import compare
    from erasebench.results.row_pairs import read_renames
    from erasebench.results.run_folder import read_run
    from erasebench.results.verdicts import read_margins

    judged = None if fail_on is None else [] if fail_on == "none" else split_list(fail_on)
    if judged == [] and fail_on != "none":
        raise EraseBenchError("--fail-on names no metric; write none if nothing may fail")
    runs = read_run(base), read_run(new)
    result = compare(*runs, judged, read_margins(margin), read_renames(rename), allow_missing)
    live = sys.stdout.isatty()
    write_result(to_terminal(result, live, shutil.get_terminal_size().columns if live else None), end="")
    files = {junit: to_junit(result, fail_on_inconclusive), markdown: to_markdown(result), json: to_json(result)}
    for path, text in files.items():
        if path:
            write_named(path, text)
    if result.verdict == "worse":
        click.get_current_context().exit(1)
    missing = any(change.missing for change in result.changes)
    if result.verdict == "inconclusive" and (missing or fail_on_inconclusive):
        click.get_current_context().exit(INCONCLUSIVE)

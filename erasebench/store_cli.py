"""The ``erasebench store`` commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from erasebench.errors import EraseBenchError, check_name
from erasebench.files import Place, parse_place
from erasebench.terminal import write_result

if TYPE_CHECKING:
    from erasebench.engine.store import Store
    from erasebench.engine.upkeep import Arrival

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class PlaceType(click.Path):
    """The place of a store: a folder, or a URL."""

    def get_metavar(self, *args: Any, **options: Any) -> str:
        """The name of it in help."""
        return "DIR|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A URL as it is, anything else as a path."""
        place = parse_place(value)
        return place if isinstance(place, str) else super().convert(place, param, ctx)


PLACE = PlaceType(path_type=Path, file_okay=False)
STORE = click.option("--store", "place", type=PLACE, default=Path("erasebench-store"), help="The store.")


@click.group()
def store() -> None:
    """Look after a store: size, unneeded cells, copies."""


@store.command()
@STORE
def size(place: Place) -> None:
    """Say how large a store is.

    By stage: how many cells, and how much space.
    """
    from erasebench.engine.opening import open_store
    from erasebench.engine.upkeep import measure

    write_result("\n".join(measure(open_store(place, make=False))))


@store.command()
@click.option(
    "--keep",
    type=FOLDER,
    multiple=True,
    required=True,
    metavar="RUN",
    help="Folder of a finished run; more may follow.",
)
@click.argument("more", nargs=-1, type=FOLDER, metavar="[RUN]...")
@STORE
@click.option("--yes", is_flag=True, help="Remove it; otherwise only say what would be removed.")
def gc(keep: tuple[Path, ...], more: tuple[Path, ...], place: Place, yes: bool) -> None:
    """Remove what no kept run needs.

    erasebench store gc --keep results/*: what the plan.json of these runs names stays, and what that was made of.  All
    other cells go, those of runs that are not finished too.  Nothing is removed without --yes, and nothing while a run
    is at work in the store.
    """
    from erasebench.engine.opening import open_store
    from erasebench.engine.upkeep import collect_garbage, find_garbage

    opened = open_store(place, make=yes)
    keys, lines = set[str](), list[str]()
    for run in (*keep, *more):
        named = _cells_of(run)
        if not any(opened.has(key) for key in named):
            raise EraseBenchError(
                f"none of the cells of {run} are in {place}; is its store another one?{_named_by(run)}"
            )
        keys |= named
        lines += _lacking(opened, run)
    garbage = (collect_garbage if yes else find_garbage)(opened, keys)
    lines += garbage.lines()
    lines.append("removed: what is not needed" if yes else "nothing was removed; --yes removes what is not needed")
    write_result("\n".join(lines))


@store.command()
@click.argument("source", metavar="FROM", type=PLACE)
@click.argument("target", metavar="TO", type=PLACE)
@click.option("--run", "run", type=FOLDER, help="Folder of a finished run: copy only what it needs.")
def copy(source: Place, target: Place, run: Path | None) -> None:
    """Copy cells into another store.

    Those that it does not have, each compared with the hashes of its marker when it arrived.  TO is made if it is not
    there.

    Exits with 1 if a cell is damaged or left to a run that is at it; the others are copied.
    """
    from erasebench.engine.opening import open_store, store_at
    from erasebench.engine.upkeep import copy, with_what_they_read

    opened = open_store(source, make=False)
    if _is_same(source, target):
        raise EraseBenchError(f"{source} and {target} are the same store")
    named = _cells_of(run) if run else ()
    keys = opened.cells() if run is None else sorted(with_what_they_read(opened, named))
    if run is not None and not keys:
        raise EraseBenchError(f"none of the cells of {run} are in {source}; is its store another one?{_named_by(run)}")
    _report(copy(opened, store_at(target), keys), "copied", target, _lacking(opened, run) if run else ())


@store.command()
@click.argument("run", type=FOLDER)
@click.argument("archive", type=FILE)
@click.option("--store", "place", type=PLACE, help="The store.  [default: the one that the run's run.yaml names]")
def export(run: Path, archive: Path, place: Place | None) -> None:
    """Write a run's cells into one file.

    RUN is the folder of a finished run, ARCHIVE an uncompressed tar file, the same bytes for the same cells.
    """
    from erasebench.engine.archive import export_cells
    from erasebench.engine.opening import open_store
    from erasebench.engine.upkeep import with_what_they_read

    named = _cells_of(run)
    opened = open_store(place or _store_of(run), make=False)
    keys = with_what_they_read(opened, named)
    if not keys:
        raise EraseBenchError(f"none of the cells of {run} are in {opened.name}; name the run's store with --store")
    written = export_cells(opened, keys, archive)
    message = f"exported {len(keys)} cells, {written / 1e6:.1f} MB, to {archive}"
    write_result("\n".join([*_lacking(opened, run), message]))


@store.command(name="import")
@click.argument("archive", type=FILE)
@STORE
def import_(archive: Path, place: Place) -> None:
    """Bring the cells of an exported file into a store.

    Those that it does not have, each compared with the hashes of its marker when it arrived.  The store is made if it
    is not there.

    Exits with 1 if a cell is damaged or left to a run that is at it; the others are brought.
    """
    from erasebench.engine.archive import import_cells

    if not archive.exists():
        near = archive.parent.glob("*.tar") if archive.parent.is_dir() else ()
        check_name("archive", str(archive), sorted(map(str, near)))
    _report(import_cells(archive, place), "imported", place)


def _is_same(source: Place, target: Place) -> bool:
    """True if two places are one."""
    if isinstance(source, str) or isinstance(target, str):
        return str(source).rstrip("/") == str(target).rstrip("/")
    return target.exists() and target.samefile(source)


def _lacking(store: Store, run: Path) -> list[str]:
    """A line that says how many cells that a run had a store lacks, if it does."""
    from erasebench.results.costs import COLUMNS, COSTS
    from erasebench.results.table import read_frame

    costs = read_frame(run / COSTS, COLUMNS)
    finished = set(costs[costs["status"] == "ok"]["cell"])  # the beginnings of their keys
    absent = finished - {key[:12] for key in store.cells()}
    return [f"{len(absent)} of the {len(finished)} cells of {run} are gone from {store.name}"] if absent else []


def _report(arrival: Arrival, what: str, place: Place, before: Sequence[str] = ()) -> None:
    there = f"; {arrival.there} were there" if arrival.there else ""
    lines = [*before, *arrival.problems, f"{what} {arrival.new} cells, {arrival.size / 1e6:.1f} MB, to {place}{there}"]
    write_result("\n".join(lines))
    if arrival.problems:
        click.get_current_context().exit(1)


def _cells_of(run: Path) -> frozenset[str]:
    """The keys of the cells that a run's record names."""
    from erasebench.results.record import RECORD, read_record

    if not run.exists():
        near = run.parent.iterdir() if run.parent.is_dir() else ()
        check_name("run folder", str(run), sorted(str(path) for path in near if (path / RECORD).exists()))
    return read_record(run).cells


def _store_of(run: Path) -> Place:
    from erasebench.config import make_config, read_layer
    from erasebench.results.run_folder import CONFIG

    return make_config(read_layer(run / CONFIG)).store


def _named_by(run: Path) -> str:
    """The store that a run names, for a message about one that is not it; nothing where that cannot be read."""
    try:
        return f" its run.yaml names {_store_of(run)}"
    except (EraseBenchError, OSError):
        return ""

"""The command line.  Commands import what they run only when they run, so that ``--help`` stays instant.

The commands of finished runs are in :mod:`erasebench.results_cli`, of judges in :mod:`erasebench.judges_cli`, of stores
in :mod:`erasebench.store_cli`; the options for a run's configuration are in :mod:`erasebench.config_options`.

Exit codes stand in the help of :func:`cli`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from erasebench import EraseBenchError, __version__
from erasebench.completion import LISTED, complete_name, complete_names
from erasebench.config_options import (
    AttackCommand,
    ConfigCommand,
    EraseCommand,
    ReproduceCommand,
    ShowCommand,
    read_erase_options,
    read_options,
)
from erasebench.files import Place
from erasebench.judges_cli import fetch, train_judge, validate
from erasebench.picturebook.cli import picturebook
from erasebench.results_cli import compare, export, leaderboard, report, verify
from erasebench.store_cli import PLACE
from erasebench.store_cli import store as store_commands
from erasebench.terminal import open_closed_streams, say, write_result

FAILED = 3


class Commands(click.Group):
    """The commands, with what all of them do when they are stopped."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C is exit code 130, and nothing that a command loads may end it in silence.

        Raises:
            EraseBenchError: a plug-in called ``sys.exit``; commands themselves leave by their context.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("\nstopped; the same command goes on from here")
            ctx.exit(130)
        except SystemExit as stop:
            raise EraseBenchError(f"a plug-in ended the command by sys.exit({stop.code!r})") from stop


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "auto_envvar_prefix": "ERASEBENCH",
    },
)
@click.version_option(__version__, prog_name="erasebench", allow_from_autoenv=False)
def cli() -> None:
    """Measure how well a concept can be erased from a text-to-image model.

    Exit codes: 0 fine; 1 something measured falls short, is worse or damaged; 2 bad usage or bad input; 3 some cell of
    a run, or an erasure, failed; 4 a comparison is inconclusive, where that was asked for or the new run lacks
    something; 130 stopped by Ctrl-C.

    Options can stand in the environment: ERASEBENCH_RUN_STORE is run's --store.

    Completion in bash: eval "$(_ERASEBENCH_COMPLETE=bash_source erasebench)"
    """


cli.add_command(picturebook)
cli.add_command(store_commands)


@cli.command(cls=ConfigCommand)
def run(**options: Any) -> None:
    """Erase, generate, judge, measure.

    Prints the table and leaves it, with grids, costs and a ledger, in the run folder.

    The same command again computes nothing; with a method or a concept more, only what that adds; after a kill, what
    was not finished.  Exits with 3 if some cell failed.
    """
    _run(options)


def _run(options: dict[str, Any], attacks_only: bool = False) -> None:
    from erasebench.report.table import to_terminal
    from erasebench.runs import any_failed

    result = _compute(read_options(options), attacks_only)
    live = sys.stdout.isatty()
    write_result(
        to_terminal(
            result.rows,
            result.record.metrics,
            live,
            shutil.get_terminal_size().columns if live else None,
            result.budgets,
            result.ranks,
            result.seeds,
        )
    )
    if any_failed(result.rows):
        click.get_current_context().exit(FAILED)


def _compute(config: Any, attacks_only: bool = False) -> Any:
    """Run, and say how much was computed."""
    from erasebench.runs import run, summary

    result = run(config, attacks_only=attacks_only)
    say(summary(result))
    return result


@cli.command(cls=EraseCommand)
@click.option(
    "--method",
    required=True,
    help="The method; options in brackets: esd-u[steps=200].",
    shell_complete=complete_name("methods"),
)
@click.option(
    "--concept",
    required=True,
    metavar="A,B,...",
    help="What to erase, as in run; several together.",
    shell_complete=complete_names("concepts"),
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of this erasure.")
@click.option(
    "--export",
    type=click.Choice(["none", "diffusers", "lora", "single-file", "kohya-lora"]),
    default="none",
    help="Write as well, for stock diffusers, a pipeline folder or a LoRA; for ComfyUI and A1111, a single file or a "
    "kohya LoRA.",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="Of a kohya-lora of a change that is not low-rank, which it approximates; 64 if omitted.",
)
def erase(method: str, concept: str, out: Path, export: Any, rank: int | None, **options: Any) -> None:
    """Erase concepts by one method, without measuring.

    Leaves the erasure, what it was made with, and its loss curve in a folder.

    The same command again goes on after a kill, and exports what is finished.  --settings takes option=value as well.
    Exits with 3 if training diverges.
    """
    from erasebench.erasures import erase
    from erasebench.errors import ErasureFailedError

    try:
        write_result(erase(read_erase_options(method, concept, out, options), export, rank=rank))
    except ErasureFailedError as error:
        if error.traceback:
            say(error.traceback, end="")
        say(f"error: {error}")
        click.get_current_context().exit(FAILED)


@cli.command(cls=AttackCommand)
@click.option(
    "--method", required=True, help="The method to attack, as in run.", shell_complete=complete_name("methods")
)
@click.option(
    "--attack",
    required=True,
    metavar="A,B,...",
    help="The attack; options in brackets: unlearndiff[steps=20].",
    shell_complete=complete_names("attacks"),
)
@click.option("--concept", required=True, help="What is erased, as in run.", shell_complete=complete_name("concepts"))
def attack(method: str, attack: str, concept: str, **options: Any) -> None:
    """Attack one method, without measuring anything else.

    Leaves what was found for each prompt, the table and sheets of images in the run folder.

    The erasure is taken from the store or made.  The same command again computes nothing.
    """
    if not method.strip(" ,"):
        raise EraseBenchError("--method names none; `erasebench list methods` shows them")
    options |= {"methods": method, "attacks": attack, "concepts": concept}
    _run(options, attacks_only=True)


@cli.command(cls=ConfigCommand)
@click.option(
    "--precision",
    metavar="N%",
    help="Say how many prompts it takes to know a rate to +-N per cent (95 % interval), such as 2%.",
)
@click.option(
    "--speeds-of",
    type=PLACE,
    metavar="STORE",
    help="Estimate time, disk and memory from what this store measured too, such as that of a first small run.",
)
def plan(precision: str | None, speeds_of: Place | None, **options: Any) -> None:
    """Show what a run would do.

    Cells to compute, cells already there, images, time and disk.  Exits with 2, as the run would, where a GPU of this
    machine has no room for the model.
    """
    from erasebench.engine.opening import open_store, store_at
    from erasebench.plan import describe_plan, find_missing
    from erasebench.planning import make_plan
    from erasebench.precision import describe_precision, parse_precision
    from erasebench.runs import check_cards, with_replays

    half = None if precision is None else parse_precision(precision)
    measured = [open_store(speeds_of, make=False)] if speeds_of else []
    run_plan = make_plan(with_replays(read_options(options)))
    store = store_at(run_plan.config.store, make=False)
    missing = find_missing(run_plan, store)
    write_result(describe_plan(run_plan, missing, store, measured))
    if half is not None:
        write_result(f"\n{describe_precision(half, run_plan.config)}")
    check_cards(run_plan, missing)


@cli.command(cls=ReproduceCommand)
@click.argument("suite", shell_complete=complete_name("suites"))
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a finished run of the suite; without it, the suite is run first.",
)
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="File for the numbers.")
def reproduce(suite: str, folder: Path | None, table: Path | None, **options: Any) -> None:
    """Print a paper's numbers beside a run's.

    Runs the suite first, at the scale that the options give, or reads a run that is there; the same command again
    computes nothing.  Says what differs, of models, concepts and judges, and of which numbers nothing was measured.

    Exits with 3 if some cell failed.
    """
    from erasebench.files import write_named
    from erasebench.report.reproduction import reproduce, to_csv, to_terminal
    from erasebench.results.run_folder import read_run
    from erasebench.runs import any_failed
    from erasebench.suites import read_suite

    options_given = [name for name, value in options.items() if value is not None]
    if folder is None:
        config = read_options({**options, "suite": suite})
        known = read_suite(suite, config.plugins, config.concept_files)
        failed, folder = any_failed(_compute(config).rows), config.out
    elif options_given:
        raise EraseBenchError(
            f"--run reads a run as it is: --{options_given[0].replace('_', '-')} would change nothing"
        )
    else:
        known, failed = read_suite(suite), False
    reproduction = reproduce(suite, known, read_run(folder))
    live = sys.stdout.isatty()
    write_result(to_terminal(reproduction, live, shutil.get_terminal_size().columns if live else None), end="")
    if table:
        write_named(table, to_csv(reproduction))
    if failed:
        click.get_current_context().exit(FAILED)


cli.add_command(report)


@cli.command(name="list")
@click.argument("kind", type=click.Choice(LISTED), required=False)
@click.argument("pattern", default="*", shell_complete=complete_name(*LISTED))
def list_(kind: str | None, pattern: str) -> None:
    """List what there is to run, with what it is.

    Methods, attacks, judges, metrics, guidance rules, concepts, prompt sets, presets or suites, by wildcard:
    erasebench list methods "esd*".
    """
    from erasebench.listing import listing

    lines = listing(kind, pattern)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    write_result("\n".join(lines))


@cli.command(cls=ShowCommand)
@click.argument("name", shell_complete=complete_name(*LISTED))
@click.option("--kind", type=click.Choice(LISTED), help="What it is, where several things have one name.")
@click.option(
    "--concept",
    help="Show the values that a method's hyper-parameters take for this concept.",
    shell_complete=complete_name("concepts"),
)
def show(name: str, kind: str | None, concept: str | None, **options: Any) -> None:
    """Show what one thing is, such as a method.

    A method with its hyper-parameters: type and range, default, value in domains with settings of their own, meaning.
    Or an attack, judge, metric, guidance rule, concept, prompt set, preset or suite.
    """
    from erasebench.config import split_list
    from erasebench.description import describe

    files = {key: [Path(path) for path in split_list(value or "")] for key, value in options.items()}
    write_result(describe(name, kind, concept, **files))


for command in (export, verify, leaderboard, compare):
    cli.add_command(command)


@cli.command()
@click.option("--store", type=PLACE, default=Path("erasebench-store"), help="The store.")
@click.option("--fix", is_flag=True, help="Remove what is damaged or left over; runs compute it anew.")
def doctor(store: Place, fix: bool) -> None:
    """Check a store, byte by byte.

    Also says what runs left that ended: half-written cells, and leases, which say that a run is at a cell.  Those of
    other machines are watched, for a minute at most, to see whether their runs are alive.

    Exits with 1 if something is damaged and was not removed.
    """
    from erasebench.engine.doctor import examine, of_other_versions
    from erasebench.engine.opening import store_at

    problems, others = examine(store, fix), of_other_versions(store_at(store, make=False))
    write_result("\n".join([*(problems or [f"{store}: nothing is damaged"]), *others]))
    if problems and not fix:
        say(f"`erasebench doctor --fix --store {store}` removes that; the runs that need it compute it anew")
        click.get_current_context().exit(1)


for command in (fetch, train_judge, validate):
    cli.add_command(command)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on ``args`` (those of the process if omitted) and exit; see the top for exit codes."""
    open_closed_streams()
    try:
        cli(args=args, prog_name="erasebench")
    except (EraseBenchError, OSError) as error:
        # An OSError names the file and what the system said of it: a folder that cannot be written, a full disk.
        say(f"error: {' '.join(str(error).splitlines())}")
        sys.exit(2)

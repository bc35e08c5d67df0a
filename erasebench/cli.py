"""The command line.  Commands import what they run only when they run, so that ``--help`` stays instant.

Exit codes stand in the help of :func:`cli`.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from erasebench import EraseBenchError, __version__
from erasebench.completion import complete_name, complete_names, complete_path
from erasebench.files import Place
from erasebench.picturebook.cli import picturebook
from erasebench.store_cli import PLACE
from erasebench.store_cli import store as store_commands
from erasebench.terminal import open_closed_streams, say, write_result

FAILED = 3
INCONCLUSIVE = 4
LISTED = ("methods", "attacks", "judges", "metrics", "rules", "concepts", "prompt-sets", "presets", "suites")
"""What ``list`` and ``show`` know: ``erasebench.listing.LISTED``, which takes longer to import than ``--help`` may."""


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


class ConfigCommand(click.Command):
    """A command with an option for every key of the run's configuration; they are made when the command is used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The configuration's options, then the command's own."""
        return [*config_options(), *super().get_params(ctx)]


class AttackCommand(ConfigCommand):
    """A command with an option for every key of the run's configuration but those that it names itself."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The configuration's options, then the command's own."""
        own = ("methods", "attacks", "concepts", "suite")
        return [option for option in super().get_params(ctx) if option.name not in own]


class ReproduceCommand(ConfigCommand):
    """A command with an option for every key of the run's configuration but the suite, which it is given."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The configuration's options, then the command's own."""
        options = super().get_params(ctx)
        return [option for option in options if option.name != "suite" or isinstance(option, click.Argument)]


class EraseCommand(click.Command):
    """A command with an option for those keys of a run's configuration that one erasure has."""

    KEYS: tuple[str, ...] = (
        "model",
        "seed",
        "settings",
        "device",
        "dtype",
        "max_memory",
        "gradient_checkpointing",
        "plugins",
        "concept_files",
    )

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the configuration's, then ``--help``."""
        *own, help_option = super().get_params(ctx)
        return [*own, *(option for option in config_options() if option.name in self.KEYS), help_option]


class ShowCommand(EraseCommand):
    """A command with an option for the files that may bring what it shows."""

    KEYS = ("plugins", "concept_files")


@cache
def config_options() -> list[click.Parameter]:
    """One option for every configuration key, ``--images-per-prompt`` for ``images_per_prompt``."""
    from erasebench.config import RunConfig

    options: list[click.Parameter] = [
        click.Option(["--config"], type=click.Path(path_type=Path, dir_okay=False), help="YAML file of these options."),
        click.Option(
            ["--preset"],
            help="smoke, quick or paper.  [default: quick on Picturebook, else paper]",
            shell_complete=complete_name("presets"),
        ),
    ]
    for key, field in RunConfig.model_fields.items():
        default = field.get_default(call_default_factory=True)
        words = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = f"  [default: {words}]" if default not in (None, (), {}) else ""
        flag = f"--{key.replace('_', '-')}"
        text = f"{field.description}{shown}"
        if field.annotation is bool:
            options.append(click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=text, show_default=False))
        else:
            metavar = _metavar(default, field.annotation)
            several = "concepts" if key == "others" else key
            one = {"second_judge": "judges", "suite": "suites"}.get(key)
            complete = complete_names(several) if several in LISTED else complete_path if metavar == "PATH" else None
            complete = complete_name(one) if one else complete
            options.append(click.Option([flag], help=text, metavar=metavar, shell_complete=complete))
    return options


def _metavar(default: object, annotation: Any) -> str:
    if isinstance(default, tuple):
        return "A,B,..."
    if isinstance(default, dict):
        return "NAME=VALUE,..."
    if get_origin(annotation) is Literal:
        return f"[{'|'.join(get_args(annotation))}]"
    kinds = {"int": "INTEGER", "float": "NUMBER", "Path": "PATH"}
    return next((shown for kind, shown in kinds.items() if kind in str(annotation)), "TEXT")


def read_options(options: dict[str, Any]) -> Any:
    """The configuration that preset, file and options make, each over the one before."""
    from erasebench.suites import layered_config

    file, preset = options.pop("config", None), options.pop("preset", None)
    given = {key: _value(key, value) for key, value in options.items() if value is not None}
    return layered_config(given, file, preset)


def _value(key: str, value: Any) -> Any:
    """What an option's text says; mappings are split at commas and the first equals sign."""
    from erasebench.config import RunConfig, parse_value, split_list

    if isinstance(RunConfig.model_fields[key].get_default(call_default_factory=True), dict):
        pairs = [part.partition("=") for part in split_list(value)]
        counts = Counter(name.strip() for name, _, _ in pairs)
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise EraseBenchError(f"--{key.replace('_', '-')} gives {twice} twice")
        if key != "settings":
            without = [name for name, equals, _ in pairs if not equals]
            if without:
                what = {"judges": "judge", "slurm": "value"}.get(key, "file")
                raise EraseBenchError(f"'{without[0]}' in --{key.replace('_', '-')} names no {what}; write name={what}")
            return {name: parse_value(text) if key == "slurm" else text for name, _, text in pairs}
        # settings: esd-u.steps=200,uce.lamb=0.1
        nested: dict[str, dict[str, Any]] = {}
        for name, equals, text in pairs:
            method, dot, option = name.rpartition(".")
            if not (dot and equals):
                raise EraseBenchError(f"'{name}' in --settings is no setting; write method.option=value")
            nested.setdefault(method, {})[option] = parse_value(text)
        return nested
    return value


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


def read_erase_options(method: str, concept: str, out: Path, options: dict[str, Any]) -> Any:
    """The configuration of a run of one method; settings without a method's name are the method's."""
    from erasebench.config import make_config, parse_method, split_list

    name = parse_method(method)[0]
    if options["settings"]:
        pairs = [
            part if "." in part.partition("=")[0] else f"{name}.{part}" for part in split_list(options["settings"])
        ]
        options["settings"] = ",".join(pairs)
    given = {key: _value(key, value) for key, value in options.items() if value is not None}
    return make_config({**given, "methods": [method], "concepts": split_list(concept), "out": out})


@cli.command(cls=AttackCommand)
@click.option(
    "--method", required=True, help="The method to attack, as in run.", shell_complete=complete_name("methods")
)
@click.option(
    "--attack",
    required=True,
    metavar="A,B,...",
    help="The attack; options in brackets: unlearndiff[iterations=20].",
    shell_complete=complete_names("attacks"),
)
@click.option("--concept", required=True, help="What is erased, as in run.", shell_complete=complete_name("concepts"))
def attack(method: str, attack: str, concept: str, **options: Any) -> None:
    """Attack one method, without measuring anything else.

    Leaves what was found for each prompt, the table and sheets of images in the run folder.

    The erasure is taken from the store or made.  The same command again computes nothing.
    """
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

    Cells to compute, cells already there, images, time and disk.
    """
    from erasebench.engine.opening import open_store, store_at
    from erasebench.plan import describe_plan
    from erasebench.planning import make_plan
    from erasebench.precision import describe_precision, parse_precision
    from erasebench.runs import with_replays

    half = None if precision is None else parse_precision(precision)
    measured = [open_store(speeds_of, make=False)] if speeds_of else []
    made = make_plan(with_replays(read_options(options)))
    write_result(describe_plan(made, store_at(made.config.store, make=False), measured))
    if half is not None:
        write_result(f"\n{describe_precision(half, made.config)}")


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

    given = [name for name, value in options.items() if value is not None]
    if folder is None:
        config = read_options({**options, "suite": suite})
        known = read_suite(suite, config.plugins, config.concept_files)
        failed, folder = any_failed(_compute(config).rows), config.out
    elif given:
        raise EraseBenchError(f"--run reads a run as it is: --{given[0].replace('_', '-')} would change nothing")
    else:
        known, failed = read_suite(suite), False
    found = reproduce(suite, known, read_run(folder))
    live = sys.stdout.isatty()
    write_result(to_terminal(found, live, shutil.get_terminal_size().columns if live else None), end="")
    if table:
        write_named(table, to_csv(found))
    if failed:
        click.get_current_context().exit(FAILED)


@cli.command()
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

    A method with its hyper-parameters: type and range, default, value on Picturebook, meaning.  Or an attack, judge,
    metric, guidance rule, concept, prompt set, preset or suite.
    """
    from erasebench.config import split_list
    from erasebench.description import describe

    files = {key: [Path(path) for path in split_list(value or "")] for key, value in options.items()}
    write_result(describe(name, kind, concept, **files))


@cli.command()
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
            written, left_out = write_entries(read_run(source), entries, not no_weights)
            write_result("\n".join(describe_entry(path) for path in written))
            for line in left_out:
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


@cli.command()
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
    found = verify(entry, how, sign or "")
    write_result(found.text())
    if not found.verified:
        click.get_current_context().exit(1)


@cli.command()
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


@cli.command()
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


@cli.command()
@click.argument("name", required=False, shell_complete=complete_name("judges", "prompt-sets"))
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files.  [default: $ERASEBENCH_WEIGHTS or ~/.cache/erasebench/weights]",
)
def fetch(name: str | None, into: Path | None) -> None:
    """Download a judge's weights or a prompt set.

    Checks what comes, and goes on where a download broke off.  Without a name: list what each judge needs and which
    prompt sets there are, where they come from, and whether they are there.
    """
    from erasebench.fetching import fetch, list_files

    if name is None:
        if into is not None:
            raise EraseBenchError("--into needs a judge or a prompt set to fetch")
        write_result("\n".join(list_files()))
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(
        BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        fetch(name, into, write_result, lambda done, total: bar.update(task, completed=done, total=total))


@cli.command()
@click.argument("judge")
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of training images: for yolov8-imagenette Imagenette as it is distributed, with train and val.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the weights.  [default: where the judge looks for them]",
)
@click.option("--epochs", type=click.IntRange(min=1), default=100, help="Passes over the training images.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the first weights and the order of images.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
def train_judge(judge: str, images: Path, out: Path | None, epochs: int, seed: int, device: str) -> None:
    """Train a judge whose weights nobody publishes.

    There is one, yolov8-imagenette: YOLOv8n-cls on your copy of Imagenette (https://github.com/fastai/imagenette).
    """
    from erasebench.errors import check_name
    from erasebench.judges.weights_files import weights_folder
    from erasebench.judges.yolov8_imagenette import NAME, WEIGHTS, train

    check_name("judge that can be trained", judge, (NAME,))
    path = weights_folder() / WEIGHTS.name if out is None else out
    train(images, path, epochs, seed, device, write_result)
    write_result(f"wrote {path}")


@cli.command()
@click.argument("judges", metavar="JUDGE...", nargs=-1, required=True, shell_complete=complete_name("judges"))
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with the folders positive and negative, or with labels.csv (columns file, shows: 1 or 0).  [default: "
    "renders of Picturebook's world]",
)
@click.option("--scenes", type=click.IntRange(min=2), default=200, help="Renders that show each label.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV file for the counts.")
def validate(judges: Sequence[str], images: Path | None, scenes: int, device: str, out: Path | None) -> None:
    """Measure how often a judge is right.

    Sensitivity, specificity and AUC on images of which you know what they show: erasebench validate
    "nudenet[label=FACE_FEMALE;threshold=0.5]" --images faces.  Label, threshold or profile stand in brackets, as in
    run's --judges.
    """
    from erasebench.validation import validate, write_validations

    found = [one for judge in judges for one in validate(judge, images, scenes, device)]
    for one in found:
        write_result("\n".join(one.lines()))
    if out is not None:
        write_validations(out, found)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on ``args`` (those of the process if omitted) and exit; see the top for exit codes."""
    open_closed_streams()
    try:
        cli(args=args, prog_name="erasebench")
    except (EraseBenchError, OSError) as error:
        # An OSError names the file and what the system said of it: a folder that cannot be written, a full disk.
        say(f"error: {' '.join(str(error).splitlines())}")
        sys.exit(2)

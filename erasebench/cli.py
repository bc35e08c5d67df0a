"""The command line.  Commands import what they run only when they run, so that ``--help`` stays instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from erasebench import EraseBenchError, __version__
from erasebench.picturebook.cli import picturebook


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="erasebench")
def cli() -> None:
    """Measure how well a concept can be erased from a text-to-image model."""


cli.add_command(picturebook)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line on ``args`` (those of the process if omitted) and exit.

    Exits with 0 on success, 1 where a measurement falls short of its bar and 2 on bad usage or bad input.
    """
    try:
        cli(args=args, prog_name="erasebench")
    except (EraseBenchError, OSError) as error:
        # An OSError names the file and what the system said of it: a folder that cannot be written, a full disk.
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
